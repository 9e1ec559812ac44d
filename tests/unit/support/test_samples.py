"""Long tables are run whole when anything that they depend on changed; a fixed sample of them otherwise."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.base.records import write_json
from harness.defects import shipped_defects
from tests.support import catalogue

DEFECTS = [*shipped_defects().values()][:3]
FIRST, *OTHERS = [one.id for one in DEFECTS]
HERE = "tests/unit/support/test_samples.py"
TEST = f"{HERE}::test_without_a_change_only_the_sample_is_planted"
TABLE = catalogue.Table(tests=(f"{HERE}::test_of_a_table",), depends_on=("one", "other"))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose tables were run whole."""
    monkeypatch.setattr(catalogue, "TABLES", {"table": TABLE})
    for name in TABLE.depends_on:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "module.py").write_text("VALUE = 1\n")
    write_json(tmp_path / "whole.json", {"table": dict(TABLE.covered(tmp_path))})
    return tmp_path


def changed(checkout: Path) -> bool:
    return catalogue.changed("table", checkout / "whole.json", checkout)


@pytest.mark.parametrize("name", TABLE.depends_on)
def test_an_edit_of_what_a_table_depends_on_is_a_change(checkout: Path, name: str) -> None:
    assert not changed(checkout)
    (checkout / name / "inner" / "module.py").write_text("VALUE = 2\n")
    assert changed(checkout)


def test_a_file_more_and_a_missing_record_are_changes(checkout: Path) -> None:
    (checkout / "one" / "more.yaml").touch()
    assert changed(checkout)
    (checkout / "one" / "more.yaml").unlink()
    assert not changed(checkout)
    (checkout / "whole.json").unlink()
    assert changed(checkout)


@pytest.mark.parametrize("table", catalogue.TABLES.values(), ids=catalogue.TABLES)
def test_every_table_depends_on_files_that_there_are(table: catalogue.Table) -> None:
    assert all((catalogue.ROOT / name).is_dir() for name in table.depends_on)
    assert all((catalogue.ROOT / name).exists() for name in table.tests)


def left_to_full() -> list[str]:
    return [one.id for one in catalogue.planted(DEFECTS, [FIRST], TEST) if one.marks]


def test_without_a_change_only_the_sample_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "changed", lambda name: False)
    assert left_to_full() == OTHERS


def test_after_a_change_every_defect_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "changed", lambda name: True)
    assert left_to_full() == []


class Item:
    """What `thin` needs of a test."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid, self.left = nodeid, False

    def get_closest_marker(self, name: str) -> None:
        return None

    def add_marker(self, marker: Any) -> None:
        self.left = True


FILES, FUNCTIONS = ("file_0.py", "file_1.py", "file_2.py"), "abcd"
SAMPLED = (0, 8, 16)


@pytest.mark.parametrize(
    ("edited", "functions", "sample"),
    [
        (True, 3, [f"{file}::{one}[{n}]" for file in FILES for one in FUNCTIONS for n in range(20)]),
        (False, 1, [f"{file}::{one}[{n}]" for file in FILES for one in FUNCTIONS for n in SAMPLED]),
        (False, 3, [f"{FILES[at // 4]}::{FUNCTIONS[at % 4]}[{n}]" for at in (0, 3, 6, 9) for n in SAMPLED]),
    ],
)
def test_of_an_unchanged_table_a_part_of_its_functions_is_in_the_sample(
    monkeypatch: pytest.MonkeyPatch, edited: bool, functions: int, sample: list[str]
) -> None:
    table = dataclasses.replace(TABLE, functions=functions, tests=("file",), always=("file_always",))
    monkeypatch.setattr(catalogue, "TABLES", {"table": table})
    monkeypatch.setattr(catalogue, "changed", lambda name: edited)
    items = [Item(f"{file}::{one}[{n}]") for file in FILES for one in FUNCTIONS for n in range(20)]
    others = [Item(f"{file}::besides[{n}]") for file in ("other.py", "file_always.py") for n in range(20)]
    catalogue.thin([*items, *others])
    assert [item.nodeid for item in items if not item.left] == sample
    assert not [item for item in others if item.left]


def test_what_is_always_made_is_there() -> None:
    assert all((catalogue.ROOT / path).is_file() for table in catalogue.TABLES.values() for path in table.always)
