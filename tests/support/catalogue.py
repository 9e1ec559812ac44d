"""Which of the shipped defects `tox run` plants.

All of them where anything that they depend on differs from what the last whole run covered, which is recorded in
`tests/defects/whole.json`. Otherwise a fixed sample; `tox run -e full` plants all, and ends with

    python -m tests.support.catalogue

to record what it covered.
"""

import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.base.digest import digest_file, digest_json
from harness.base.records import write_json
from harness.defects import Defect
from tests.support.examples import ROOT
from tests.support.full import full

RECORD = ROOT / "tests" / "defects" / "whole.json"
# What is planted, in what, by which runners, and what is looked at.
DEPENDS_ON = ("harness/cases", "harness/defects", "harness/runners", "qwen3_model", "tests/defects")
SOURCES = (".py", ".yaml")
FRAMEWORK = "mindspore"


def covered(root: Path = ROOT) -> Mapping[str, str]:
    """What a whole run of the catalogues in this checkout covers."""
    files = (path for name in DEPENDS_ON for path in (root / name).rglob("*") if path.suffix in SOURCES)
    digests = {path.relative_to(root).as_posix(): digest_file(path) for path in files}
    return {"sources": digest_json(digests), FRAMEWORK: importlib.metadata.version(FRAMEWORK)}


def changed(record: Path = RECORD, root: Path = ROOT) -> bool:
    """Whether something differs from what the last whole run covered."""
    return not record.is_file() or json.loads(record.read_text(encoding="utf-8")) != covered(root)


def planted(defects: Sequence[Defect], sample: Iterable[str], test: str) -> list[Any]:
    """Parameters of a test of each defect: what is not in the sample is left to `full`, unless something changed.

    Args:
        defects: all of a catalogue.
        sample: names of those that are always planted.
        test: the test, as `path/of/file.py::name`.
    """
    chosen = {one.id for one in defects} if changed() else set(sample)
    left = full(held_by=test)
    return [pytest.param(one, id=one.id, marks=() if one.id in chosen else left) for one in defects]


if __name__ == "__main__":
    write_json(RECORD, dict(covered()))
