"""The cores of this machine that a run is held to.

MindSpore keeps a core busy per thread pool while it waits, whatever the number of threads that it is given, so several
runs at once would take each other's time. A run of one thread gets one core.
"""

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

PROCESSES = Path("/proc")


def hold(pid: int, count: int) -> None:
    """Holds a process that has just been started, and what it starts, to `count` of the cores of this one: those to
    which the fewest other processes are held. Without effect where there are no more, or where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return
    taken = [set(held) for held in _held() if len(held) < len(cores)]
    random.SystemRandom().shuffle(cores)  # of several such commands that start at once, each begins elsewhere
    chosen = sorted(cores, key=lambda core: sum(core in held for held in taken))[:count]
    with contextlib.suppress(OSError):  # it has ended already, and how is seen elsewhere
        os.sched_setaffinity(pid, chosen)
        # What it starts from now on is held too; this is for what it had started by then.
        for child in (PROCESSES / f"{pid}/task/{pid}/children").read_text().split():
            os.sched_setaffinity(int(child), chosen)


def held_to() -> int | None:
    """How many cores this process may use; None where the system does not know."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _held() -> Iterator[Sequence[int]]:
    """The cores of every process of this machine."""
    for entry in PROCESSES.glob("[0-9]*"):
        try:
            yield sorted(os.sched_getaffinity(int(entry.name)))
        except OSError:  # it has ended
            continue
