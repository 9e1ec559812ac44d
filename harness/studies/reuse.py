"""What was compiled for one run and serves the next of the same shapes: a training step, or the graphs of inference.

One of each is kept in a process, the last.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.base.digest import canonical_json
from harness.base.records import write_json
from harness.cases.case import Case
from harness.evidence.bundle import read_run
from harness.runners.job import Job
from harness.runners.protocol import AnswererFactory, RunnerFactory, Setting
from harness.runners.registry import load_runner
from harness.runners.running import own_end
from harness.runs.files import OUTCOME, TRACE
from harness.runs.trace import Run, RunOutcome, read_trace

COMPILED_FOR = ("clip_grad", "gradient_accumulation_steps", "recompute", "graph_mode")
_built: dict[str, tuple[str, Any]] = {}  # trainer and model, each with what it was built for


def forget() -> None:
    """Drops what was kept. Its state after a run that broke is not known."""
    _built.clear()


def recorded(job: Job, carry_out: Callable[[], None]) -> Run:
    """Carries out a job in a process that goes on afterwards, and writes how it ended into its directory."""
    directory = Path(job.directory)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        carry_out()
        trace = read_trace(directory / TRACE)
        status, detail = own_end(trace)
        outcome = RunOutcome(status=status, last_step=len(trace.lines), detail=detail)
    # In a process of its own a run would crash by any of them, and that is an outcome. Here the process goes on.
    except Exception as error:
        log = traceback.format_exc()
        outcome = RunOutcome(status="crashed", last_step=0, detail=f"raised {type(error).__name__}", log_tail=log)
    write_json(directory / OUTCOME, outcome)
    return read_run(directory)


def factory_of(job: Job) -> Any:
    """The runner of a job; it reuses what the run before has built, if that fits."""
    if job.side != "subject":
        return load_runner(job.runner)
    return _reusing_model(job.runner) if job.arm == "infer" else _reusing_trainer(job.runner)


def _kept(kind: str, built_for: Any, build: Callable[[], Any]) -> Any:
    """What was built last, if it fits, or else a new one; only the last is kept."""
    key = canonical_json(built_for)
    if _built.get(kind, ("", None))[0] != key:
        _built[kind] = key, build()
    return _built[kind][1]


def _reusing_trainer(entry: str) -> RunnerFactory:
    """A subject that reuses the trainer of the run before, if that was compiled for the same."""
    from harness.runners.mindspore_subject import MindSporeSubject, build_schedule

    subject: Any = load_runner(entry)
    assert issubclass(subject, MindSporeSubject), f"{entry} is no variant of the shipped subject"

    def build_trainer(self: Any, case: Case, setting: Setting) -> Any:
        built_for = [entry, setting.threads, _compiled_for(case)]
        trainer = _kept("trainer", built_for, lambda: subject.build_trainer(case, setting))
        trainer.restart(build_schedule(case, setting))
        return trainer

    return type(f"Reusing{subject.__name__}", (subject,), {"build_trainer": build_trainer})


def _reusing_model(entry: str) -> AnswererFactory:
    """A subject of inference that reuses the model of the run before, if that was compiled for the same."""
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
    sections = {name: record.get(name) for name in ("model", "precision", "optimizer", "parallel")}
    documents = None if case.data.documents is None else vars(case.data.documents)
    return {"training": training, "documents": documents, **sections}
