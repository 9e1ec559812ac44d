"""Clean runs by the hundred: two processes, one a framework, that import it once and carry out job after job.

A compiled training step serves every run of its shapes: the trainer goes back to before its first step and takes other
weights. What only a fresh process shows (that a run repeats itself there, that a checkpoint is all it needs) is
therefore not shown by these runs; planted defects and certificates have a process for each.
"""

import os
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.case import Case
from harness.digest import canonical_json
from harness.errors import InputError
from harness.evidence import OUTCOME, TRACE
from harness.processes import end_with_parent
from harness.records import write_json
from harness.runners import Job, RunnerFactory, Setting, load_runner
from harness.runners.launcher import own_end, variables
from harness.runners.worker import carry_out
from harness.trace import Outcome, Status, read_trace

COMPILED_FOR = ("clip_grad", "gradient_accumulation_steps", "recompute", "graph_mode")
_trainers: dict[str, Any] = {}


class Pool:
    """Carries out jobs: the subject's in one process, those of reference and oracle in another."""

    def __init__(self, threads: int) -> None:
        spawn, told = get_context("spawn"), (variables(threads), os.getpid())
        self._subject, self._others = (
            ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=told) for _ in range(2)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for executor in (self._subject, self._others):
            executor.shutdown(cancel_futures=True)

    def execute(self, jobs: Sequence[Job]) -> None:
        """Carries out jobs and waits for all of them. What a runner raises is how its run ended.

        Raises:
            InputError: one of the processes was killed.
        """
        try:
            waiting = [
                (self._subject if job.side == "subject" else self._others).submit(_carry_out, job) for job in jobs
            ]
            for future in waiting:
                future.result()
        except BrokenProcessPool:
            raise InputError(
                "A process of the clean runs was killed, for want of memory perhaps. What was concluded stays: go on "
                "with --resume."
            ) from None


def _begin(environment: dict[str, str], parent: int) -> None:
    """The variables have to be there before the framework is, and it is imported with the first job."""
    os.environ.update(environment)
    end_with_parent(parent)


def _carry_out(job: Job) -> None:
    directory = Path(job.directory)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        factory = _reusing(job.runner) if job.side == "subject" else load_runner(job.runner)
        if not carry_out(job, factory, resume=False):
            carry_out(job, factory, resume=True)
        trace = read_trace(directory / TRACE)
        _record(directory, *own_end(trace), len(trace.steps), "")
    # In a process of its own a run would crash by any of them, and that is an outcome. Here the process goes on.
    except Exception as error:
        _trainers.clear()  # where it stands now is not known
        _record(directory, "crashed", f"raised {type(error).__name__}", 0, traceback.format_exc())


def _record(directory: Path, status: Status, detail: str, last_step: int, log: str) -> None:
    outcome = Outcome(status=status, last_step=last_step, detail=detail, log_tail=log)
    write_json(directory / OUTCOME, asdict(outcome))


def _reusing(entry: str) -> RunnerFactory:
    """A subject whose trainer is taken from the run before, where that was compiled for the same."""
    from harness.runners.mindspore_subject import MindSporeSubject, build_schedule

    subject: Any = load_runner(entry)
    assert issubclass(subject, MindSporeSubject), f"{entry} is no variant of the shipped subject"

    def build_trainer(self: Any, case: Case, setting: Setting) -> Any:
        key = canonical_json([entry, setting.threads, _compiled_for(case)])
        if key not in _trainers:
            _trainers.clear()  # what came before does not come again
            _trainers[key] = subject.build_trainer(self, case, setting)
        _trainers[key].restart(build_schedule(case, setting))
        return _trainers[key]

    return type(f"Reusing{subject.__name__}", (subject,), {"build_trainer": build_trainer})


def _compiled_for(case: Case) -> dict[str, Any]:
    record = case.record()
    training = {name: record["training"][name] for name in COMPILED_FOR}
    return {"training": training, **{name: record[name] for name in ("model", "precision", "optimizer")}}
