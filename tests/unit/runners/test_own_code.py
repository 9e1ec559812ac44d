"""The process of a run imports this program's code, wherever it is started and whatever lies there."""

import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.code import ROOT, imported
from harness.base.errors import EvidenceError
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.evidence.bundle import read_bundle
from harness.evidence.provenance import read_environment
from harness.runners.environment_of_a_run import environment_of
from harness.runners.launcher import Launcher
from harness.runners.processes import own_code
from harness.runs.trace import TraceHeader
from tests.support.bundles import write_example
from tests.support.examples import options, text_case

OTHER = "raise SystemExit('other code')\n"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with packages of the same names, which stop whatever imports them."""
    for name in ("harness", "qwen3_model", "numpy", "json"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "__init__.py").write_text(OTHER)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.mark.parametrize("first", [False, True], ids=["in-the-directory", "on-the-path"])
def test_packages_of_the_same_names_are_not_imported(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    named = elsewhere.parent / "named"
    (named / "harness").mkdir(parents=True)
    (named / "harness" / "__init__.py").write_text(OTHER)
    monkeypatch.setenv("PYTHONPATH", str(named) if first else str(ROOT))
    script = "import harness, qwen3_model, json; print(harness.__file__, qwen3_model.__file__)"
    variables = {**os.environ, **own_code()}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("harness", "qwen3_model")]


def test_a_run_that_is_started_beside_other_code_states_the_code_of_this_program(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    chosen = options(tmp_path / "out", subject="Fake")
    case, _ = prepare(text_case(tmp_path), (), chosen)
    (run,) = Launcher(workers=1).execute([job(case, chosen, "subject-1")], case)
    assert run.outcome.status == "completed" and run.trace is not None, run.outcome
    assert run.trace.header.provenance["code"] == imported()


def test_another_interpreter_gets_this_code_and_nothing_that_lies_next_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    variables = {**os.environ, **environment_of("harness.runners.nowhere:Runner", sys.executable)}
    script = "import harness.base.code as code, importlib.util as u; print(code.imported(), u.find_spec('tests'))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == [imported(), "None"]
    assert sorted(os.listdir(variables["PYTHONPATH"])) == ["harness", "qwen3_model"]


def test_a_run_in_another_interpreter_is_recorded_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "calls"}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    chosen = options(tmp_path / "out", subject="Fake", subject_python=python)
    case, _ = prepare(text_case(tmp_path), (), chosen)
    (run,) = Launcher(workers=1).execute([job(case, chosen, "subject-1")], case)
    assert run.outcome.status == "completed" and run.trace is not None, run.outcome
    assert run.trace.header.provenance["code"] == imported()
    assert "harness.runners.worker" in (tmp_path / "calls").read_text()
    sides = read_environment(tmp_path / "out" / "environment.json").sides
    assert sides is not None and list(sides) == ["subject"]
    assert sides["subject"]["python"] == platform.python_version()


def test_a_run_by_other_code_than_is_recorded_is_no_evidence(tmp_path: Path) -> None:
    def other(header: TraceHeader) -> TraceHeader:
        return dataclasses.replace(header, provenance={**header.provenance, "code": "f" * 64})

    with pytest.raises(EvidenceError, match=r"carried out by code of this program of the digest ffffffffffff"):
        read_bundle(write_example(tmp_path / "bundle", header=other).path)
