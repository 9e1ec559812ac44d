"""Sketches: what a run leaves of a tensor in place of the tensor, of a size that does not grow with it.

A sketch multiplies each element by a sign and adds it to one of a number of buckets. It is linear: the sketch of a
difference is the difference of the sketches, and the sketches of shards or of micro batches add up to that of the
whole. The signs are independent and fair, so the sum of the squares of a sketch is an unbiased estimate of the squared
norm. Its relative standard deviation is near sqrt(2 / buckets) where the squared norm is spread evenly over the
buckets, and at most sqrt(2). A tensor of at most as many elements as buckets has one for each, and is measured exactly.

Rounding errors are not spread evenly over a tensor: a few rows of an embedding hold most of them. So neighbours in a
row and in a column are in different buckets. On the gradients of the default case, the error ratio of a tensor deviates
by 2.0 % (root mean square; at most 9.5 %) with 1,024 buckets, and by 4.6 % (25 %) if each is a contiguous block.

A projection of a matrix multiplies its rows, or its columns, by signs and sums them: one number for each row and one
for each column. It locates a difference that the sketch measures. The size of a row or a column is the power of two of
its norm, a byte: in it, the difference of one row is measured that a sketch of all rows does not show.

Signs come from a counter-based generator keyed by the name of the tensor, so each rank computes those of its own part.

Source: M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams", ICALP 2002;
J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from harness.runs.drawing import words
from qwen3_model.parallel_config import Part

BUCKETS = 256
BUCKETS_OF_FIRST_GRADIENT = 1024
STRIDE = 97  # from an element to the one below it, in buckets: a prime, so that a column is in all buckets
WHOLE = Part()
SKETCH, ROWS, COLUMNS = "#sketch", "#rows", "#columns"  # what follows the name of a tensor in a file
ROW_SIZES, COLUMN_SIZES = "#row-sizes", "#column-sizes"
NOTHING = -128  # the size of a row or column of zeros
WORD = 64  # bits of a random word
PIECE = 1 << 20  # elements that are multiplied at a time: bounds the memory
Array = npt.NDArray[Any]


def signs(label: str, begin: int, count: int) -> npt.NDArray[np.float64]:
    """The signs `begin` to `begin + count` of a label's infinite sequence: each -1 or 1."""
    first, skipped = divmod(begin, WORD)
    drawn = words(label, first, -(-(skipped + count) // WORD))
    bits = np.unpackbits(drawn.astype("<u8").view(np.uint8), bitorder="little", count=skipped + count)
    return np.where(bits[skipped:], 1.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """The sums of a tensor's buckets, and the sum of the squares of its elements."""

    buckets: npt.NDArray[np.float64]
    squares: float

    @property
    def norm(self) -> float:
        """The norm of the tensor, exact but for the rounding of float64."""
        return math.sqrt(self.squares)

    def __add__(self, other: Self) -> "Sketch":
        """The sketch of a whole from those of parts that have no element in common."""
        return Sketch(buckets=self.buckets + other.buckets, squares=self.squares + other.squares)


def sketch(
    name: str, tensor: Array, buckets: int = BUCKETS, shape: tuple[int, ...] | None = None, part: Part = WHOLE
) -> Sketch:
    """The sketch of a tensor, or a part's share of it. A tensor of more axes is a matrix of its last axis' rows.

    Args:
        name: the name of the tensor, which decides the signs.
        tensor: the whole, or the part of it that is at hand.
        buckets: the most that the sketch has.
        shape: of the whole, if `tensor` is a part.
        part: which part.
    """
    whole = tensor.shape if shape is None else shape
    # a vector is a column, so that its parts are rows
    width = whole[-1] if len(whole) > 1 else 1
    rows = tensor.reshape(-1, tensor.shape[-1] if len(whole) > 1 else 1)
    first_row = part.index * len(rows) if part.axis == 0 else 0
    first_column = part.index * rows.shape[1] if part.axis == 1 else 0
    size = math.prod(whole)
    count, stride = (size, width) if size <= buckets else (buckets, STRIDE)
    sums, squares = np.zeros(count), 0.0
    columns = slice(first_column, first_column + rows.shape[1])
    # Laid out with so many columns, an element is as far from its bucket as from the beginning, in whole rounds.
    laid = rows.shape[1] + (stride - rows.shape[1]) % count
    together = max(1, PIECE // max(width, laid))
    for begin in range(0, len(rows), together):
        values = rows[begin : begin + together].astype(np.float64)
        squares += float(np.vdot(values, values))
        row = first_row + begin
        own = signs(name, row * width, len(values) * width).reshape(-1, width)
        rounds = np.zeros(-(-len(values) * laid // count) * count)
        spread = rounds[: len(values) * laid].reshape(-1, laid)
        np.multiply(values, own[:, columns], out=spread[:, : rows.shape[1]])
        sums += np.roll(rounds.reshape(-1, count).sum(0), first_column + stride * row)
    return Sketch(buckets=sums, squares=squares)


def projections(name: str, matrix: Array) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The signed sum of each row [R], and of each column [C], of a matrix [R, C]; summed in float64."""
    of_columns, of_rows = (signs(f"{name}/{axis}", 0, matrix.shape[axis]) for axis in (1, 0))
    rows, columns = np.empty(len(matrix)), np.zeros(matrix.shape[1])
    together = max(1, PIECE // matrix.shape[1])
    for first in range(0, len(matrix), together):
        values = matrix[first : first + together].astype(np.float64)
        rows[first : first + together] = values @ of_columns
        columns += of_rows[first : first + together] @ values
    return rows.astype(np.float32), columns.astype(np.float32)


def sizes(matrix: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """For each row [R], and each column [C], the power of two that is at most its norm; `NOTHING` of zeros."""
    rows, columns = np.empty(len(matrix)), np.zeros(matrix.shape[1])
    together = max(1, PIECE // matrix.shape[1])
    for first in range(0, len(matrix), together):
        squares = np.square(matrix[first : first + together], dtype=np.float64)
        rows[first : first + together] = squares.sum(1)
        columns += squares.sum(0)
    return _power(rows), _power(columns)


def _power(squares: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Of sums of squares; of what is not finite the largest."""
    norms = np.sqrt(squares)
    powers = np.frexp(np.where(np.isfinite(norms), norms, np.inf))[1] - 1
    powers = np.where(np.isfinite(norms), np.clip(powers, NOTHING + 1, -NOTHING - 1), -NOTHING - 1)
    found: npt.NDArray[np.int8] = np.where(norms == 0.0, NOTHING, powers).astype(np.int8)
    return found


def distance(one: Sketch, other: Sketch) -> float:
    """The estimated norm of the difference of two tensors of one name and shape; NaN if the sketches do not fit."""
    if one.buckets.shape != other.buckets.shape:
        return math.nan
    return float(np.linalg.norm(one.buckets - other.buckets))


def recorded(name: str, tensor: Array, buckets: int = BUCKETS, *, located: bool = False) -> dict[str, Array]:
    """What a run leaves of a tensor, as the tensors of a file: `sketched` reads them.

    `NAME#sketch` is float64 [1 + buckets]: the sum of the squares, then the buckets. With `located`, a matrix also
    leaves its projections `NAME#rows` and `NAME#columns`, float32, and the sizes of its rows and columns, int8.
    """
    found = sketch(name, tensor, buckets)
    left: dict[str, Array] = {f"{name}{SKETCH}": np.concatenate(([found.squares], found.buckets))}
    if located and tensor.ndim == 2:
        left[f"{name}{ROWS}"], left[f"{name}{COLUMNS}"] = projections(name, tensor)
        left[f"{name}{ROW_SIZES}"], left[f"{name}{COLUMN_SIZES}"] = sizes(tensor)
    return left


def sketched(left: Mapping[str, Array], name: str) -> Sketch | None:
    """The sketch of a tensor from what a run left; None if it left none."""
    found = left.get(f"{name}{SKETCH}")
    return None if found is None else Sketch(buckets=found[1:], squares=float(found[0]))
