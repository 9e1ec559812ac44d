"""Clean runs by the hundred: two processes, one a framework, that import it once and carry out job after job.

A compiled training step serves every run of its shapes: the trainer goes back to before its first step and takes other
weights. So do the compiled graphs of a model that is asked. What only a fresh process shows (that a run repeats itself
there, that a checkpoint is all it needs) is therefore not shown by these runs; planted defects and certificates have a
process for each.
"""

import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.bundle_files import OUTCOME, TRACE
from harness.case import Case
from harness.digest import canonical_json
from harness.errors import InputError
from harness.processes import end_with_parent
from harness.records import write_json
from harness.roles import TRAINING
from harness.runners import AnswererFactory, Job, RunnerFactory, Setting, load_runner
from harness.runners.launcher import own_end, variables
from harness.runners.worker import carry_out
from harness.trace import Outcome, Status, read_trace

COMPILED_FOR = ("clip_grad", "gradient_accumulation_steps", "recompute", "graph_mode")
_built: dict[str, tuple[str, Any]] = {}  # what trains and what answers, each with what it was built for


class Pool:
    """Carries out jobs: the subject's in one process, those of reference and oracle in another. What either says is
    added to a log."""

    def __init__(self, threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        spawn, told = get_context("spawn"), (variables(threads), os.getpid(), log)
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
        """Carries out jobs and waits for all of them, those that ask weights after the one that trains them. What a
        runner raises is how its run ended.

        Raises:
            InputError: one of the processes was killed.
        """
        training = [job for job in jobs if job.run == TRAINING]
        try:
            for part in (training, [job for job in jobs if job not in training]):
                waiting = [
                    (self._subject if job.side == "subject" else self._others).submit(_carry_out, job) for job in part
                ]
                for future in waiting:
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
        factory = _factory(job)
        if not carry_out(job, factory, resume=False):
            carry_out(job, factory, resume=True)
        trace = read_trace(directory / TRACE)
        _record(directory, *own_end(trace), len(trace.lines), "")
    # In a process of its own a run would crash by any of them, and that is an outcome. Here the process goes on.
    except Exception as error:
        _built.clear()  # where it stands now is not known
        _record(directory, "crashed", f"raised {type(error).__name__}", 0, traceback.format_exc())


def _record(directory: Path, status: Status, detail: str, last_step: int, log: str) -> None:
    outcome = Outcome(status=status, last_step=last_step, detail=detail, log_tail=log)
    write_json(directory / OUTCOME, asdict(outcome))


def _factory(job: Job) -> Any:
    if job.side != "subject":
        return load_runner(job.runner)
    return _reusing_model(job.runner) if job.arm == "infer" else _reusing_trainer(job.runner)


def _kept(kind: str, asked: Any, build: Callable[[], Any]) -> Any:
    """What was built the last time, where that was for the same; what came before that does not come again."""
    key = canonical_json(asked)
    if _built.get(kind, ("", None))[0] != key:
        _built[kind] = key, build()
    return _built[kind][1]


def _reusing_trainer(entry: str) -> RunnerFactory:
    """A subject whose trainer is taken from the run before, where that was compiled for the same."""
    from harness.runners.mindspore_subject import MindSporeSubject, build_schedule

    subject: Any = load_runner(entry)
    assert issubclass(subject, MindSporeSubject), f"{entry} is no variant of the shipped subject"

    def build_trainer(self: Any, case: Case, setting: Setting) -> Any:
        asked = [entry, setting.threads, _compiled_for(case)]
        trainer = _kept("trainer", asked, lambda: subject.build_trainer(self, case, setting))
        trainer.restart(build_schedule(case, setting))
        return trainer

    return type(f"Reusing{subject.__name__}", (subject,), {"build_trainer": build_trainer})


def _reusing_model(entry: str) -> AnswererFactory:
    """A subject that is asked, whose model is taken from the run before, where that was compiled for the same."""
    from harness.runners.mindspore_inference import MindSporeInference

    subject: Any = load_runner(entry)
    assert issubclass(subject, MindSporeInference), f"{entry} is no variant of the shipped subject"

    def build_model(self: Any, case: Case) -> Any:
        record = case.record()
        return _kept("model", [entry, record["model"], record["precision"]], lambda: subject.build_model(self, case))

    return type(f"Reusing{subject.__name__}", (subject,), {"build_model": build_model})


def _compiled_for(case: Case) -> dict[str, Any]:
    record = case.record()
    training = {name: record["training"][name] for name in COMPILED_FOR}
    return {"training": training, **{name: record[name] for name in ("model", "precision", "optimizer")}}
