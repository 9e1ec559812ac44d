"""Which tests of long tables `tox run` makes: the shipped defects, the ways to fool the judge, the model's parameters.

All of a table where anything that it depends on differs from what the last whole run covered, which is recorded in
`tests/whole.json`. Otherwise a fixed sample; `tox run -e full` makes all, and ends with

    python -m tests.support.catalogue

to record what it covered.
"""

import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness.base.digest import digest_file, digest_json
from harness.base.records import write_json
from harness.defects import Defect
from tests.support import full
from tests.support.examples import ROOT

RECORD = ROOT / "tests" / "whole.json"
SOURCES = (".py", ".yaml")
# What makes sure that all of a table is made where something changed.
WHOLE = "tests/unit/support/test_samples.py::test_an_edit_of_what_a_table_depends_on_is_a_change"
EVERY = 8  # of the parameters of a function, in order, the first and each so many after it are in a sample


@dataclass(frozen=True, kw_only=True)
class Table:
    """Tests of one kind: where they are, and which directories and packages decide how they end. In a sample are
    its first test function and each `functions` after it, and all of the files `always`."""

    tests: tuple[str, ...]
    depends_on: tuple[str, ...]
    packages: tuple[str, ...] = ()
    functions: int = 1
    always: tuple[str, ...] = ()

    def covered(self, root: Path = ROOT) -> Mapping[str, str]:
        """What a whole run of it in this checkout covers."""
        files = (path for name in self.depends_on for path in (root / name).rglob("*") if path.suffix in SOURCES)
        digests = {path.relative_to(root).as_posix(): digest_file(path) for path in files}
        return {"sources": digest_json(digests), **{name: importlib.metadata.version(name) for name in self.packages}}


TABLES: Mapping[str, Table] = {
    # `planted` samples these by name
    "defects": Table(
        tests=(),
        depends_on=("harness/cases", "harness/defects", "harness/runners", "qwen3_model", "tests/defects"),
        packages=("mindspore",),
    ),
    "fooling": Table(
        tests=("tests/unit/evidence/test_fooling.py", "tests/unit/evidence/test_fooling_answers.py"),
        depends_on=(
            "harness/attestation", "harness/base", "harness/cases", "harness/comparison", "harness/evidence",
            "harness/levels", "harness/runs", "harness/standards", "tests/support", "tests/unit/evidence",
        ),
    ),
    "model": Table(
        tests=("tests/model/", "tests/parity/"),
        depends_on=("harness/cases", "harness/corpus", "harness/runners", "qwen3_model", "tests/model", "tests/parity"),
        packages=("mindspore", "torch", "transformers"),
        functions=6,
        always=("tests/parity/test_qwen3_depth.py",),  # no model of a published depth was compiled once
    ),
}  # fmt: skip


def changed(name: str, record: Path = RECORD, root: Path = ROOT) -> bool:
    """Whether something differs from what the last whole run of a table covered."""
    if not record.is_file():
        return True
    return bool(json.loads(record.read_text(encoding="utf-8")).get(name) != TABLES[name].covered(root))


def planted(defects: Sequence[Defect], sample: Iterable[str], test: str) -> list[Any]:
    """Parameters of a test of each defect: what is not in the sample is left to `full`, unless something changed.

    Args:
        defects: all of a catalogue.
        sample: names of those that are always planted.
        test: the test, as `path/of/file.py::name`.
    """
    chosen = {one.id for one in defects} if changed("defects") else set(sample)
    left = full.full(held_by=test)
    return [pytest.param(one, id=one.id, marks=() if one.id in chosen else left) for one in defects]


class Test(Protocol):
    """What is needed of a test of pytest."""

    @property
    def nodeid(self) -> str: ...

    def get_closest_marker(self, name: str) -> pytest.Mark | None: ...

    def add_marker(self, marker: pytest.MarkDecorator) -> None: ...


def thin(items: Iterable[Test]) -> None:
    """Leaves to `full` what is not in the samples of the tables that have not changed."""
    every = [(item, _table(item)) for item in items if item.get_closest_marker(full.NAME) is None]
    unchanged = {name for name in {name for _, name in every if name} if not changed(name)}
    functions: dict[str, dict[str, int]] = {}  # by table: how many parameters of each were seen, in order
    for item, name in every:
        if name not in unchanged or item.nodeid.startswith(TABLES[name].always):
            continue
        test, seen = item.nodeid.partition("[")[0], functions.setdefault(name, {})
        number = seen[test] = seen.get(test, -1) + 1
        if number % EVERY or [*seen].index(test) % TABLES[name].functions:
            item.add_marker(full.full(held_by=WHOLE))


def _table(item: Test) -> str | None:
    return next((name for name, table in TABLES.items() if item.nodeid.startswith(table.tests)), None)


if __name__ == "__main__":
    write_json(RECORD, {name: dict(table.covered()) for name, table in TABLES.items()})
