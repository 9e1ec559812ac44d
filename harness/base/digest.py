"""Digests over content: the same content gives the same digest on every machine.

Records are digested as canonical JSON (sorted keys, no white space, shortest round-trip floats), tensors as
name, dtype, shape and little-endian bytes. All digests are SHA-256 in hexadecimal.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK_BYTES = 1 << 20
# made once: `json.dumps` makes an encoder for each call with other settings than its own
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value.

    Raises:
        ValueError: a non-finite float, which JSON cannot hold and which must be encoded before.
    """
    return CANONICAL.encode(value)


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    return digest_bytes(canonical_json(value).encode())


def digest_file(path: Path) -> str:
    """Digest of a file's bytes in constant memory."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
    return sha.hexdigest()


def digest_array(array: npt.NDArray[Any]) -> str:
    """Digest of dtype, shape and content; memory layout and byte order do not matter."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    sha = hashlib.sha256(f"{little.dtype.str}{list(array.shape)}".encode())
    sha.update(little.reshape(-1).view(np.uint8).data)  # no copy: a tensor may be half of a model
    return sha.hexdigest()


def digest_each(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Digest of each tensor by its name."""
    return {name: digest_array(tensor) for name, tensor in tensors.items()}


def digest_tensors(tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Digest of named tensors; the order of the mapping does not matter, the names do."""
    return digest_json(digest_each(tensors))
