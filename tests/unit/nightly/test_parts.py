"""A night that several machines make is one night: nothing is lost, counted twice, or believed without its bundle."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.base.parts import Part, read_part
from harness.base.records import read_json, write_json
from harness.nightly.history import nights
from harness.nightly.matrix import Cell, Matrix, name_of
from harness.nightly.parts import cells_of
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, small_case

CASES = ("first", "second", "third")
SIDES = dict.fromkeys(("subject", "reference", "oracle"), f"{FAKES}:Fake")


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("good") / "bundle", case=small_case()).path


@pytest.fixture
def place(tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A matrix of three cells, each of which leaves the same bundle."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    for name in CASES:
        record = {**small_case().record(), "name": name}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(record))
    cells = [{"case": f"{name}.yaml", "level": "Untested", **SIDES} for name in CASES]
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump({"name": "shared", "cells": cells}))
    script = tmp_path / "fake-python"
    # its words are: -m harness.cli run CASE --device DEVICE --out BUNDLE ...
    script.write_text(f'#!/bin/sh\nmkdir -p "$8" && cp -r {good}/. "$8"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return tmp_path


@pytest.fixture
def parts(place: Path, certify_: Call) -> list[Path]:
    """The histories of both parts of two."""
    for number in (1, 2):
        result = certify_("nightly", "matrix.yaml", "--part", f"{number}/2", "--history", f"part-{number}")
        assert result.code == 0, result
    return [place / "part-1", place / "part-2"]


def gathered(certify_: Call, parts: list[Path], code: int) -> dict[str, Any]:
    words = [word for part in parts for word in ("--gather", str(part))]
    result = certify_("nightly", "matrix.yaml", *words, "--history", "all", "--json")
    assert result.code == code, result
    return dict(json.loads(result.out))


def edit(history: Path, **changes: Any) -> None:
    (record,) = history.glob("nights/*/night.json")
    edited = {**read_json(record), **changes}
    write_json(record, {name: value for name, value in edited.items() if value is not None})


@given(st.integers(1, 40), st.integers(1, 12))
def test_the_parts_of_a_matrix_have_each_cell_once(count: int, of: int) -> None:
    cells = tuple(Cell(case=f"case-{number}") for number in range(count))
    matrix = Matrix(name="many", cells=cells)
    shares = [cells_of(Part(number=number, of=of), matrix) for number in range(1, min(count, of) + 1)]
    assert sorted(map(name_of, cells)) == sorted(name_of(cell) for share in shares for cell in share)
    for number in range(count + 1, of + 1):
        with pytest.raises(InputError, match="has no cell"):
            cells_of(Part(number=number, of=of), matrix)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/0", "a/b", "-1/2", "1/2/3", "1 /2", ""])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="write K/N"):
        read_part(text)


def test_gathered_parts_are_one_night_with_every_cell(certify_: Call, parts: list[Path], place: Path) -> None:
    ((_, first),) = nights(parts[0])
    assert (first.part, first.total, [cell.case for cell in first.cells]) == ("1/2", 2, ["first", "third"])
    night = gathered(certify_, parts, 0)
    assert {cell["state"] for cell in night["cells"].values()} == {"judged"} and len(night["cells"]) == 3
    ((kept, whole),) = nights(place / "all")
    assert whole.part is None and whole.total == 3 and whole.ended
    assert all((kept / str(cell.bundle) / "manifest.json").is_file() for cell in whole.cells)
    shutil.rmtree(parts[0])
    assert Path(night["site"]).is_file()


def test_a_part_that_never_came_is_not_run_and_never_green(certify_: Call, parts: list[Path], place: Path) -> None:
    night = gathered(certify_, parts[:1], 1)
    (missing,) = [name for name, cell in night["cells"].items() if cell["state"] == "not run"]
    assert missing.startswith("second") and night["failing"] == [missing]
    said = Path(night["summary"]).read_text()
    assert "part 2/2 did not come" in said and "certify nightly matrix" in said and "--part 2/2" in said


def test_a_part_of_the_night_before_does_not_stand_for_one_that_did_not_come(
    certify_: Call, parts: list[Path], place: Path
) -> None:
    gathered(certify_, parts, 0)
    again = certify_("nightly", "matrix.yaml", "--gather", parts[0], "--gather", parts[1], "--history", "all")
    assert again.code == 2 and "were gathered before, as the night" in again.said
    assert certify_("nightly", "matrix.yaml", "--part", "1/2", "--history", "part-1").code == 0
    night = gathered(certify_, parts, 1)
    (missing,) = night["failing"]
    assert missing.startswith("second") and night["cells"][missing]["state"] == "not run"


def test_a_night_that_lacked_a_part_is_gathered_once_more(certify_: Call, parts: list[Path]) -> None:
    gathered(certify_, parts[:1], 1)
    night = gathered(certify_, parts, 0)
    assert {cell["state"] for cell in night["cells"].values()} == {"judged"}


def test_a_result_is_judged_again_from_its_bundle(certify_: Call, parts: list[Path]) -> None:
    (record,) = parts[1].glob("nights/*/night.json")
    edit(parts[1], cells=[{**cell, "level": "Released", "state": "judged"} for cell in read_json(record)["cells"]])
    night = gathered(certify_, parts, 0)
    assert {cell["level"] for cell in night["cells"].values()} == {"Untested"}


def lose(bundle: Path) -> None:
    shutil.rmtree(bundle)


def swap(bundle: Path) -> None:
    case = small_case().with_changes(initialization={**small_case().initialization.model_dump(), "seed": 77})
    shutil.rmtree(bundle)
    write_example(bundle, case=case)


@pytest.mark.parametrize(("harm", "said"), [(lose, "came without its bundle"), (swap, "its bundle is of another case")])
def test_a_result_without_its_own_bundle_is_broken(
    certify_: Call, parts: list[Path], harm: Callable[[Path], None], said: str
) -> None:
    (bundle,) = parts[1].glob("nights/*/cells/*/bundle")
    harm(bundle)
    night = gathered(certify_, parts, 1)
    (broken,) = [name for name, cell in night["cells"].items() if cell["state"] == "broken"]
    assert broken.startswith("second")
    assert said in Path(night["summary"]).read_text()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"matrix": "0" * 64}, "another matrix"),
        ({"part": "1/2"}, "are both part 1/2"),
        ({"part": "2/3"}, "do not belong together"),
        ({"revision": "another"}, "different code"),
        ({"part": None}, "no history of a part"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    certify_: Call, parts: list[Path], place: Path, changes: dict[str, Any], said: str
) -> None:
    edit(parts[1], **changes)
    result = certify_("nightly", "matrix.yaml", "--gather", parts[0], "--gather", parts[1], "--history", "all")
    assert result.code == 2 and said in " ".join(result.said.split()), result
    assert not list((place / "all").glob("nights/*"))


def test_a_part_and_gathering_are_not_one_command(certify_: Call, place: Path) -> None:
    result = certify_("nightly", "matrix.yaml", "--part", "1/2", "--gather", "elsewhere")
    assert result.code == 2 and "give one of them" in result.said
    result = certify_("nightly", "matrix.yaml", "--part", "4/4", "--history", "none")
    assert result.code == 2 and "has no cell" in result.said and not (place / "none").exists()
