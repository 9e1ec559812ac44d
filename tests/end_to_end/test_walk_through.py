"""The walk-through in docs/ with both real frameworks: what its commands print, of a clone of what is committed.

Its case is the default one. `tests/unit/levels/test_walk_through.py` executes the same commands with small runners.
"""

import glob
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.examples import ROOT
from tests.support.full import full
from tests.support.walk_through import TRUST, commands, moved


def certify(*words: str, inside: Path, code: Path) -> "subprocess.CompletedProcess[str]":
    """`certify WORDS...` by the code of a checkout."""
    variables = {**os.environ, "PYTHONPATH": str(code), "COLUMNS": "200"}
    command = [sys.executable, "-m", "harness.cli", *words]
    return subprocess.run(command, cwd=inside, env=variables, capture_output=True, text=True, check=False)


@full(held_by="tests/unit/levels/test_walk_through.py::test_the_walk_through_is_as_it_is_written")
def test_real_runs_reach_the_levels_of_the_walk_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, inside = tmp_path / "code", tmp_path / "inside"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(code)], check=True)
    inside.mkdir()
    monkeypatch.chdir(inside)
    Path("trust.yaml").write_text(moved(TRUST), encoding="utf-8")
    shown = certify("cases", "--show", "qwen3-tiny-fp32", inside=inside, code=code)
    Path("my-case.yaml").write_text(re.sub(r"^name: .*", "name: my-case", shown.stdout, flags=re.MULTILINE))
    for command, expected in commands():
        words = [path for word in shlex.split(command) for path in (sorted(glob.glob(word)) if "*" in word else [word])]
        done = certify(*words[1:], inside=inside, code=code)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        for line in expected:
            assert line in done.stdout, (command, line, done.stdout)
