"""The largest error of a single line of a matrix, a row or a column, in units of the size of that line.

A tensor is compared as a whole by the norm of its error. One wrong row among 150,000 hides in it among the roundings of
the others, the more the coarser they are. Relative to its own size it does not: each row of a correct side is off by
about as much as any other, so of two correct sides the furthest row is off by about the same.

The error of a line is its norm, or, of what was sketched, its part of a projection, which has that size and a random
sign. Where the sizes of a line on both sides are not within a factor of two, their difference is an error that no sign
hides.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.runs.sketches import COLUMN_SIZES, COLUMNS, NOTHING, ROW_SIZES, ROWS, sizes

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Tensors = Mapping[str, Array]
AXES = ((ROWS, ROW_SIZES), (COLUMNS, COLUMN_SIZES))
MIDDLE = 0.5  # of a size, as a power of two


def is_matrix(name: str, left: Tensors) -> bool:
    """Whether a tensor of which something was left has rows and columns."""
    return f"{name}{ROWS}" in left or (name in left and left[name].ndim == 2)


def line_errors(name: str, exact: Tensors, found: Tensors) -> tuple[Floats, Floats] | None:
    """For each row, and each column, its error in units of its exact size; infinite where that is zero and there is an
    error, and not a number where a number is not. None if one side left no matrix, or another shape."""
    both = [_of_axis(axis, name, exact, found) for axis in (0, 1)]
    rows, columns = both
    return None if rows is None or columns is None else (rows, columns)


def _of_axis(axis: int, name: str, exact: Tensors, found: Tensors) -> Floats | None:
    error = absolute_error(axis, name, exact, found)
    size, other = (_sizes(axis, name, left) for left in (exact, found))
    if error is None or size is None or other is None or not error.shape == size.shape == other.shape:
        return None
    a, b = (np.where(one == NOTHING, 0.0, np.exp2(one + MIDDLE)) for one in (size, other))
    apart = np.where(np.abs(size - other) > 1, np.abs(a - b), 0.0)
    largest = np.maximum(error, apart)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative: Floats = np.where((a == 0.0) & (largest == 0.0), 0.0, largest / a)
    return relative


def absolute_error(axis: int, name: str, exact: Tensors, found: Tensors) -> Floats | None:
    """How far off each row (axis 0) or column is: its norm, or its part of a projection. None as in `line_errors`."""
    projection = f"{name}{AXES[axis][0]}"
    if projection in exact and projection in found:
        a, b = (left[projection].astype(np.float64) for left in (exact, found))
        return np.abs(a - b) if a.shape == b.shape else None
    if name not in exact or name not in found:
        return None
    whole, other = exact[name], found[name]
    if whole.ndim != 2 or whole.shape != other.shape:
        return None
    errors: Floats = np.linalg.norm(whole.astype(np.float64) - other, axis=1 - axis)
    return errors


def _sizes(axis: int, name: str, left: Tensors) -> npt.NDArray[np.int64] | None:
    stated = left.get(f"{name}{AXES[axis][1]}")
    if stated is None:
        if name not in left or left[name].ndim != 2:
            return None
        stated = sizes(left[name])[axis]
    return stated.astype(np.int64)
