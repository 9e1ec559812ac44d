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
ALONG, DECADES, VALUES = "#along", "#decades", "#values"
ROW_SIZES, COLUMN_SIZES = "#row-sizes", "#column-sizes"
NOTHING = -128  # the size of a row or column of zeros
LARGEST_DECADE, DECADE_COUNT = 1, 14  # the decades of magnitude 10, 1, 0.1, ... 1e-12 and what is smaller
BUCKETS_OF_A_DECADE = 32
LOOKED_AT = 1 << 20  # elements among which different values are counted
LEAST_NORMAL = 2.0**-126
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

    def combined(self, factor: float, other: Self, other_factor: float) -> "Sketch":
        """The sketch of `factor` times this tensor plus `other_factor` times another; its norm is an estimate."""
        buckets = factor * self.buckets + other_factor * other.buckets
        return Sketch(buckets=buckets, squares=float(np.vdot(buckets, buckets)))

    def __add__(self, other: Self) -> "Sketch":
        """The sketch of a whole from those of parts that have no element in common."""
        return Sketch(buckets=self.buckets + other.buckets, squares=self.squares + other.squares)


def sketch(
    name: str,
    tensor: Array,
    buckets: int = BUCKETS,
    shape: tuple[int, ...] | None = None,
    part: Part = WHOLE,
    start: Array | None = None,
) -> Sketch:
    """The sketch of a tensor, or a part's share of it. A tensor of more axes is a matrix of its last axis' rows.

    Args:
        name: the name of the tensor, which decides the signs.
        tensor: the whole, or the part of it that is at hand.
        buckets: the most that the sketch has.
        shape: of the whole, if `tensor` is a part.
        part: which part.
        start: what is subtracted first, in float64: of a change, the tensor before it.
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
        if start is not None:
            values -= start.reshape(rows.shape)[begin : begin + together]
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


class Directions:
    """One fixed direction for each tensor: the product of a sign for each row and one for each column. The part of a
    tensor along it is a single number, so that it can be recorded at every step."""

    def __init__(self) -> None:
        self._signs: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}

    def along(self, name: str, tensor: Array) -> float:
        """The sum of the elements of a tensor, each times its sign, in float64."""
        matrix = tensor.reshape(len(tensor), -1)
        rows, columns = self._signs.get(name) or self._signs.setdefault(name, self._drawn(name, matrix.shape))
        total, together = 0.0, max(1, PIECE // matrix.shape[1])
        for first in range(0, len(matrix), together):
            values = matrix[first : first + together].astype(np.float64)
            total += float(rows[first : first + together] @ (values @ columns))
        return total

    @staticmethod
    def _drawn(name: str, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return signs(f"{name}/each step/0", 0, shape[0]), signs(f"{name}/each step/1", 0, shape[1])


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


def inner(one: Array, other: Array, start: Array | None = None) -> float:
    """The sum of the products of the elements of two tensors, in float64; of the first, `start` is subtracted."""
    first, second, before = (None if each is None else each.reshape(-1) for each in (one, other, start))
    assert first is not None and second is not None, "both are given"
    total = 0.0
    for begin in range(0, len(first), PIECE):
        values = first[begin : begin + PIECE].astype(np.float64)
        if before is not None:
            values -= before[begin : begin + PIECE]
        total += float(values @ second[begin : begin + PIECE].astype(np.float64))
    return total


def along(tensor: Array, weights: Array, start: Array | None = None) -> npt.NDArray[np.float64]:
    """The part of a tensor, or of its change from `start`, along weights: the sum of the products, that of the weights'
    squares, and the number of elements."""
    return np.array([inner(tensor, weights, start), inner(weights, weights), float(weights.size)])


def decades(name: str, tensor: Array) -> npt.NDArray[np.float64]:
    """The elements of each decade of magnitude by themselves, float64 [decades, 1 + buckets]: how many there are, then
    their sketch. An element between two decades belongs to both, in shares that add up to one, so that a rounding error
    moves it a little and never whole. Zeros belong to none."""
    flat, drawn = tensor.reshape(-1), np.zeros(DECADE_COUNT * (1 + BUCKETS_OF_A_DECADE))
    for begin in range(0, len(flat), PIECE):
        values = flat[begin : begin + PIECE].astype(np.float64)
        there = np.flatnonzero(np.isfinite(values) & (values != 0.0))
        signed = values[there] * signs(name, begin, len(values))[there]
        place = np.clip(LARGEST_DECADE - np.log10(np.abs(values[there])), 0.0, DECADE_COUNT - 1.0)
        lower = np.minimum(place.astype(np.int64), DECADE_COUNT - 2)
        share = place - lower
        bucket = 1 + (begin + there) % BUCKETS_OF_A_DECADE
        for decade, part in ((lower, 1.0 - share), (lower + 1, share)):
            row = decade * (1 + BUCKETS_OF_A_DECADE)
            drawn += np.bincount(row + bucket, part * signed, len(drawn)) + np.bincount(row, part, len(drawn))
    return drawn.reshape(DECADE_COUNT, -1)


def values_of(tensor: Array) -> npt.NDArray[np.float64]:
    """How many elements are zero, how many are too small to be normal numbers of float32, and how many different values
    there are among the first 2^20, of how many elements, float64 [4]."""
    flat = tensor.reshape(-1)
    small = np.abs(flat) < LEAST_NORMAL
    zeros = int(np.count_nonzero(flat == 0.0))
    looked_at = flat[:LOOKED_AT]
    return np.array(
        [zeros, int(np.count_nonzero(small)) - zeros, len(np.unique(looked_at)), len(looked_at)], np.float64
    )


def recorded(
    name: str,
    tensor: Array,
    buckets: int = BUCKETS,
    *,
    located: bool = False,
    start: Array | None = None,
    weights: Array | None = None,
) -> dict[str, Array]:
    """What a run leaves of a tensor, or of its change from `start`, as the tensors of a file: `sketched` reads them.

    `NAME#sketch` is float64 [1 + buckets]: the sum of the squares, then the buckets. With `located`, a matrix also
    leaves its projections `NAME#rows` and `NAME#columns`, float32, and the sizes of its rows and columns, int8; and any
    tensor what `decades` and `values_of` give, as `NAME#decades` and `NAME#values`. With
    `weights`, `NAME#along` is what `along` gives, float64 [3].
    """
    left = as_left(name, sketch(name, tensor, buckets, start=start))
    if located and tensor.ndim == 2:
        left[f"{name}{ROWS}"], left[f"{name}{COLUMNS}"] = projections(name, tensor)
        left[f"{name}{ROW_SIZES}"], left[f"{name}{COLUMN_SIZES}"] = sizes(tensor)
    if located:
        left[f"{name}{DECADES}"], left[f"{name}{VALUES}"] = decades(name, tensor), values_of(tensor)
    if weights is not None:
        left[f"{name}{ALONG}"] = along(tensor, weights, start)
    return left


def as_left(name: str, found: Sketch) -> dict[str, Array]:
    """A sketch as a tensor of a file."""
    return {f"{name}{SKETCH}": np.concatenate(([found.squares], found.buckets))}


def sketched(left: Mapping[str, Array], name: str) -> Sketch | None:
    """The sketch of a tensor from what a run left; None if it left none."""
    found = left.get(f"{name}{SKETCH}")
    return None if found is None else Sketch(buckets=found[1:], squares=float(found[0]))
