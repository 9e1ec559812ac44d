"""Megatron data sets for tests: one written out by hand, and ways to spoil it."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LENGTHS, BOUNDARIES, IDS = [5, 3, 0, 5], [0, 1, 2, 3, 4], [1, 2, 3, 300, 0, 5, 6, 0, 7, 8, 9, 10, 0]
STORED = {4: "<i4", 8: "<u2", 5: "<i8", 3: "<i2", 1: "u1", 7: "<f4"}


def index_bytes(
    lengths: list[int] = LENGTHS,
    boundaries: list[int] = BOUNDARIES,
    code: int = 4,
    pointers: list[int] | None = None,
    **header: Any,
) -> bytes:
    """A Megatron index, written out by hand."""
    size = np.dtype(STORED.get(code, "<i4")).itemsize
    starts = pointers if pointers is not None else [sum(lengths[:n]) * size for n in range(len(lengths))]
    values = {"magic": b"MMIDIDX\0\0", "version": 1, "code": code, "sequences": len(lengths), "n": len(boundaries)}
    magic, version, code, sequences, documents = {**values, **header}.values()
    return (
        magic
        + struct.pack("<QBQQ", version, code, sequences, documents)
        + np.array(lengths, "<i4").tobytes()
        + np.array(starts, "<i8").tobytes()
        + np.array(boundaries, "<i8").tobytes()
    )


def write_data_set(directory: Path, code: int = 4, index: bytes | None = None, data: bytes | None = None) -> Path:
    """A data set of four documents, one of them empty; gives its prefix."""
    directory.mkdir(parents=True, exist_ok=True)
    prefix = directory / "data"
    Path(f"{prefix}.idx").write_bytes(index_bytes(code=code) if index is None else index)
    Path(f"{prefix}.bin").write_bytes(np.array(IDS, STORED[code]).tobytes() if data is None else data)
    return prefix


Spoil = Callable[[Path], object]


def _index(**change: Any) -> Spoil:
    return lambda prefix: Path(f"{prefix}.idx").write_bytes(index_bytes(**change))


def _data(ids: list[int], stored: str = "<i4", rest: bytes = b"") -> Spoil:
    return lambda prefix: Path(f"{prefix}.bin").write_bytes(np.array(ids, stored).tobytes() + rest)


def _cut(suffix: str, size: int) -> Spoil:
    return lambda prefix: Path(f"{prefix}.{suffix}").write_bytes(Path(f"{prefix}.{suffix}").read_bytes()[:size])


def _append(suffix: str, rest: bytes) -> Spoil:
    return lambda prefix: Path(f"{prefix}.{suffix}").write_bytes(Path(f"{prefix}.{suffix}").read_bytes() + rest)


def _remove(suffix: str) -> Spoil:
    return lambda prefix: Path(f"{prefix}.{suffix}").unlink()


def _directory(suffix: str) -> Spoil:
    return lambda prefix: (_remove(suffix)(prefix), Path(f"{prefix}.{suffix}").mkdir())


def _both(one: Spoil, other: Spoil) -> Spoil:
    return lambda prefix: (one(prefix), other(prefix))


# A change to the files, and a part of the message that reports it.
CORRUPTIONS: dict[str, tuple[Spoil, str]] = {
    "no index": (_remove("idx"), "There is no"),
    "no data": (_remove("bin"), "There is no"),
    "a directory for the index": (_directory("idx"), "is not a file"),
    "a directory for the data": (_directory("bin"), "is not a file"),
    "an empty index": (_cut("idx", 0), "does not start with MMIDIDX"),
    "another magic": (_index(magic=b"MMIDIDY\0\0"), "does not start with MMIDIDX"),
    "the old format": (_index(magic=b"TNTIDX\0\0\0"), "old TNTIDX format"),
    "an index cut in its header": (_cut("idx", 20), "truncated inside its header"),
    "another version": (_index(version=2), "version 2"),
    "an unknown dtype": (_index(code=99), "dtype code 99"),
    "numbers that are no ids": (_index(code=7), "dtype code 7"),
    "an index cut at its end": (_cut("idx", -1), "its header states"),
    "an index with a byte too many": (_append("idx", b"\0"), "its header states"),
    "a mode for each sequence": (_append("idx", b"\0" * len(LENGTHS)), "multimodal"),
    "more sequences announced": (_index(sequences=2**60), "its header states"),
    "fewer sequences announced": (_index(sequences=2), "its header states"),
    "more documents announced": (_index(n=2**62), "its header states"),
    "a negative length": (_index(lengths=[5, -3, 6, 5]), "negative length -3"),
    "a pointer beyond the data": (_index(pointers=[0, 20, 32, 5000]), "pointer of sequence 3 is byte 5000"),
    "a negative pointer": (_index(pointers=[0, -20, 32, 32]), "pointer of sequence 1 is byte -20"),
    "sequences that overlap": (_index(pointers=[0, 16, 32, 32]), "pointer of sequence 1 is byte 16"),
    "lengths that add up to less": (_index(lengths=[5, 3, 0, 4]), "add up to 48"),
    "lengths that add up to more": (_index(lengths=[5, 3, 0, 6]), "add up to 56"),
    "a first document that begins late": (_index(boundaries=[1, 1, 2, 3, 4]), "run from 0 to 4, got 1 to 4"),
    "a last document that ends early": (_index(boundaries=[0, 1, 2, 3, 3]), "run from 0 to 4, got 0 to 3"),
    "a document that ends before it begins": (_index(boundaries=[0, 3, 2, 3, 4]), "document 1 ends before it starts"),
    "no documents": (_index(boundaries=[]), "got none"),
    "data cut by a byte": (_cut("bin", -1), "add up to 52"),
    "data cut by a token": (_cut("bin", -4), "add up to 52"),
    "data with a token too many": (_append("bin", b"\0" * 4), "add up to 52"),
    "empty data": (_cut("bin", 0), "add up to 52"),
    "nothing in both": (_both(_index(lengths=[], boundaries=[0]), _cut("bin", 0)), "holds no token"),
    "the data of another dtype": (_data(IDS, "<u2"), "add up to 52"),
    "a negative id": (_data([*IDS[:-1], -1]), "the token id -1"),
    "an id beyond int32": (
        _both(_index(code=5), _data([*IDS[:-1], 2**32 + 1], "<i8")),
        "the token id 4294967297",
    ),
    "an id beyond the vocabulary": (_data([*IDS[:-1], 320]), "the token id 320 in document 3 (token 12 of the file)"),
}
