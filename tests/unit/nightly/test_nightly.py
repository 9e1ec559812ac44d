"""A nightly runs its whole matrix in any event, and reports the result of each cell.

A cell is a command. In most tests a fake one stands in for it, which leaves a bundle that was made before. Real
commands run where the law is about processes: a time limit, a kill, two nights at a time, the same bits the next night.
"""

import dataclasses
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import InputError
from harness.cases.task import PRETRAIN
from harness.certify import environment
from harness.levels.certificate import Level
from harness.nightly import CellChange, compared
from harness.nightly.history import nights
from harness.nightly.matrix import load_matrix
from harness.runners.registry import needs_of
from harness.runs.trace import Scored, TraceHeader
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, inference_case, small_case, text_case
from tests.support.processes import processes_of, until

TEXT, ON_ASCEND = (f"text-tests.support.fake_runners-fake-{device}" for device in ("cpu", "ascend"))
PYTHON = sys.executable
SIDES = dict.fromkeys(("subject", "reference", "oracle"), f"{FAKES}:Fake")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(text_case(tmp_path).model_dump(mode="json")))
    return tmp_path


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles that a cell may leave, by how it went."""

    def misaligned(header: TraceHeader) -> TraceHeader:
        changed = {**header.alignment, "model.rope_theta": 1e4}
        return dataclasses.replace(header, alignment=changed) if header.side == "subject" else header

    base = tmp_path_factory.mktemp("ready")
    made = {"good": write_example(base / "good"), "bad": write_example(base / "bad", header=misaligned)}
    return {name: bundle.path for name, bundle in made.items()}


@pytest.fixture
def leaves(place: Path, ready: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has every cell run a script in place of `certify run`: it leaves one of the bundles, after other commands."""
    script = place / "fake-python"
    monkeypatch.setattr(sys, "executable", str(script))

    def leave(how: str = "good", before: str = "") -> None:
        # its words are: -m harness.cli run CASE --device DEVICE --out BUNDLE ...
        script.write_text(f'#!/bin/sh\n{before}\nmkdir -p "$8" && cp -r {ready[how]}/. "$8"\n')
        script.chmod(0o755)

    leave()
    return leave


def matrix(place: Path, *cells: dict[str, Any], **asked: Any) -> Path:
    every = [{"case": "text.yaml", "level": "Untested", **SIDES, **cell} for cell in cells or ({},)]
    path = place / "matrix.yaml"
    path.write_text(yaml.safe_dump({"name": "fakes", **asked, "cells": every}))
    return path


def cells_of(certify_: Call, path: Path, code: int) -> dict[str, Any]:
    result = certify_("nightly", path, "--history", path.parent / "nightly", "--json")
    assert result.code == code, result
    return json.loads(result.out)


def test_a_second_night_of_the_same_code_is_the_same(certify_: Call, place: Path) -> None:
    path = matrix(place)
    first = cells_of(certify_, path, 0)
    assert first["cells"][TEXT]["change"] == "new" and Path(first["summary"]).is_file()
    second = cells_of(certify_, path, 0)
    assert second["cells"][TEXT] == {"state": "judged", "level": "Preliminary", "change": "same"}
    site = json.loads((place / "nightly" / "site" / "index.json").read_text())
    assert len(site["cells"]) == 1 and len(site["cells"][0]["history"]) == 2


def test_a_regression_is_found_and_its_repair_too(certify_: Call, place: Path, leaves: Callable[..., None]) -> None:
    found = []
    for how in ("good", "bad", "good"):
        leaves(how)
        found.append(certify_("nightly", matrix(place), "--history", place / "nightly", "--json"))
    changes = [json.loads(one.out)["cells"][TEXT]["change"] for one in found]
    assert changes == ["new", "regression", "fixed"] and [one.code for one in found] == [0, 1, 0]
    _, night = nights(place / "nightly")[-2]
    summary = (place / "nightly" / "nights" / night.name / "summary.md").read_text()
    assert "1 of 1 cells fail" in summary and f"**{TEXT}**" in summary.replace("\\_", "_")
    assert night.cells[0].failing and night.cells[0].against is not None


