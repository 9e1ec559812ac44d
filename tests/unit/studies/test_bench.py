"""A subject in a study is judged by its first runs, and by all of them where those do not reject it."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cases.case import Case
from harness.cases.runs_of_a_case import SUBJECT_REPEAT, SUBJECT_RESUMED
from harness.certify.jobs import Options
from harness.evidence.bundle import Bundle, read_run
from harness.power.record import sightings
from harness.runners.executor import Listener, no_listener
from harness.runners.job import Job
from harness.runs.trace import Run
from harness.studies.bench import Bench, JudgedSubject, judge_subject
from tests.support.bundles import Change, write_example

AGAIN = [SUBJECT_REPEAT, SUBJECT_RESUMED]


def off(run: str, step: Any) -> Any:
    """The loss of the subject is a tenth too large in every step."""
    return dataclasses.replace(step, loss=1.1 * step.loss) if run.startswith("subject") else step


class Copied:
    """Makes a run by copying it from a bundle, and remembers the runs of each call."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.calls: list[list[str]] = []

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        self.calls.append([job.run for job in jobs])
        for job in jobs:
            shutil.copytree(self.source / "runs" / job.run, Path(job.directory))
            for tensors in (self.source / "tensors").glob(f"{job.run}.*"):
                shutil.copy(tensors, Path(job.directory).parents[1] / "tensors")
        return [read_run(Path(job.directory)) for job in jobs]


def judged(directory: Path, bundle: Bundle, *, every_run: bool) -> tuple[JudgedSubject, list[list[str]]]:
    plain = directory / "plain"
    shutil.copytree(bundle.path, plain)
    for left in (*plain.glob("runs/subject-*"), *plain.glob("tensors/subject-*")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    bench = Bench(
        case=bundle.case, inputs=bundle.inputs, standards=bundle.standards, options=Options(out=directory, command=()),
        plain=plain, tapped=None,
    )  # fmt: skip
    executor = Copied(bundle.path)
    subject = bundle.case.task.subject
    return judge_subject(bench, subject, directory / "judged", executor, every_run=every_run), executor.calls


@pytest.mark.parametrize(
    ("change", "rejected_by_the_first"),
    [(off, True), (None, False)],
)
def test_what_its_first_runs_reject_is_neither_repeated_nor_resumed(
    tmp_path: Path, change: Change | None, rejected_by_the_first: bool
) -> None:
    bundle = write_example(tmp_path / "bundle", **({} if change is None else {"change": change}))
    whole, (at_once,) = judged(tmp_path / "whole", bundle, every_run=True)
    assert whole.unmade == () and set(AGAIN) < set(at_once)
    staged, calls = judged(tmp_path / "staged", bundle, every_run=False)
    assert [name for name in at_once if name not in AGAIN] == calls[0]
    assert calls[1:] == ([] if rejected_by_the_first else [AGAIN])
    assert staged.unmade == (tuple(AGAIN) if rejected_by_the_first else ())
    assert bool(sightings(staged.findings)) == bool(sightings(whole.findings)) == rejected_by_the_first
    early, all_of_them = ({s.criterion for s in sightings(one.findings)} for one in (staged, whole))
    assert early <= all_of_them, "a run that was not made is no detection"
