"""Files that a killed process leaves whole up to their last line."""

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import InputError

# Of safetensors, which sketches and batches have.
DTYPES: Mapping[str, str] = {"<f8": "F64", "<f4": "F32", "<i4": "I32", "|i1": "I8", "|u1": "U8"}
KINDS: Mapping[str, str] = {name: dtype for dtype, name in DTYPES.items()}
LARGEST_HEADER = 100_000_000  # bytes, as safetensors has it


class Lines:
    """JSON lines, each handed to the system at once, with the digest of all of them: a kill loses none."""

    def __init__(self, path: Path, beginning: bytes) -> None:
        temporary = path.with_name(path.name + ".part")
        self._file, self._sha = temporary.open("wb", buffering=0), hashlib.sha256()
        self._write(beginning)
        os.replace(temporary, path)

    @property
    def digest(self) -> str:
        """Of the lines until now."""
        return self._sha.hexdigest()

    def append(self, line: bytes) -> None:
        """One more line, with its end."""
        self._write(line)

    def close(self, last: bytes) -> None:
        """The last line."""
        self.append(last)
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, data: bytes) -> None:
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        self._sha.update(data)


def kept_lines(path: Path, count: int) -> bytes:
    """The first lines of a file that a process left which was resumed.

    Raises:
        InputError: there are fewer.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    if len(lines) < count:
        raise InputError(
            f"{path} has {len(lines)} lines, and the run is resumed after {count}: steps before it were not collected. "
            "Collect the whole run into a new directory."
        )
    return b"".join(line + b"\n" for line in lines[:count])


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file; a kill leaves the old one or the new one."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes tensors in the format of safetensors: the length of a JSON header, the header, and the bytes.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """
    header, parts, end = dict[str, Any](), list[bytes](), 0
    for name, tensor in tensors.items():
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        parts.append(little.tobytes())
        header[name] = {
            "dtype": DTYPES[little.dtype.str],
            "shape": list(little.shape),
            "data_offsets": [end, end + len(parts[-1])],
        }
        end += len(parts[-1])
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    write_whole(path, len(described).to_bytes(8, "little") + described + b"".join(parts))


def mapped_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file in the format of safetensors, which are read where they are used.

    Raises:
        InputError: it is none.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            described = json.loads(file.read(min(length, LARGEST_HEADER)))
        return {
            name: np.memmap(path, KINDS[one["dtype"]], "r", 8 + length + one["data_offsets"][0], tuple(one["shape"]))
            for name, one in described.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no batches that are read here: {error}. See: certify data batches") from None
