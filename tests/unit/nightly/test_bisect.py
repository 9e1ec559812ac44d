"""The first bad commit between two nights is found in a worktree, whatever the checkout holds; a kill loses no run.

The repository is a small one, each of whose revisions has a file that states how the cell ends there. In place of
`certify run` a script reads it from the worktree and leaves a bundle that was made before.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.records import read_json, write_json
from harness.nightly.matrix import load_matrix
from harness.nightly.night import run_night
from harness.runs.trace import TraceHeader
from tests.support.bundles import write_example
from tests.support.command_line import Call, Result, caller
from tests.support.examples import FAKES, ROOT, text_case

PYTHON = sys.executable
SIDES = dict.fromkeys(("subject", "reference", "oracle"), f"{FAKES}:Fake")
CELL = "text-tests.support.fake_runners-fake-cpu"
SCRIPT = """#!/bin/sh
# its words are: -m harness.cli run CASE --device DEVICE --out BUNDLE ...
tree=${PYTHONPATH%%:*}
state=$(cat "$tree/state" 2>/dev/null || echo good)
echo "$state" >> RUNS
case "$state" in
  good|bad) mkdir -p "$8" && cp -r "READY/$state/." "$8" ;;
  busy) printf 'text cannot run here:\n  devices: 8 devices; 0 idle. 1 must be idle: wait\n'; exit 2 ;;
  unpacked) printf 'text cannot run here:\n  package gone: not installed. Install it\n'; exit 2 ;;
  memory) echo 'MemoryError: no more'; exit 1 ;;
  broken) echo 'ImportError: half a change'; exit 1 ;;
  lacking) echo 'case.yaml: there is no field of that name'; exit 2 ;;
  killing)
    if [ -e KILL ]; then rm KILL; kill -9 $PPID; sleep 60; fi
    mkdir -p "$8" && cp -r "READY/bad/." "$8" ;;
esac
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def misaligned(header: TraceHeader) -> TraceHeader:
        changed = {**header.alignment, "model.rope_theta": 1e4}
        return dataclasses.replace(header, alignment=changed) if header.side == "subject" else header

    base = tmp_path_factory.mktemp("ready")
    write_example(base / "good")
    write_example(base / "bad", header=misaligned)
    return base


@dataclass(frozen=True)
class Place:
    """A matrix with two nights, good and bad, and what is needed to bisect between them."""

    path: Path
    certify: Call

    @property
    def repository(self) -> Path:
        return self.path / "repository"

    @property
    def runs(self) -> list[str]:
        """How each run ended, since it was cleared."""
        return (self.path / "runs").read_text().split()

    def git(self, *words: str) -> str:
        own = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *own, *words], cwd=self.repository, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def revisions(self, states: Sequence[str]) -> list[str]:
        """A repository with a revision for each state; the nights are of the first and of the last one."""
        self.repository.mkdir()
        self.git("init", "--quiet", "--initial-branch", "main")
        found = []
        for number, state in enumerate(states):
            (self.repository / "state").write_text(state)
            (self.repository / "number").write_text(str(number))
            self.git("add", "--all")
            self.git("commit", "--quiet", "-m", f"change {number}")
            found.append(self.git("rev-parse", "HEAD"))
        first, last = sorted((self.path / "nightly" / "nights").iterdir())
        for night, revision in ((first, found[0]), (last, found[-1])):
            write_json(night / "night.json", {**read_json(night / "night.json"), "revision": revision[:12]})
        (self.path / "runs").write_text("")
        return found

    def bisect(self, *words: object) -> Result:
        return self.certify("bisect", "matrix.yaml", *words, "--repository", self.repository, "--work", "work")