@pytest.mark.usefixtures("leaves")
def test_a_cell_without_its_device_is_not_run_with_the_reason(
    certify_: Call, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    result = cells_of(certify_, matrix(place, {"device": "Ascend"}, {}), 1)
    assert result["cells"][ON_ASCEND] == {"state": "not run", "level": None, "change": "not run"}
    assert result["cells"][TEXT]["state"] == "judged" and result["failing"] == [ON_ASCEND]
    text = Path(result["summary"]).read_text()
    assert "**Ascend is not ready here**; none of its cells was run:" in text
    assert "- devices: npu-smi is not installed. Is this the right host?" in text
    lenient = matrix(place, {"device": "Ascend"}, {}, fail_on=["regression", "below", "broken"])
    assert cells_of(certify_, lenient, 0)["failing"] == []
    told = certify_("nightly", lenient, "--history", place / "nightly")
    assert f"{ON_ASCEND}: not run (0.0 min): devices: npu-smi is not installed" in told.err


@pytest.mark.usefixtures("leaves")
def test_a_cell_whose_baseline_was_never_recorded_is_not_run_with_the_command_that_records_it(
    certify_: Call, place: Path
) -> None:
    absent = {"case": "qwen3-tiny-fp32", "baseline": "recorded"}
    laid_out = {"baseline": "recorded", "layout": {"data_parallel": 2}}
    result = cells_of(certify_, matrix(place, absent, laid_out, {}), 0)
    assert result["failing"] == [], "a first night without baselines is not red"
    lacking = {name: one for name, one in result["cells"].items() if name != TEXT}
    assert len(lacking) == 2 and all(one["state"] == "not run" for one in lacking.values())
    assert result["cells"][TEXT]["state"] == "judged"
    _, night = nights(place / "nightly")[-1]
    for cell in night.cells[:2]:
        _, _, line = cell.reason.partition("record it: ")
        words = shlex.split(line)
        assert words[:3] == ["certify", "baseline", "record"] and str(place / "recorded") in words
        assert words[words.index("--oracle") + 1] == SIDES["oracle"] and "--subject" not in words
        assert words[3] == "qwen3-tiny-fp32" or Path(words[3]).is_file()


def test_a_cell_of_other_versions_is_not_run_where_nothing_can_make_them(
    certify_: Call, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place))
    cells_of(certify_, matrix(place, {"versions": {"mindspore": "2.7.2"}}), 1)
    _, night = nights(place / "nightly")[-1]
    (found,) = night.cells
    assert found.state == "not run" and "pip install uv; or make them yourself" in found.reason
    assert "mindspore-2.7.2" in found.cell


def test_a_cell_that_takes_too_long_is_ended_and_the_next_one_runs(
    certify_: Call, place: Path, leaves: Callable[..., None]
) -> None:
    leaves(before=f'case "$*" in *:Slow*) exec {PYTHON} "$@";; esac')
    slow = {"subject": f"{FAKES}:Slow", "limit": "4s"}
    result = cells_of(certify_, matrix(place, slow, {}), 1)
    broken = next(one for name, one in result["cells"].items() if "slow" in name)
    assert broken == {"state": "broken", "level": None, "change": "not run"}
    assert result["cells"][TEXT]["state"] == "judged"
    assert processes_of(place / "nightly") == []


def start(place: Path, path: Path) -> "subprocess.Popen[str]":
    command = [PYTHON, "-m", "harness.cli", "nightly", str(path), "--history", str(place / "nightly")]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def one_concluded(place: Path) -> Callable[[], bool]:
    return lambda: bool((found := nights(place / "nightly")) and len(found[-1][1].cells) == 1)


@pytest.mark.usefixtures("leaves")
def test_a_night_that_was_killed_goes_on_where_it_was(certify_: Call, place: Path) -> None:
    """Its first part is real; the cell that is left is a fake."""
    path = matrix(place, {}, {"reference": f"{FAKES}:Fake", "layout": {}, "subject": f"{FAKES}:Slow"})
    with start(place, path) as process:
        until(one_concluded(place), "the first cell is concluded")
        process.send_signal(signal.SIGKILL)
    until(lambda: not processes_of(place / "nightly"), "nothing of it is left")
    (_, killed) = nights(place / "nightly")[-1]
    assert killed.ended is None
    result = cells_of(certify_, path, 0)
    assert result["night"] == killed.name and len(result["cells"]) == 2
    (_, ended) = nights(place / "nightly")[-1]
    assert ended.cells[0] == killed.cells[0], "what was concluded is not run again"


