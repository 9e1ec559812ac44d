"""A certified run ends with commands that can be pasted, and each of them works as it is printed."""

import shlex
from pathlib import Path

import pytest

from tests.support.command_line import Call, caller
from tests.support.examples import ROOT
from tests.unit.cli.test_cli import run_command


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


def pasted(out: str) -> list[list[str]]:
    lines = [line for line in out.partition("\nNext:\n")[2].splitlines() if line.startswith("  certify ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_next_steps_of_a_run_sign_compare_and_publish(
    certify_: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    steps = pasted(certify_(*run_command(tmp_path, "--out", "runs/first")).out)
    assert [step[0] for step in steps] == ["keygen", "attest", "run", "diff", "site"]
    done = {step[0]: certify_(*step) for step in steps}
    assert {name: one.code for name, one in done.items()} == dict.fromkeys(done, 0)
    assert list((tmp_path / "runs/first/attestations").iterdir()) and (tmp_path / "site/index.html").is_file()
    # of the second run: the key and the run that are there are used
    again = pasted(done["run"].out)
    assert [step[0] for step in again] == ["attest", "diff", "site"]
    assert again[1] == ["diff", "runs/first", "runs/first-again"]
