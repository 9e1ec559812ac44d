"""The files that are judged are those that were written: what a subject, or anything else, did to them is refused.

Runs are made once, by forked fakes. Each test has them again, and disturbs the directory at one moment.
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import EvidenceError, InputError
from harness.cases.case import Case
from harness.certify import case_options, flow
from harness.evidence.kept import Disturbed
from harness.runners.executor import Listener, no_listener
from harness.runners.job import Job
from harness.runners.protection import Guard
from harness.runs.trace import Run
from tests.support.bundles import edit_json
from tests.support.examples import options, text_case
from tests.support.forked_runs import forked
from tests.support.full import full

Disturb = Callable[[Path], object]
FIRST_OF_OTHERS = "reference-1"


def judged(case: Case, out: Path, subject: str = "Fake", *, resume: bool = False) -> flow.Bundle:
    standards = case_options.load_standards(case.standards, case)
    return flow.run(case, standards, options(out, subject=subject, resume=resume), no_listener)[0]


class Made:
    """An executor that puts finished runs into place, and disturbs them after those of the subject, or at the end."""

    def __init__(self, source: Path, disturb: Disturb, last: bool) -> None:
        self.source, self.disturb, self.last = source, disturb, last

    def __call__(self, *, workers: int, guard: Guard) -> "Made":
        self.ended = guard.ended
        return self

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        out = Path(jobs[0].directory).parents[1]
        for job in sorted(jobs, key=lambda job: job.side != "subject"):
            if job.run == FIRST_OF_OTHERS and not self.last:
                self.disturb(out)
            shutil.copytree(self.source / "runs" / job.run, job.directory)
            if job.keep_tensors:
                Path(job.keep_tensors).parent.mkdir(exist_ok=True)
                shutil.copy(self.source / "tensors" / f"{job.run}.safetensors", job.keep_tensors)
            self.ended(job)
        if self.last:
            self.disturb(out)
        return []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Path]]:
    base = tmp_path_factory.mktemp("made")
    case = text_case(base, floor_repeats=1)
    with forked():
        assert judged(case, base / "out").digest
    yield case, base / "out"


def disturbed(
    made: tuple[Case, Path], out: Path, disturb: Disturb, patch: pytest.MonkeyPatch, *, last: bool = True
) -> str:
    """What the judge says about runs that were disturbed."""
    patch.setattr(flow, "Launcher", Made(made[1], disturb, last))
    with pytest.raises(Disturbed) as refused:
        judged(made[0], out)
    assert not (out / "manifest.json").exists() and not (out / "report.html").exists()
    return str(refused.value)


def appended(name: str) -> Disturb:
    def disturb(out: Path) -> None:
        with (out / name).open("ab") as file:
            file.write(b" ")

    return disturb


def edited(name: str, change: Callable[[Any], object]) -> Disturb:
    """In the form in which it was written, so that only the content is another one."""
    return lambda out: edit_json(out / name, change)


def replaced(name: str, by: str) -> Disturb:
    return lambda out: shutil.copy(out / by, out / name)


def limits_raised(standard: Any) -> None:
    standard["criteria"][0]["limits"][0].update(value=9)


# name: what is done to the directory, and the file that is named
WAYS: dict[str, tuple[Disturb, str]] = {
    "the case requires less": (edited("case.json", lambda c: c.update(standards=[])), "changed: case.json"),
    "limits are raised": (edited("standards/official.json", limits_raised), "changed: standards/official.json"),
    "a standard more": (replaced("standards/more.json", "standards/official.json"), "added: standards/more.json"),
    "a standard is gone": (lambda out: (out / "standards/official.json").unlink(), "missing: standards/official.json"),
    "a dirty tree is clean": (
        edited("source.json", lambda s: s.update(dirty=not s["dirty"], revision="1" * 40)), "changed: source.json"),
    "a CPU is an NPU": (edited("environment.json", lambda e: e.update(device="Ascend")), "changed: environment.json"),
    "another nonce": (edited("start.json", lambda s: s.update(nonce="2" * 64)), "changed: start.json"),
    "a start without its file": (lambda out: (out / "start.json").unlink(), "missing: start.json"),
    "other digests of the inputs": (edited("inputs.json", lambda i: i.update(epochs=7)), "changed: inputs.json"),
    "other weights": (appended("inputs/weights.safetensors"), "changed: inputs/weights.safetensors"),
    "other batches": (appended("inputs/batches.safetensors"), "changed: inputs/batches.safetensors"),
    "a baseline that was never used": (replaced("baseline.json", "start.json"), "added: baseline.json"),
    "the reference's trace is the subject's": (
        replaced("runs/reference-1/trace.jsonl", "runs/subject-1/trace.jsonl"),
        "changed: runs/reference-1/trace.jsonl"),
    "the reference's probe is another one": (
        replaced("tensors/reference-probe.safetensors", "tensors/subject-1.safetensors"),
        "changed: tensors/reference-probe.safetensors"),
    "the oracle's probe is another one": (
        replaced("tensors/oracle-probe.safetensors", "tensors/subject-1.safetensors"),
        "changed: tensors/oracle-probe.safetensors"),
    "the oracle's trace is gone": (
        lambda out: (out / "runs/oracle-1/trace.jsonl").unlink(), "missing: runs/oracle-1/trace.jsonl"),
    "a wider floor": (appended("runs/floor-1/trace.jsonl"), "changed: runs/floor-1/trace.jsonl"),
    "one perturbed repeat more": (
        lambda out: shutil.copytree(out / "runs/floor-1", out / "runs/floor-2"), "added: runs/floor-2/log.txt"),
    "a crash that completed": (
        edited("runs/reference-2/outcome.json", lambda o: o.update(last_step=7)),
        "changed: runs/reference-2/outcome.json"),
    "a protection that there was not": (
        edited("runs/subject-1/outcome.json", lambda o: o.update(protection="namespaces")),
        "changed: runs/subject-1/outcome.json"),
    "times of another run": (appended("runs/subject-1/timing.jsonl"), "changed: runs/subject-1/timing.jsonl"),
    "a log that is silent": (
        lambda out: (out / "runs/subject-1/log.txt").write_text("-"), "changed: runs/subject-1/log.txt"),
    "a statement that no one signed": (
        lambda out: ((out / "notes").mkdir(), (out / "notes/x.json").write_text("{}")), "added: notes/x.json"),
    "a tensor of a run that keeps none": (
        replaced("tensors/subject-lr0.safetensors", "tensors/subject-1.safetensors"),
        "added: tensors/subject-lr0.safetensors"),
}  # fmt: skip
BEFORE_THE_OTHERS = [name for name, (_, named) in WAYS.items() if "runs/" not in named and "tensors/" not in named]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_differs_at_the_end_is_named(
    made: tuple[Case, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    disturb, named = WAYS[way]
    assert named in disturbed(made, tmp_path / "out", disturb, monkeypatch)


@pytest.mark.parametrize("way", BEFORE_THE_OTHERS)
def test_it_is_named_too_if_a_subject_changed_it_before_the_other_sides_ran(
    made: tuple[Case, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    disturb, named = WAYS[way]
    assert named in disturbed(made, tmp_path / "out", disturb, monkeypatch, last=False)


def test_runs_that_were_not_disturbed_are_judged(
    made: tuple[Case, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "Launcher", Made(made[1], lambda out: None, last=True))
    assert judged(made[0], tmp_path / "out").findings


def test_what_was_disturbed_is_never_resumed(
    made: tuple[Case, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        disturbed(made, tmp_path / "out", WAYS["the oracle's probe is another one"][0], patch)
    with pytest.raises(InputError, match="holds no run that can be resumed"):
        judged(made[0], tmp_path / "out", resume=True)


@full(held_by="tests/unit/certify/test_what_is_judged.py::test_a_file_that_differs_at_the_end_is_named")
def test_a_subject_that_rewrites_the_case_while_it_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = text_case(tmp_path)
    standards = case_options.load_standards(case.standards, case)
    chosen = options(tmp_path / "out", protection="order")
    hostile = "tests.support.hostile_runners:RewritesCase"
    with pytest.raises(EvidenceError, match=r"changed: case\.json"):
        flow.run(case, standards, dataclasses.replace(chosen, subject=hostile), no_listener)
