"""Every command that makes runs lets another interpreter make those of a side."""

import sys
from pathlib import Path

import pytest

from harness.cases.case import load_case
from harness.certify.jobs import recorded_jobs
from harness.evidence.provenance import read_baseline
from tests.support.command_line import caller
from tests.support.examples import FAKES, ROOT, options, text_case_file

OTHERS = ("--reference", f"{FAKES}:Fake", "--oracle", f"{FAKES}:Fake")


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return text_case_file(tmp_path)


def interpreter(path: Path) -> Path:
    """An interpreter that notes what it was started with."""
    path.write_text(f'#!/bin/sh\necho "$@" >> {path}.calls\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def started(python: Path) -> int:
    """How many runs an interpreter made."""
    return python.with_name(f"{python.name}.calls").read_text().count("-m harness.runners.worker")


def test_a_diagnosis(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    subject, reference = interpreter(tmp_path / "subject-python"), interpreter(tmp_path / "reference-python")
    pythons = ("--subject-python", subject, "--reference-python", reference)
    call = caller(capsys, monkeypatch, "diagnose", *OTHERS, "--subject", f"{FAKES}:Fake")
    assert call(case, *pythons, "--out", tmp_path / "out").code == 0
    assert (started(subject), started(reference)) == (1, 2)


def test_a_recording_of_a_baseline(
    case: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reference, baselines = interpreter(tmp_path / "reference-python"), tmp_path / "baselines"
    call = caller(capsys, monkeypatch, "baseline", "record", *OTHERS, "--author", "A. Writer", "--reason", "first")
    done = call(case, "--reference-python", reference, "--baselines", baselines)
    assert done.code == 0, done
    made = read_baseline(baselines / load_case(str(case)).name)
    assert started(reference) == len(recorded_jobs(load_case(str(case)), options(tmp_path)))
    assert made.environment.sides is not None and made.environment.sides.keys() == {"reference"}
    broken = call(case, "--reference-python", tmp_path / "nowhere", "--baselines", baselines, "--replace")
    assert broken.code == 2 and "nowhere" in broken.err
