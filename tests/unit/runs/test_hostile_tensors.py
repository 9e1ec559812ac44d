"""A file of tensors whose header lies is refused by everything that reads one, and nothing of it is allocated."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import EvidenceError
from harness.runs.inputs import read_tensors, read_weights
from qwen3_model.weights import SINGLE_FILE, WeightsError, check_safetensors, load_safetensors

Header = str | bytes


def entry(begin: int = 0, end: int = 8, *, dtype: str = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(**changes: Any) -> Header:
    return json.dumps({"a": {**entry(), **changes}})


def file_of(header: Header, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


TWICE = f'{{"a": {json.dumps(entry(0, 4, shape=[1]))}, "a": {json.dumps(entry(4, 8, shape=[1]))}}}'
LIES: dict[str, bytes] = {
    "a header of 2^63 bytes": file_of(one(), length=1 << 63),
    "a header of 2^64 - 1 bytes": file_of(one(), length=(1 << 64) - 1),
    "a header longer than the file": file_of(one(), length=4096),
    "a header of no bytes": file_of("", data=b"", length=0),
    "a file of seven bytes": b"\0" * 7,
    "no file at all": b"",
    "no JSON": file_of("{"),
    "a list": file_of("[]"),
    "a number": file_of("1"),
    "JSON that is nested 100,000 deep": file_of("[" * 100_000),
    "no UTF-8": file_of(b'{"\xff": {}}'),
    "a lone surrogate": file_of('{"a\\ud800": ' + json.dumps(entry()) + "}"),
    "a name twice": file_of(TWICE),
    "tensors over each other": file_of(json.dumps({"a": entry(0, 8), "b": entry(4, 12)}), bytes(12)),
    "two tensors in one place": file_of(json.dumps({"a": entry(), "b": entry()})),
    "a gap between tensors": file_of(json.dumps({"a": entry(0, 8), "b": entry(12, 20)}), bytes(20)),
    "a gap before the first": file_of(json.dumps({"a": entry(4, 12)}), bytes(12)),
    "data after the last": file_of(one(), bytes(12)),
    "data that is missing": file_of(one(), bytes(4)),
    "offsets that go back": file_of(one(data_offsets=[8, 0])),
    "negative offsets": file_of(one(data_offsets=[-8, 0])),
    "one offset": file_of(one(data_offsets=[8])),
    "three offsets": file_of(one(data_offsets=[0, 8, 8])),
    "offsets of 2^64": file_of(one(data_offsets=[0, 1 << 64])),
    "offsets that are no whole numbers": file_of(one(data_offsets=[0, 8.0])),
    "a negative shape": file_of(one(shape=[-2])),
    "two negative shapes": file_of(one(shape=[-1, -2])),
    "a shape larger than the data": file_of(one(shape=[1 << 40])),
    "a shape whose product is too large for 64 bits": file_of(one(shape=[1 << 32, 1 << 32, 2])),
    "a shape smaller than the data": file_of(one(shape=[1])),
    "a shape of text": file_of(one(shape="2")),
    "a shape of truth": file_of(one(shape=[True, 2])),
    "no dtype": file_of(json.dumps({"a": {"shape": [2], "data_offsets": [0, 8]}})),
    "an unknown dtype": file_of(one(dtype="F7")),
    "a dtype that is a number": file_of(one(dtype=4)),
    "no shape": file_of(json.dumps({"a": {"dtype": "F32", "data_offsets": [0, 8]}})),
    "an entry that is no object": file_of('{"a": 1}'),
}
READERS: dict[str, Callable[[Path], object]] = {
    "read": read_tensors,
    "read one by one": lambda path: dict(read_weights(path)),
    "load": lambda path: load_safetensors(path.parent),
    "check": lambda path: check_safetensors(path.parent),
}
ALLOWED = (EvidenceError, WeightsError)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_two_numbers_is_read(tmp_path: Path, reader: str) -> None:
    (tmp_path / SINGLE_FILE).write_bytes(file_of(one()))
    assert list(READERS[reader](tmp_path / SINGLE_FILE)) == ["a"]  # type: ignore[call-overload]


def check_refused_unread(reader: str, path: Path) -> None:
    """It is refused, and no memory is taken for what it states."""
    tracemalloc.start()
    try:
        with pytest.raises(ALLOWED):
            READERS[reader](path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path, reader: str, name: str) -> None:
    (tmp_path / SINGLE_FILE).write_bytes(LIES[name])
    check_refused_unread(reader, tmp_path / SINGLE_FILE)


@pytest.mark.parametrize("reader", READERS)
def test_a_header_of_holes_is_refused_before_it_is_read(tmp_path: Path, reader: str) -> None:
    """One that is as long as its file states, which takes no place on disk."""
    with (tmp_path / SINGLE_FILE).open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate((1 << 30) + 8)
    check_refused_unread(reader, tmp_path / SINGLE_FILE)
