"""Megatron's indexed data set: `PREFIX.bin` (token ids) and `PREFIX.idx` (lengths, pointers, documents).

Reads and writes the same bytes as the tools of Megatron-LM and mindformers. A pair of files that do not match each
other exactly is an error. Memory does not grow with the number of tokens: the ids stay on disk.

Layout of the index, all little-endian: magic, u64 version, u8 dtype code, u64 number of sequences, u64 number of
document boundaries, i32 length of each sequence, i64 byte offset of each sequence, i64 document boundaries.
Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py.
"""

import contextlib
import hashlib
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import CHUNK_BYTES, digest_file, digest_json
from harness.base.errors import InputError
from harness.base.whole_files import OVERWRITE, whole_file

MAGIC = b"MMIDIDX\x00\x00"
LEGACY_MAGIC = b"TNTIDX\x00\x00"
VERSION = 1
DTYPES: dict[int, type[np.generic]] = {
    1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16,
}  # fmt: skip
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
HEADER = struct.Struct("<9sQBQQ")
MAXIMUM_ID = np.iinfo(np.int32).max
CHUNK = CHUNK_BYTES // 8


@dataclass(frozen=True, kw_only=True)
class IndexedDataset:
    """A data set whose two files match each other.

    lengths: int32 [sequences]; sequences lie one after the other in `tokens`.
    boundaries: int64 [documents + 1]; document i is the sequences `boundaries[i]` up to `boundaries[i + 1]`.
    tokens: the ids in the stored dtype, mapped from the file and not in memory.
    lowest, highest: the smallest and the largest id.
    sha256: digest of both files.
    """

    prefix: Path
    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int32]
    boundaries: npt.NDArray[np.int64]
    tokens: npt.NDArray[Any]
    lowest: int
    highest: int
    sha256: str

    @property
    def document_lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each document, int64 [documents]."""
        starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        return np.diff(starts[self.boundaries])


@dataclass(frozen=True, kw_only=True)
class _Index:
    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int32]
    pointers: npt.NDArray[np.int64]
    boundaries: npt.NDArray[np.int64]


def open_indexed(prefix: Path) -> IndexedDataset:
    """Opens both files of a prefix and checks that each is valid and that they match each other.

    Raises:
        InputError: a file is missing, truncated or of another format, the two do not match, or they hold no token.
    """
    idx, bin_ = paths(prefix)
    for path in (idx, bin_):
        if not path.is_file():
            raise InputError(_missing(prefix, path))
    index = _read_index(idx)
    _check_lengths(idx, index)
    _check_documents(idx, index)
    tokens = _map_tokens(idx, bin_, index)
    lowest, highest, digest = _scan(bin_, index.dtype)
    for bound in (lowest, highest):
        if not 0 <= bound <= MAXIMUM_ID:
            raise InputError(f"{bin_} holds the token id {bound}; ids are 0 to {MAXIMUM_ID}.")
    return IndexedDataset(
        prefix=prefix,
        dtype=index.dtype,
        lengths=index.lengths,
        boundaries=index.boundaries,
        tokens=tokens,
        lowest=lowest,
        highest=highest,
        sha256=digest_json({"bin": digest, "idx": digest_file(idx)}),
    )


def paths(prefix: Path) -> tuple[Path, Path]:
    """The paths of a prefix's index and data file."""
    return Path(f"{prefix}.idx"), Path(f"{prefix}.bin")


def _missing(prefix: Path, path: Path) -> str:
    if path.exists():
        return f"{path} is not a file."
    if prefix.suffix in (".bin", ".idx") and prefix.is_file():
        return f"{prefix} is one of two files; give their common prefix: {prefix.with_suffix('')}"
    return f"There is no {path}: a Megatron data set is named by the common prefix of a .bin and an .idx file."


def _read_index(idx: Path) -> _Index:
    size = idx.stat().st_size
    with idx.open("rb") as file:
        head = file.read(HEADER.size)
        if head.startswith(LEGACY_MAGIC):
            raise InputError(
                f"{idx} has the old TNTIDX format instead of MMIDIDX; write it again with 'certify data preprocess'."
            )
        if head[: len(MAGIC)] != MAGIC:
            raise InputError(f"{idx} is not a Megatron index: it does not start with MMIDIDX.")
        if len(head) < HEADER.size:
            raise InputError(f"{idx} is truncated inside its header.")
        _, version, code, sequences, boundaries = HEADER.unpack(head)
        if version != VERSION:
            raise InputError(f"{idx} has version {version}; only version {VERSION} can be read.")
        if code not in DTYPES or not np.issubdtype(DTYPES[code], np.integer):
            raise InputError(f"{idx} has the dtype code {code}, which is not an integer type of Megatron.")
        expected = HEADER.size + sequences * 12 + boundaries * 8
        if size == expected + sequences and sequences:
            raise InputError(f"{idx} holds a mode for each sequence: multimodal data sets cannot be read.")
        if size != expected:
            raise InputError(f"{idx} has {size} bytes; its header states {expected}.")
        return _Index(
            dtype=np.dtype(DTYPES[code]).newbyteorder("<"),
            lengths=np.fromfile(file, "<i4", sequences),
            pointers=np.fromfile(file, "<i8", sequences),
            boundaries=np.fromfile(file, "<i8", boundaries),
        )


