"""The cores of this machine that a run is held to.

MindSpore keeps a core busy per thread pool while it waits, whatever the number of threads that it is given, so several
runs at once would take each other's time. A run of one thread gets one core.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

PROCESSES = Path("/proc")
_reserved = Counter[int]()  # by this process, for runs that may not have begun to hold themselves to them
_reserving = threading.Lock()


def reserve(count: int) -> tuple[int, ...]:
    """So many of the cores of this process, for a run: those that fewest runs of this process, and fewest other
    processes, are held to. None if there are no more than that, or if the system cannot hold a process."""
    if not hasattr(os, "sched_getaffinity") or count >= len(allowed := os.sched_getaffinity(0)):
        return ()
    taken = Counter(core for held in _held() if len(held) < len(allowed) for core in held)
    found = sorted(allowed)
    random.SystemRandom().shuffle(found)  # of several commands that start at once, each begins elsewhere
    with _reserving:
        chosen = tuple(sorted(found, key=lambda core: (_reserved[core], taken[core]))[:count])
        _reserved.update(chosen)
    return chosen


def release(cores: Iterable[int]) -> None:
    """The run has ended."""
    with _reserving:
        _reserved.subtract(cores)


def hold(cores: Iterable[int]) -> None:
    """Holds this process, and what it starts from now on, to cores; without effect if none are given."""
    if chosen := set(cores):
        os.sched_setaffinity(0, chosen)


def held_to() -> int | None:
    """How many cores this process may use; None where the system does not know."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _held() -> Iterator[set[int]]:
    """The cores of every process of this machine."""
    for entry in PROCESSES.glob("[0-9]*"):
        try:
            yield os.sched_getaffinity(int(entry.name))
        except OSError:  # it has ended
            continue
