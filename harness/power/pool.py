"""Clean runs by the hundred: two processes, one a framework, that import it once and carry out job after job.

A compiled training step serves every run of its shapes: the trainer goes back to before its first step and takes other
weights. What only a fresh process shows (that a run repeats itself there, that a checkpoint is all it needs) is
therefore not shown by these runs; planted defects and certificates have a process for each.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.case import Case
from harness.digest import canonical_json
from harness.evidence import OUTCOME, TRACE
from harness.records import write_json
from harness.runners import Job, RunnerFactory, Setting, load_runner
from harness.runners.launcher import own_end, variables
from harness.runners.worker import carry_out, end_with_parent
from harness.trace import read_trace

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
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for executor in (self._subject, self._others):
            executor.shutdown(cancel_futures=True)

    def execute(self, jobs: Sequence[Job]) -> None:
        """Carries out jobs and waits for all of them.

        Raises:
            Exception: whatever a runner raised.
        """
        waiting: list[Future[None]] = [
            (self._subject if job.side == "subject" else self._others).submit(_carry_out, job) for job in jobs
        ]
        for future in waiting:
            future.result()


def _begin(environment: dict[str, str], parent: int) -> None:
    """The variables have to be there before the framework is, and it is imported with the first job."""
    os.environ.update(environment)
    end_with_parent(parent)


def _carry_out(job: Job) -> None:
    directory = Path(job.directory)
    directory.mkdir(parents=True, exist_ok=True)
    factory = _reusing(job.runner) if job.side == "subject" else load_runner(job.runner)
    if not carry_out(job, factory, resume=False):
        carry_out(job, factory, resume=True)
    trace = read_trace(directory / TRACE)
    status, detail = own_end(trace)
    ended = {"status": status, "last_step": len(trace.steps), "detail": detail, "log_tail": "", "resumed_after": ()}
    write_json(directory / OUTCOME, ended)


def _reusing(entry: str) -> RunnerFactory:
    """A subject whose trainer is taken from the run before, where that was compiled for the same."""
    from harness.runners.mindspore_subject import MindSporeSubject, build_schedule

    subject: Any = load_runner(entry)
    assert issubclass(subject, MindSporeSubject), f"{entry} is no variant of the shipped subject"

    class Reusing(subject):  # type: ignore[misc]
        def build_trainer(self, case: Case, setting: Setting) -> Any:
            key = canonical_json([entry, setting.threads, _compiled_for(case)])
            if key not in _trainers:
                _trainers.clear()  # what came before does not come again
                _trainers[key] = super().build_trainer(case, setting)
            _trainers[key].restart(build_schedule(case, setting))
            return _trainers[key]

    return Reusing


def _compiled_for(case: Case) -> dict[str, Any]:
    record = case.record()
    training = {name: record["training"][name] for name in COMPILED_FOR}
    return {"training": training, **{name: record[name] for name in ("model", "precision", "optimizer")}}