def _check_lengths(idx: Path, index: _Index) -> None:
    negative = np.flatnonzero(index.lengths < 0)
    if len(negative):
        raise InputError(f"{idx}: sequence {negative[0]} has the negative length {index.lengths[negative[0]]}.")
    for start, pointers in _pointers(index.lengths, index.dtype.itemsize):
        wrong = np.flatnonzero(index.pointers[start : start + len(pointers)] != pointers)
        if len(wrong):
            raise InputError(
                f"{idx}: the pointer of sequence {start + wrong[0]} is byte {index.pointers[start + wrong[0]]}; "
                f"the lengths before it add up to byte {pointers[wrong[0]]}."
            )


def _pointers(lengths: npt.NDArray[np.int32], itemsize: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Byte offsets of the sequences, in chunks, each with the number of its first sequence."""
    reached = 0
    for start in range(0, len(lengths), CHUNK):
        ends = reached + np.cumsum(lengths[start : start + CHUNK], dtype=np.int64) * itemsize
        yield start, np.concatenate([[reached], ends[:-1]])
        reached = int(ends[-1])


def _check_documents(idx: Path, index: _Index) -> None:
    boundaries, sequences = index.boundaries, len(index.lengths)
    if not len(boundaries) or boundaries[0] != 0 or boundaries[-1] != sequences:
        ends = "none" if not len(boundaries) else f"{boundaries[0]} to {boundaries[-1]}"
        raise InputError(f"{idx}: the document boundaries must run from 0 to {sequences}, got {ends}.")
    falling = np.flatnonzero(np.diff(boundaries) < 0)
    if len(falling):
        raise InputError(f"{idx}: document {falling[0]} ends before it starts.")


def _map_tokens(idx: Path, bin_: Path, index: _Index) -> npt.NDArray[Any]:
    size = bin_.stat().st_size
    expected = int(index.lengths.sum(dtype=np.int64)) * index.dtype.itemsize
    if size != expected:
        raise InputError(f"{bin_} has {size} bytes; the lengths in {idx.name} add up to {expected}.")
    if not size:
        raise InputError(f"{bin_} holds no token.")
    return np.memmap(bin_, dtype=index.dtype, mode="r")


def _scan(bin_: Path, dtype: np.dtype[Any]) -> tuple[int, int, str]:
    """Smallest id, largest id and digest of the data, in one pass."""
    sha, lowest, highest = hashlib.sha256(), MAXIMUM_ID + 1, -1
    with bin_.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
            ids = np.frombuffer(chunk, dtype)
            lowest, highest = min(lowest, int(ids.min())), max(highest, int(ids.max()))
    return lowest, highest, sha.hexdigest()


class IndexedWriter(contextlib.AbstractContextManager["IndexedWriter"]):
    """Writes a data set document by document; on exit, both files exist and are complete, or neither exists.

    Raises:
        InputError: a file exists and `overwrite` is not set, the directory cannot be written, or an id does not fit the
            dtype.
    """

    def __init__(self, prefix: Path, dtype: npt.DTypeLike, *, overwrite: bool = False) -> None:
        self._idx, self._bin = paths(prefix)
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._overwrite = overwrite
        self._lengths, self._boundaries = array("i"), array("q", [0])
        self._files = contextlib.ExitStack()

    def __enter__(self) -> "IndexedWriter":
        with contextlib.ExitStack() as files:
            # The file entered last appears first, so no index appears before its data.
            self._index_file, self._data_file = (
                files.enter_context(whole_file(path, overwrite=self._overwrite, replace=OVERWRITE))
                for path in (self._idx, self._bin)
            )
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if error is not None:
            return self._files.__exit__(kind, error, traceback)
        with self._files:
            self._write_index()
            # An old index must never exist next to new data.
            self._idx.unlink(missing_ok=True)
        return None

    def add(self, ids: npt.NDArray[np.integer[Any]], lengths: Sequence[int], sequences: Sequence[int]) -> None:
        """Adds documents.

        Args:
            ids: the token ids of all documents, concatenated.
            lengths: tokens of each sequence.
            sequences: number of sequences of each document; their sum is the number of `lengths`.
        """
        if sum(lengths) != len(ids) or sum(sequences) != len(lengths):
            raise ValueError("ids, lengths and sequences do not match")
        limits = np.iinfo(self._dtype)
        for bound in (ids.min(initial=0), ids.max(initial=0)):
            if not limits.min <= bound <= limits.max:
                raise InputError(f"The token id {bound} does not fit {self._dtype.name}. Choose --dtype int32.")
        self._data_file.write(ids.astype(self._dtype, copy=False).tobytes())
        reached = len(self._lengths)
        self._lengths.extend(lengths)
        for number in sequences:
            reached += number
            self._boundaries.append(reached)

    def _write_index(self) -> None:
        lengths = np.frombuffer(self._lengths, np.int32)
        header = HEADER.pack(MAGIC, VERSION, CODES[self._dtype.newbyteorder("=")], len(lengths), len(self._boundaries))
        self._index_file.write(header)
        self._index_file.write(lengths.astype("<i4", copy=False).tobytes())
        for _, pointers in _pointers(lengths, self._dtype.itemsize):
            self._index_file.write(pointers.astype("<i8", copy=False).tobytes())
        self._index_file.write(np.frombuffer(self._boundaries, np.int64).astype("<i8", copy=False).tobytes())
