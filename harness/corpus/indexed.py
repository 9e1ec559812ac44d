"""Reads Megatron's indexed data set: `PREFIX.idx` (sizes, pointers, documents) and `PREFIX.bin` (token ids).

Layout of the index, all little-endian: magic, u64 version, u8 dtype code, u64 number of sequences, u64 number of
document boundaries, i32 length of each sequence, i64 byte offset of each sequence, i64 document boundaries.
Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py.
"""

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.digest import digest_file, digest_json
from harness.errors import InputError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPES: dict[int, type[np.generic]] = {
    1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16,
}  # fmt: skip
HEADER = struct.Struct("<9sQBQQ")


@dataclass(frozen=True, kw_only=True)
class IndexedDataset:
    """The documents of a data set, each an array of token ids, with the digest of both files."""

    documents: tuple[npt.NDArray[np.int32], ...]
    sha256: str


def read_indexed(prefix: Path) -> IndexedDataset:
    """Reads both files of a prefix and checks that they fit each other.

    Raises:
        InputError: a file is missing, cut, of another format, or the two do not fit.
    """
    idx, bin_ = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    for path in (idx, bin_):
        if not path.is_file():
            raise InputError(f"There is no {path}: --data takes the common prefix of a .bin and an .idx file.")
    dtype, lengths, pointers, boundaries = _read_index(idx)
    _check_index(idx, bin_, dtype, lengths, pointers, boundaries)
    tokens = _token_ids(bin_, np.fromfile(bin_, dtype=dtype.newbyteorder("<")))
    starts = np.concatenate([[0], np.cumsum(lengths)])[boundaries]
    documents = tuple(tokens[a:b] for a, b in pairwise(starts))
    sha256 = digest_json({"bin": digest_file(bin_), "idx": digest_file(idx)})
    return IndexedDataset(documents=documents, sha256=sha256)


def _token_ids(bin_: Path, stored: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The ids as int32; one that does not fit is an error, for it would become another token."""
    for bound in (stored.min(initial=0), stored.max(initial=0)):
        if not 0 <= bound <= np.iinfo(np.int32).max:
            raise InputError(f"{bin_} holds the token id {bound}, which is none.")
    return stored.astype(np.int32)


def _read_index(idx: Path) -> tuple[np.dtype[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    data = idx.read_bytes()
    if data[:9] != MAGIC:
        raise InputError(f"{idx} is not a Megatron index: it does not begin with MMIDIDX.")
    if len(data) < HEADER.size:
        raise InputError(f"{idx} is cut inside its header.")
    _, version, code, sequences, boundaries = HEADER.unpack_from(data)
    if version != VERSION:
        raise InputError(f"{idx} has version {version}; version {VERSION} can be read.")
    if code not in DTYPES or not np.issubdtype(DTYPES[code], np.integer):
        raise InputError(f"{idx} has the dtype code {code}, which is no integer type of Megatron's.")
    expected = HEADER.size + sequences * 12 + boundaries * 8
    if len(data) != expected:
        raise InputError(f"{idx} has {len(data)} bytes; its header announces {expected}.")
    lengths = np.frombuffer(data, "<i4", sequences, HEADER.size)
    pointers = np.frombuffer(data, "<i8", sequences, HEADER.size + sequences * 4)
    documents = np.frombuffer(data, "<i8", boundaries, HEADER.size + sequences * 12)
    return np.dtype(DTYPES[code]), lengths, pointers, documents


def _check_index(
    idx: Path,
    bin_: Path,
    dtype: np.dtype[Any],
    lengths: npt.NDArray[Any],
    pointers: npt.NDArray[Any],
    boundaries: npt.NDArray[Any],
) -> None:
    if (lengths < 0).any():
        raise InputError(f"{idx} holds a negative sequence length.")
    ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
    if not np.array_equal(pointers, ends - lengths.astype(np.int64) * dtype.itemsize):
        raise InputError(f"{idx}: the pointers do not follow from the sequence lengths.")
    size = int(ends[-1]) if len(ends) else 0
    if bin_.stat().st_size != size:
        raise InputError(f"{bin_} has {bin_.stat().st_size} bytes; its index announces {size}.")
    ordered = len(boundaries) > 0 and boundaries[0] == 0 and boundaries[-1] == len(lengths)
    if not ordered or (np.diff(boundaries) < 0).any():
        raise InputError(f"{idx}: the document boundaries do not run from 0 to {len(lengths)}.")
