"""The content of a step: what was read as bytes, the digests of it, and the lines that state it.

After a step of training nothing of this is in the caches of a processor, so what costs is how many different
operations there are, and not how many bytes. Each digest is one call over bytes that are laid out once, and a line is
written in the form of `canonical_json` without an encoder. `row_digest` and `digest_tensors` give the same.
"""

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from harness.base.numbers import encode_number
from harness.runs.collected import DIGITS, check_shapes

IDS = np.dtype("<i4")


class MicroBatch(NamedTuple):
    """Rows that were read: tokens [rows, length + 1] as int32 and loss mask [rows, length] as uint8, little-endian.
    `places` are the numbers of the rows in the global batch; None: they follow the ones before."""

    tokens: bytes
    mask: bytes
    rows: int
    length: int
    places: Sequence[int] | None

    @property
    def counted(self) -> int:
        """How many targets count."""
        return len(self.mask) - self.mask.count(0)

    def digests(self) -> list[str]:
        """The digest of each row."""
        tokens, mask, rows, length, _ = self
        wide = 4 * (length + 1)
        return [
            sha256(tokens[row * wide : (row + 1) * wide] + mask[row * length : (row + 1) * length]).hexdigest()[:DIGITS]
            for row in range(rows)
        ]


def micro_batch_of(tokens: Any, loss_mask: Any, places: Sequence[int] | None = None) -> MicroBatch:
    """The content of tokens [b, S+1] and loss mask [b, S].

    Raises:
        ValueError: they have other shapes, or there are not as many places as rows.
    """
    ids, mask = np.asarray(tokens), np.asarray(loss_mask)
    check_shapes(ids, mask)
    rows, length = mask.shape
    if places is not None and len(places) != rows:
        raise ValueError(f"{len(places)} numbers of rows for {rows} rows")
    whole = (ids if ids.dtype == IDS else ids.astype(IDS)).tobytes()
    return MicroBatch(tokens=whole, mask=(mask != 0).tobytes(), rows=rows, length=length, places=places)


def batch_digest(pieces: Sequence[MicroBatch]) -> str:
    """The digest of the rows that this process read, as that of a run of the harness; empty without any.

    Raises:
        ValueError: they have several lengths.
    """
    if not pieces:
        return ""
    length, rows = pieces[0].length, sum(one.rows for one in pieces)
    if any(one.length != length for one in pieces):
        raise ValueError(f"rows of {sorted({one.length for one in pieces})} positions in one batch")
    mask = _of_array("|u1", (rows, length), b"".join([one.mask for one in pieces]))
    tokens = _of_array("<i4", (rows, length + 1), b"".join([one.tokens for one in pieces]))
    return sha256(b'{"loss_mask":"%s","tokens":"%s"}' % (mask, tokens)).hexdigest()


def _of_array(dtype: str, shape: tuple[int, int], content: bytes) -> bytes:
    return sha256(b"%s[%d, %d]" % (dtype.encode(), *shape) + content).hexdigest().encode()


def rows_line(step: int, found: Mapping[int, str], counted: int) -> bytes:
    """The line of a step in the rows of a rank."""
    each = ",".join([f'"{row}":"{found[row]}"' for row in sorted(found, key=str)])
    return f'{{"rows":{{{each}}},"step":{step},"tokens":{counted}}}\n'.encode()


def step_line(*, step: int, loss: float, grad_norm: float, learning_rate: float, tokens: int, batch: str) -> bytes:
    """The line of a step in a trace."""
    numbers = (_number(grad_norm), _number(learning_rate), _number(loss))
    text = '{"batch":"%s","grad_norm":%s,"learning_rate":%s,"loss":%s,"step":%d,"tokens":%d}\n'
    return (text % (batch, *numbers, step, tokens)).encode()


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else f'"{encode_number(value)}"'
