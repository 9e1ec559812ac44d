"""The devices of this machine that a run is held to: each run has its own.

A process of MindSpore takes the first device that it sees, so two runs at a time would share it. A run sees only the
devices that are reserved for it. On a machine without a driver nothing is reserved.
"""

import threading
from collections.abc import Iterable

from harness.base import ascend

_taken: set[int] = set()
_reserving = threading.Lock()


def reserve(count: int) -> tuple[int, ...]:
    """So many idle devices that no run of this process has; none where there are fewer, or no driver that counts them:
    then the run sees what this process sees, and its own start fails with the words of the device."""
    with _reserving:
        chosen = tuple(number for number in ascend.numbers() if number not in _taken)[:count]
        if len(chosen) < count:
            return ()
        _taken.update(chosen)
    return chosen


def release(numbers: Iterable[int]) -> None:
    """The run has ended."""
    with _reserving:
        _taken.difference_update(numbers)


def free(count: int) -> bool:
    """Whether so many devices can be reserved, or there is no driver that counts them."""
    known = ascend.numbers()
    return not known or len(set(known) - _taken) >= count


def visible(numbers: Iterable[int]) -> dict[str, str]:
    """The variable by which a process sees these devices alone, in this order; empty for none."""
    shown = ",".join(map(str, numbers))
    return {ascend.VISIBLE: shown} if shown else {}
