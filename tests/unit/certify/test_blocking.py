"""Where two runs on Ascend differ, one more in blocking mode shows whether the order of operators is what differs."""

import dataclasses
from pathlib import Path

import pytest

from harness.cases.case import Case
from harness.certify.blocking import SUFFIX, blocking_repeat
from harness.certify.flow import prepare
from harness.certify.jobs import Options, job
from harness.runners.launcher import Launcher
from tests.support.examples import ROOT, options, text_case
from tests.support.fake_runners import FLAG


def two_runs(directory: Path, fake: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Case, Options]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(FLAG, str(directory / "happened"))
    asked = dataclasses.replace(options(directory / "out", subject=fake), device="Ascend")
    case, _ = prepare(text_case(directory), (), asked)
    Launcher(workers=1).execute([job(case, asked, name) for name in ("subject-1", "subject-2")], case)
    return case, asked


def test_a_repeat_in_blocking_mode_explains_two_runs_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, asked = two_runs(tmp_path, "DependsOnOrder", monkeypatch)
    explained = blocking_repeat(case, asked)
    assert explained is not None and "A repeat in blocking mode gives the bits of subject-1" in explained
    assert (tmp_path / f"out{SUFFIX}" / "trace.jsonl").is_file()
    assert sorted(path.name for path in (asked.out / "runs").iterdir()) == ["subject-1", "subject-2"], "no evidence"
    assert blocking_repeat(case, dataclasses.replace(asked, device="CPU")) is None


def test_runs_that_agree_need_no_explanation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, asked = two_runs(tmp_path, "Fake", monkeypatch)
    assert blocking_repeat(case, asked) is None
    assert not (tmp_path / f"out{SUFFIX}").exists()
