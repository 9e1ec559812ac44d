"""Records: what is written is read, the same record gives the same bytes, and an edited or mistyped file is refused."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from harness.base.digest import canonical_json
from harness.base.errors import EvidenceError
from harness.base.records import Float, encode, encode_json, parse, read_json, read_record, write_json

FORM = "test-record/1"


class Colour(StrEnum):
    RED = "red"


class Written(BaseModel):
    """A record of the other kind: what a person writes in YAML."""

    value: float


@dataclass(frozen=True, kw_only=True)
class Part:
    value: Float
    plain: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Whole:
    parts: tuple[Part, ...]
    names: Mapping[str, int]
    colour: Colour
    count: int = 2
    note: str | None = None
    format: str = FORM


WHOLE = Whole(parts=(Part(value=0.1), Part(value=math.inf)), names={"b": 1, "a": 2}, colour=Colour.RED)


def test_a_record_has_one_json_form_whatever_it_is_built_of() -> None:
    assert encode_json(WHOLE) == (
        b'{"colour":"red","count":2,"format":"test-record/1","names":{"a":2,"b":1},"note":null,'
        b'"parts":[{"plain":1.0,"value":0.1},{"plain":1.0,"value":"Infinity"}]}\n'
    )
    mixed = {"record": Part(value=math.nan), "written": Written(value=-math.inf), "list": [(math.nan, 1, True, None)]}
    assert encode(mixed) == {
        "record": {"value": "NaN", "plain": 1.0},
        "written": {"value": "-Infinity"},
        "list": [["NaN", 1, True, None]],
    }


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    write_json(path, WHOLE)
    assert read_record(Whole, path, FORM) == WHOLE
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def _changed(change: Mapping[str, Any]) -> dict[str, Any]:
    return {**encode(WHOLE), **change}


MISTYPED: Mapping[str, Mapping[str, Any]] = {
    "a text for a whole number": {"count": "2"},
    "true for a whole number": {"count": True},
    "a float for a whole number": {"count": 2.0},
    "a number for a text": {"note": 3},
    "an unknown value": {"colour": "blue"},
    "an unknown field": {"extra": 1},
    "a mapping for a list": {"parts": {}},
    "a text that is no number's name": {"parts": [{"value": "nan", "plain": 1.0}]},
    "a name where only finite numbers belong": {"parts": [{"value": 1.0, "plain": "NaN"}]},
    "a whole number for a float": {"parts": [{"value": 1.0, "plain": 1}]},
}


@pytest.mark.parametrize("change", MISTYPED.values(), ids=MISTYPED)
def test_a_field_of_another_type_is_refused(change: Mapping[str, Any]) -> None:
    with pytest.raises(EvidenceError, match=r"origin\.json does not hold what it should"):
        parse(Whole, _changed(change), Path("origin.json"))


def test_a_missing_field_is_refused_by_name() -> None:
    value = _changed({})
    del value["colour"]
    with pytest.raises(EvidenceError, match="colour: Field required"):
        parse(Whole, value, Path("origin.json"))


def test_another_format_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", replace(WHOLE, format="test-record/2"))
    with pytest.raises(EvidenceError, match="does not have the format 'test-record/1'"):
        read_record(Whole, tmp_path / "r.json", FORM)


@pytest.mark.parametrize(
    "text", ['{"a": 1}\n', '{"a":1}', '{"b":1,"a":2}\n', '{"a":NaN}\n', '{"a":1.10}\n', "[", '{"a":1,"a":1}\n']
)
def test_a_file_that_is_not_as_it_would_be_written_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edited.json"
    path.write_text(text)
    with pytest.raises(EvidenceError, match=r"edited|not JSON"):
        read_json(path)


def test_the_json_form_is_json_without_extensions() -> None:
    assert json.loads(encode_json({"x": math.nan})) == {"x": "NaN"}
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": math.nan})


def test_a_name_that_is_no_text_is_written_with_escapes(tmp_path: Path) -> None:
    name = os.fsdecode(b"run-\xff")
    write_json(tmp_path / "a.json", {"command": ("certify", name), "files": {name: "\N{SUPERSCRIPT TWO}"}})
    assert read_json(tmp_path / "a.json") == {"command": ["certify", r"run-\udcff"], "files": {r"run-\udcff": "²"}}
    (tmp_path / "b.json").write_bytes(rb'{"host":"run-\udcff"}' + b"\n")  # half of a character, as JSON escapes it
    with pytest.raises(EvidenceError, match="is not JSON"):
        read_json(tmp_path / "b.json")
