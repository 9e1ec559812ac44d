"""Starts the runs of a case, each in a fresh process, watches them, and records how each ended.

However this process ends, it leaves no run behind.
"""

import contextlib
import dataclasses
import functools
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import EvidenceError
from harness.cases.case import Case
from harness.evidence.bundle import read_run
from harness.runners.executor import Listener, no_listener, runs_of
from harness.runners.job import Job
from harness.runners.protection import Guard, Strays
from harness.runners.running import Running, end, look, record, start_job, take_note
from harness.runners.starting import Start, start_fresh
from harness.runners.turns import next_job, without_consequences
from harness.runs.trace import Run

POLL_SECONDS = 0.1


def finished(job: Job) -> bool:
    """Whether a run of this job has finished before, with its complete trace."""
    try:
        run = read_run(Path(job.directory))
    except EvidenceError:
        return False
    if run.trace is None or run.trace.header.case != job.case_digest or run.trace.header.runner != job.runner:
        return False
    return run.outcome.status == "completed" and run.trace.complete


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """An executor with a process for each job: `workers` at a time, or one job that has more processes. Runs on devices
    have a queue of their own, and each has devices of its own.

    `start` starts the process of a job from the job's file. With a `guard` the subject's runs are kept from those of
    the other sides: by namespaces, or because no other side's run begins before all of them have ended.
    """

    workers: int
    start: Start = start_fresh
    guard: Guard | None = None

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out every job that is not finished; see `Executor`.

        Outside the main thread SIGTERM is left to the caller. When a run that several nodes make together breaks,
        another node may be gone: the other runs of that kind are omitted, and their outcome states why; otherwise each
        would wait for that node.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; all runs are ended first and can be resumed.
        """
        waiting, guard = [job for job in jobs if not finished(job)], self._guard()
        start = functools.partial(start_fresh, guard=guard) if self.start is start_fresh else self.start
        if guard is not None and guard.kind == "order":
            waiting.sort(key=lambda job: job.side != "subject")
        running: list[Running] = []
        fresh = guard is not None and self.start is start_fresh
        strays = Strays() if fresh and sys.platform == "linux" else None
        with terminate_as_interrupt():
            try:
                while waiting or running:
                    while job := next_job(waiting, running, self.workers, guard):
                        waiting.remove(job)
                        running.append(start_job(job, start, guard))
                    time.sleep(POLL_SECONDS)
                    over = [one for one in running if look(one, case, listener)]
                    running = [one for one in running if one not in over]
                    if over and strays is not None:
                        strays.end(one.process.pid for one in running)
                    for one in over:
                        _note_end(one.job, guard)
                    waiting = without_consequences(waiting, over, guard)
            finally:
                for one in running:
                    end(one)
                    take_note(one, listener)
                    record(one, "interrupted", f"interrupted after step {one.last_step}")
        return runs_of(jobs)

    def _guard(self) -> Guard | None:
        """The guard as it works here: only a fresh process can have namespaces."""
        if self.guard is None or self.start is start_fresh or self.guard.kind != "namespaces":
            return self.guard
        return dataclasses.replace(self.guard, kind="order", why="the runs are forked from one process")


def _note_end(job: Job, guard: Guard | None) -> None:
    if guard is not None:
        guard.ended(job)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is; a signal reaches the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