@pytest.fixture(scope="module")
def two_nights(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A matrix and its nights, the first good and the second bad, as `certify nightly` writes them."""
    base = tmp_path_factory.mktemp("nights")
    (base / "text.yaml").write_text(yaml.safe_dump(text_case(base).model_dump(mode="json")))
    cells = [{"case": "text.yaml", "level": "Untested", **SIDES}]
    (base / "matrix.yaml").write_text(yaml.safe_dump({"name": "fakes", "cells": cells}))
    for name, state in (("20260101-000000", "good"), ("20260102-000000", "bad")):
        (base / "state").write_text(state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT))
            patch.setattr(sys, "executable", write_script(base, ready))
            patch.setattr("harness.nightly.cell_process.own_code", lambda: {"PYTHONPATH": str(base)})
            night = run_night(load_matrix(base / "matrix.yaml"), base, base / "nightly", None, lambda cell: None)
        made = base / "nightly" / "nights" / night.name
        write_json(made / "night.json", {**read_json(made / "night.json"), "name": name})
        made.rename(made.with_name(name))
    return base


def write_script(base: Path, ready: Path) -> str:
    words = {"RUNS": base / "runs", "READY": ready, "KILL": base / "kill"}
    text = SCRIPT
    for word, path in words.items():
        text = text.replace(word, str(path))
    (base / "fake-python").write_text(text)
    (base / "fake-python").chmod(0o755)
    return str(base / "fake-python")


@pytest.fixture
def place(
    tmp_path: Path,
    ready: Path,
    two_nights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copytree(two_nights, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(sys, "executable", write_script(tmp_path, ready))
    return Place(tmp_path, caller(capsys, monkeypatch))


def found(result: Result, code: int) -> dict[str, Any]:
    assert result.code == code, result
    return dict(json.loads(result.out))


def test_the_first_bad_commit_is_named_and_the_checkout_is_as_it_was(place: Place) -> None:
    revisions = place.revisions(["good"] * 4 + ["bad"] * 3)
    (place.repository / "state").write_text("edited, and in no commit")
    place.git("bisect", "start")  # of the user
    before = place.git("status", "--porcelain"), place.git("rev-parse", "HEAD"), place.git("bisect", "log")
    result = found(place.bisect(CELL, "--json"), 0)
    assert result["commits"] == [revisions[4]] and result["cell"] == CELL
    assert {one["revision"]: one["verdict"] for one in result["tried"]} == {
        revisions[number]: "good" if number < 4 else "bad"
        for number in map(revisions.index, (one["revision"] for one in result["tried"]))
    }
    assert len(result["tried"]) == len(place.runs) <= 2 + 3
    after = place.git("status", "--porcelain"), place.git("rev-parse", "HEAD"), place.git("bisect", "log")
    assert after == before
    assert place.git("worktree", "list").count("\n") == 0 and not (place.path / "work" / "tree").exists()


def test_a_revision_that_cannot_run_is_skipped(place: Place) -> None:
    revisions = place.revisions(["good", "good", "lacking", "broken", "bad", "bad"])
    result = found(place.bisect("--json"), 1)
    assert set(result["commits"]) == set(revisions[2:5])
    skipped = {one["revision"]: one["detail"] for one in result["tried"] if one["verdict"] == "skip"}
    assert skipped.pop(revisions[2], "").endswith("there is no field of that name")
    assert skipped == {revisions[3]: "ImportError: half a change"}
    shown = place.bisect()
    assert shown.code == 1 and "The first bad commit is one of:" in shown.out
    assert all(f"change {number}" in shown.out for number in (2, 3, 4))


@pytest.mark.parametrize(("state", "said"), [("busy", "devices: 8 devices; 0 idle"), ("memory", "environment: memory")])
def test_a_machine_that_is_not_ready_is_no_verdict_on_a_revision(place: Place, state: str, said: str) -> None:
    place.revisions(["good", "good", state, "bad", "bad"])
    refused = place.bisect()
    assert refused.code == 2 and said in refused.said and "because of this machine" in refused.said
    kept = sorted(path.parent.name for path in (place.path / "work").rglob("result.json"))
    assert len(kept) == 2 and not (place.path / "work" / "tree").exists(), "of both ends, and of no other revision"


def test_a_revision_that_needs_another_package_is_skipped(place: Place) -> None:
    revisions = place.revisions(["good", "good", "unpacked", "bad", "bad"])
    result = found(place.bisect("--json"), 1)
    assert set(result["commits"]) == set(revisions[2:4])


def test_a_bisection_that_was_killed_runs_no_revision_twice(place: Place) -> None:
    revisions = place.revisions(["good", "good", "killing", "bad", "bad"])
    (place.path / "kill").touch()
    script = "import sys; sys.executable = sys.argv.pop(1); from harness.cli import main; main()"
    words = ["bisect", "matrix.yaml", "--repository", str(place.repository), "--work", "work"]
    command = [PYTHON, "-c", script, sys.executable, *words]
    killed = subprocess.run(command, cwd=place.path, capture_output=True, env={**os.environ}, check=False)
    assert killed.returncode == -9 and place.runs[-1] == "killing" and (place.path / "work" / "tree").exists()
    assert place.runs == ["bad", "good", "killing"]
    result = found(place.bisect("--json"), 0)
    assert result["commits"] == [revisions[2]]
    assert len(place.runs) == len(result["tried"]) + 1, "only the run that was killed is made again"


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["good", "good", "good"], "the code is not what changed"),
        (["bad", "bad", "bad"], "something else than the code changed"),
        (["lacking", "bad", "bad"], "it cannot run at"),
    ],
)
def test_where_an_end_is_not_as_in_its_night_no_commit_is_named(place: Place, states: list[str], said: str) -> None:
    place.revisions(states)
    result = found(place.bisect("--json"), 1)
    assert result["commits"] == [] and said in result["why"]
    assert len(place.runs) <= 2


def test_a_night_of_no_commit_needs_a_revision(place: Place) -> None:
    revisions = place.revisions(["good", "bad", "bad"])
    first = min((place.path / "nightly" / "nights").iterdir())
    dirty = {
        **read_json(first / "night.json"),
        "revision": f"{revisions[0][:12]}, with uncommitted changes (0123456789ab)",
    }
    write_json(first / "night.json", dirty)
    refused = place.bisect()
    assert refused.code == 2 and "--good REVISION" in refused.said
    assert found(place.bisect("--good", revisions[0], "--json"), 0)["commits"] == [revisions[1]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["another"], "has no cell 'another'"),
        (["--history", "elsewhere"], "holds no finished night"),
        (["--bad", "0123456"], "git log in"),
    ],
)
def test_what_cannot_be_bisected_is_bad_input(place: Place, words: list[str], said: str) -> None:
    place.revisions(["good", "bad"])
    refused = place.bisect(*words)
    assert refused.code == 2 and said in refused.said
    assert place.runs == []


def test_nights_that_do_not_fail_are_nothing_to_bisect(place: Place) -> None:
    place.revisions(["good", "bad"])
    last = max((place.path / "nightly" / "nights").iterdir())
    first = min((place.path / "nightly" / "nights").iterdir())
    write_json(last / "night.json", {**read_json(first / "night.json"), "name": last.name})
    refused = place.bisect(CELL)
    assert refused.code == 2 and "fails in no night" in refused.said