def test_a_night_goes_on_with_no_other_code_than_it_was_begun_with(
    certify_: Call, place: Path, leaves: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = matrix(place, {}, {"subject": f"{FAKES}:Slow"})
    leaves(before="if [ -e begun ]; then kill -INT $PPID; exec sleep 60; fi; touch begun")
    interrupted = certify_("nightly", path, "--history", place / "nightly")
    assert interrupted.code == 130, interrupted
    (_, killed) = nights(place / "nightly")[-1]
    assert killed.ended is None and len(killed.cells) == 1
    leaves()
    edited = dataclasses.replace(environment.source(), dirty=True, sha256="e" * 64)
    monkeypatch.setattr("harness.certify.environment.source", lambda: edited)
    result = cells_of(certify_, path, 0)
    assert result["night"] != killed.name and len(result["cells"]) == 2
    summary = (place / "nightly" / "nights" / result["night"] / "summary.md").read_text()
    assert "eeeeeeeeeeee" in summary and (edited.state in summary)


@pytest.mark.parametrize("workflow", [".ci/nightly-ascend.sh", ".ci/run"])
def test_the_environment_that_a_workflow_makes_is_no_file_of_the_checkout(workflow: str) -> None:
    (name,) = re.findall(r"-m venv (?:--\S+ )*(\S+)", (ROOT / workflow).read_text(encoding="utf-8"))
    assert name in (".venv", ".ci/venv") and not (ROOT / name).is_file()


def test_two_nights_at_a_time_are_refused(certify_: Call, place: Path) -> None:
    path = matrix(place, {"subject": f"{FAKES}:HangsAtStart"})
    with start(place, path) as process:
        until(lambda: bool(nights(place / "nightly")), "the night has begun")
        second = certify_("nightly", path, "--history", place / "nightly")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert second.code == 2 and "nightly (process" in second.err
    assert process.returncode == 130 and "finished cells are kept" in said


def test_the_page_of_a_job_gets_the_summary(certify_: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = place / "step.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    result = cells_of(certify_, matrix(place, {"device": "Ascend"}), 1)
    assert page.read_text() == "before\n" + Path(result["summary"]).read_text() and result["site"] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "x", "cells": []}, "cells"),
        ({"name": "x", "cells": [{"case": "a"}, {"case": "a"}]}, "the cell a-cpu is given twice"),
        ({"name": "x", "cells": [{"case": "a", "device": "GPU"}]}, "'CPU' or 'Ascend'"),
        ({"name": "x", "cells": [{"case": "a", "limit": "soon"}]}, "write a time as 45s, 30m or 2h"),
        ({"name": "x", "cells": [{"case": "a", "cases": 1}]}, "cells.0.cases: unknown key"),
        (
            {"name": "x", "cells": [{"case": "a", "versions": {"torch": "2.6.0"}, "subject_python": "p"}]},
            "give versions, or interpreters",
        ),
        ([], "expected a mapping"),
    ],
)
def test_a_matrix_that_cannot_be_meant_is_refused(place: Path, content: object, said: str) -> None:
    path = place / "matrix.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=said):
        load_matrix(path)


def test_a_case_that_is_not_there_is_refused_before_any_cell_runs(certify_: Call, place: Path) -> None:
    path = matrix(place, {}, {"case": "no-such-case"})
    result = certify_("nightly", path, "--history", place / "nightly")
    assert result.code == 2 and "no-such-case" in result.err and not (place / "nightly" / "nights").exists()


def git(place: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True, text=True).stdout


@pytest.mark.usefixtures("leaves")
def test_a_branch_holds_a_commit_a_night_and_no_code(certify_: Call, place: Path) -> None:
    git(place, "init", "--quiet", "--initial-branch", "main")
    (place / "code.txt").write_text("code")
    git(place, "add", "code.txt")
    git(place, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "code")
    command = ("nightly", matrix(place), "--history", place / "nightly", "--branch", "nights", "--json")
    assert certify_(*command).code == 0
    second = json.loads(certify_(*command).out)
    assert second["cells"][TEXT]["change"] == "same"
    titles = git(place, "log", "--format=%s", "nights").splitlines()
    assert len(titles) == 3 and titles[0] == f"Night {second['night']}: all 1 cells reach their level"
    held = git(place, "ls-tree", "-r", "--name-only", "nights").splitlines()
    assert "code.txt" not in held and f"nights/{second['night']}/night.json" in held and "site/index.html" in held
    assert git(place, "status", "--porcelain", "--untracked-files=no") == ""


def test_a_directory_that_is_on_no_branch_is_not_taken(certify_: Call, place: Path) -> None:
    (place / "nightly").mkdir()
    (place / "nightly" / "precious.txt").write_text("mine")
    git(place, "init", "--quiet")
    result = certify_("nightly", matrix(place), "--history", place / "nightly", "--branch", "nights")
    assert result.code == 2 and "on no branch" in result.err
    assert [path.name for path in (place / "nightly").iterdir()] == ["precious.txt"]


def test_a_cell_of_inference_is_the_same_until_it_regresses(tmp_path: Path) -> None:
    def wrong(run: str, line: Any) -> Any:
        spoiled = run.startswith("subject") and isinstance(line, Scored) and line.task == "last_word"
        return dataclasses.replace(line, score=1.0) if spoiled else line

    first, again = (write_example(tmp_path / name, case=inference_case()) for name in ("first", "again"))
    worse = write_example(tmp_path / "worse", case=inference_case(), change=wrong)
    level = (Level.PRELIMINARY, Level.PRELIMINARY)
    assert compared(first, again, Level.PRELIMINARY, level)[0] is CellChange.SAME
    change, why = compared(first, worse, Level.PRELIMINARY, (Level.PRELIMINARY, Level.UNTESTED))
    assert change is CellChange.REGRESSION and "official-inference/score-ceiling" in why
    training = write_example(tmp_path / "training", case=small_case())
    assert compared(first, training, Level.PRELIMINARY, level)[0] is CellChange.NEW


def test_a_night_looks_for_what_the_task_of_a_cell_needs() -> None:
    assert "lm_eval" in needs_of(inference_case(), "mindspore")
    assert "lm_eval" not in needs_of(small_case(), "mindspore")
    assert needs_of(inference_case(), "mine.py:Mine") == {}
    assert needs_of(small_case(), PRETRAIN.subject) == needs_of(small_case(), "mindspore")
