"""Clean runs by the hundred: two processes, one a framework, that import it once and carry out job after job; and where
there are ranks, those that stay from run to run.

A compiled training step serves every run of its shapes: the trainer goes back to before its first step and takes other
weights. So do the compiled graphs of a model that is asked. What only a fresh process shows (that a run repeats itself
there, that a checkpoint is all it needs) is therefore not shown by these runs; planted defects and certificates have a
process for each.
"""

import os
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.base.errors import InputError
from harness.base.records import write_json
from harness.cases.runs_of_a_case import TRAINING
from harness.runners.job import Job
from harness.runners.launcher import own_end, variables
from harness.runners.processes import end_with_parent
from harness.runners.worker import carry_out
from harness.runs.files import OUTCOME, TRACE
from harness.runs.trace import RunOutcome, Status, read_trace
from harness.studies.reuse import factory_of, forget
from harness.studies.standing_ranks import carry_out_together


class Pool:
    """Carries out jobs: the subject's in one process, those of reference and oracle in another, those of several ranks
    by processes that a third one starts. What they say is added to a log."""

    def __init__(self, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        spawn, told = get_context("spawn"), (variables(threads), os.getpid(), log)
        self._subject, self._others, self._ranks = (
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=told) for _ in range(3)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for executor in (self._subject, self._others, self._ranks):
            executor.shutdown(cancel_futures=True)

    def _of(self, job: Job) -> ProcessPoolExecutor:
        if job.side != "subject":
            return self._others
        return self._ranks if job.ranks > 1 else self._subject

    def execute(self, jobs: Sequence[Job]) -> None:
        """Carries out jobs and waits for all of them, those that ask weights after the one that trains them. What a
        runner raises is how its run ended.

        Raises:
            InputError: one of the processes was killed.
        """
        training = [job for job in jobs if job.run == TRAINING]
        try:
            for part in (training, [job for job in jobs if job not in training]):
                for future in [self._of(job).submit(_carry_out, job) for job in part]:
                    future.result()
        except BrokenProcessPool:
            raise InputError(
                f"A process of the clean runs was killed, for want of memory perhaps; {self._log} ends with what it "
                "said. What was concluded stays: go on with --resume."
            ) from None


def _begin(environment: dict[str, str], parent: int, log: Path) -> None:
    """The variables have to be there before the framework is, and it is imported with the first job."""
    os.environ.update(environment)
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    end_with_parent(parent)


def _carry_out(job: Job) -> None:
    directory = Path(job.directory)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        if job.ranks > 1:
            carry_out_together(job)
        elif not carry_out(job, factory_of(job), resume=False):
            carry_out(job, factory_of(job), resume=True)
        trace = read_trace(directory / TRACE)
        _record(directory, *own_end(trace), len(trace.lines), "")
    # In a process of its own a run would crash by any of them, and that is an outcome. Here the process goes on.
    except Exception as error:
        forget()
        _record(directory, "crashed", f"raised {type(error).__name__}", 0, traceback.format_exc())


def _record(directory: Path, status: Status, detail: str, last_step: int, log: str) -> None:
    outcome = RunOutcome(status=status, last_step=last_step, detail=detail, log_tail=log)
    write_json(directory / OUTCOME, outcome)
