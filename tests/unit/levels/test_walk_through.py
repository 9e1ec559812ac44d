"""The walk-through in docs/: every command of it is executed, and prints the quoted lines.

The runs are made by NumPy runners instead of the shipped ones, and its days are moved to today.
"""

import glob
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cases.task import PRETRAIN
from harness.certify import environment
from harness.evidence.provenance import Source
from tests.support.command_line import caller
from tests.support.examples import FAKES, ROOT, TEXT, small_case
from tests.support.walk_through import TRUST, commands, moved

pytestmark = pytest.mark.usefixtures("forked_runs")
# In place of the shipped ones. No two sides ever have the same bits.
RUNNERS = {"subject": f"{FAKES}:TwoRoundingsAside", "reference": f"{FAKES}:Fake", "oracle": f"{FAKES}:OneRoundingAside"}
CHOSEN = [word for side, runner in RUNNERS.items() for word in (f"--{side}", runner)]


def test_the_walk_through_is_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    committed = Source(revision="a" * 40, dirty=False, sha256=environment.source().sha256)
    monkeypatch.setattr(environment, "source", lambda *runners: committed)
    for side, runner in RUNNERS.items():
        monkeypatch.setitem(vars(PRETRAIN), side, runner)
    Path("trust.yaml").write_text(moved(TRUST), encoding="utf-8")
    Path("corpus.txt").write_text(TEXT, encoding="utf-8")
    # a checkpoint half way: one at every third step would be most of the time
    case = small_case(steps=1000, lr_zero_steps=20, examined_steps=(2, 1000), resume_after=500, checkpoint_every=500)
    data: dict[str, Any] = {**case.data.model_dump(), "corpus": {"kind": "text", "path": "corpus.txt"}}
    Path("my-case.yaml").write_text(yaml.safe_dump(case.with_changes(data=data).model_dump(mode="json")))
    certify_ = caller(capsys, monkeypatch)
    for command, expected in commands():
        words = [path for word in shlex.split(command) for path in (sorted(glob.glob(word)) if "*" in word else [word])]
        program, *arguments = words
        assert program == "certify"
        result = certify_(*arguments, *(CHOSEN if arguments[0] == "run" else []))
        assert result.code == 0, (command, result.err)
        for line in expected:
            assert line in result.out, (command, line, result.out)


def test_the_walk_through_goes_through_all_levels() -> None:
    shown = [line.split(":")[0] for _, lines in commands() for line in lines if "training on CPU" in line]
    assert shown == ["Preliminary", "Validated", "Released", "Untested", "Preliminary"]
