"""Clean runs by the hundred: two processes, one a framework, that import it once and carry out job after job; and where
there are ranks, those that stay from run to run.

A compiled training step serves every run of its shapes: the trainer is reset and gets other weights. The same is true
of the compiled graphs of inference. These runs therefore do not show what only a fresh process shows: that a run
repeats, and that a checkpoint is all it needs. Planted defects and certificates have a process for each run.
"""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.cases.runs_of_a_case import TRAINING
from harness.runners import cores
from harness.runners.executor import Listener, no_listener, runs_of
from harness.runners.job import Job
from harness.runners.processes import end_with_parent
from harness.runners.starting import variables
from harness.runners.worker import carry_out
from harness.runs.trace import Run
from harness.studies.reuse import factory_of, forget, recorded
from harness.studies.standing_ranks import StandingRanks

_standing = StandingRanks()  # of the process for runs of several ranks


class Pool:
    """An executor with one process for the subject's jobs, another for those of reference and oracle, and a third that
    starts the processes of jobs of several ranks. Their output is added to a log."""

    def __init__(self, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        spawn, arguments = get_context("spawn"), (variables(threads), os.getpid(), log)
        self._held = cores.reserve(threads), cores.reserve(threads)
        self._subject, self._others, self._ranks = (
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(*arguments, held))
            for held in (*self._held, ())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for executor in (self._subject, self._others, self._ranks):
            executor.shutdown(cancel_futures=True)
        for held in self._held:
            cores.release(held)

    def _of(self, job: Job) -> ProcessPoolExecutor:
        if job.side != "subject":
            return self._others
        return self._ranks if job.ranks > 1 else self._subject

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out jobs; see `Executor`. The listener takes each trace once, when its run has ended.

        Raises:
            InputError: one of the processes was killed.
        """
        training = [job for job in jobs if job.run == TRAINING]
        try:
            for part in (training, [job for job in jobs if job not in training]):
                for job, future in [(job, self._of(job).submit(_carry_out, job, case)) for job in part]:
                    run = future.result()
                    if run.trace is not None:
                        listener(job.run, run.trace)
        except BrokenProcessPool:
            raise InputError(
                f"A process of the clean runs was killed, perhaps for lack of memory; {self._log} ends with its last "
                "output. Finished runs are kept: continue with --resume."
            ) from None
        return runs_of(jobs)


def _begin(environment: dict[str, str], parent: int, log: Path, held: tuple[int, ...]) -> None:
    """The variables have to be there before the framework is, and it is imported with the first job."""
    cores.hold(held)
    os.environ.update(environment)
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    end_with_parent(parent)


def _carry_out(job: Job, case: Case) -> Run:
    if job.ranks > 1:
        (run,) = _standing.execute([job], case)
        return run
    return recorded(job, functools.partial(_alone, job))


def _alone(job: Job) -> None:
    try:
        if not carry_out(job, factory_of(job), resume=False):
            carry_out(job, factory_of(job), resume=True)
    except Exception:  # whatever it is: what was kept for the next run may be half way through a step
        forget()
        raise
