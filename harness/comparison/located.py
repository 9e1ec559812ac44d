"""Which rows, columns, heads or tokens of a matrix are wrong: from its projections, or from the matrix itself.

A row is wrong if the subject is further off the exact values there than a correct side would be: further than the
reference in that row, than in its rows together, and than in a row of that size, each times `FACTOR`. The wrong rows
are named if they are at most half of all and hold at least half of the squared difference. Otherwise the matrix is
wrong as a whole, or in places that cannot be told from the rounding of large rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.lines import absolute_error, line_errors
from harness.runs.sketches import COLUMNS, ROWS

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
# A projection adds errors with random signs, so a correct row may be a few times as far off as the reference is. Of
# 150,000 rows, the furthest of a normal distribution is some 5 standard deviations off.
FACTOR = 16.0
NAMED = 3  # ranges in a sentence
TOKENS = ("embed_tokens.weight", "lm_head.weight")
# Which axis of a projection of attention is made of heads, and of which.
HEADS = {
    "q_proj.weight": (0, "query head"),
    "k_proj.weight": (0, "key head"),
    "v_proj.weight": (0, "value head"),
    "o_proj.weight": (1, "query head"),
}


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """The wrong indices of one axis, 0 for rows, and how many the axis has."""

    axis: int
    indices: tuple[int, ...]
    size: int

    @property
    def share(self) -> float:
        return len(self.indices) / self.size


def located(name: str, exact: Tensors, reference: Tensors, subject: Tensors, head_dim: int | None = None) -> str | None:
    """Where a matrix differs, as text: `query head 3`, `token 17`, `rows 5 to 9`. None if it is no matrix, if nothing
    in particular differs, or if not enough was left to tell.

    Args:
        name: of the tensor in all three.
        head_dim: rows of a head in the projections of attention; None if they have no heads.
    """
    found = [wrong for wrong in _wrong(name, exact, reference, subject) if 0 < wrong.share <= 0.5]
    if not found:
        return None
    return _described(name, min(found, key=lambda wrong: wrong.share), head_dim)


def located_lines(
    name: str, exact: Tensors, reference: Tensors, subject: Tensors, beyond: float, head_dim: int | None = None
) -> str | None:
    """The rows or columns whose error relative to their size is more than so many times the largest of the reference;
    None as in `located`."""
    own, its = line_errors(name, exact, reference), line_errors(name, exact, subject)
    if own is None or its is None:
        return None
    largest = max(float(one.max(initial=0.0)) for one in own)
    found = [
        Wrong(axis=axis, indices=tuple(map(int, np.flatnonzero(~(one <= beyond * largest)))), size=len(one))
        for axis, one in enumerate(its)
    ]
    named = [wrong for wrong in found if wrong.size and 0 < wrong.share <= 0.5]
    return _described(name, min(named, key=lambda wrong: wrong.share), head_dim) if named else None


def _wrong(name: str, exact: Tensors, reference: Tensors, subject: Tensors) -> Iterator[Wrong]:
    for axis in (0, 1):
        errors = [absolute_error(axis, name, exact, side) for side in (reference, subject)]
        own, its = errors
        if own is None or its is None or not len(own):
            continue
        size = _size(axis, name, exact)
        usual, whole = _rms(own), _rms(size)
        of_its_size = size * (usual / whole if whole else 0.0)
        allowed = FACTOR * np.maximum(np.maximum(own, usual), of_its_size)
        beyond = ~(its <= allowed)  # not a number is wrong too
        if np.square(its[~beyond]).sum() > np.square(its[beyond]).sum():
            continue
        yield Wrong(axis=axis, indices=tuple(map(int, np.flatnonzero(beyond))), size=len(its))


def _rms(values: npt.NDArray[np.float64]) -> float:
    return math.sqrt(float(np.square(values).mean()))


def _size(axis: int, name: str, of: Tensors) -> npt.NDArray[np.float64]:
    """The size of each row or column, measured as `absolute_error` measures the error."""
    projection = f"{name}{(ROWS, COLUMNS)[axis]}"
    if projection in of:
        return np.abs(of[projection].astype(np.float64))
    sizes: npt.NDArray[np.float64] = np.linalg.norm(of[name].astype(np.float64), axis=1 - axis)
    return sizes


def _described(name: str, wrong: Wrong, head_dim: int | None) -> str:
    axis, kind = next((of for end, of in HEADS.items() if name.endswith(end)), (None, ""))
    if head_dim and axis == wrong.axis:
        heads = sorted({index // head_dim for index in wrong.indices})
        # of a wrong head most is wrong; single rows are not a head
        if len(wrong.indices) > len(heads) * head_dim / 2 and len(heads) < wrong.size // head_dim:
            return _listed(kind, heads)
    if wrong.axis == 0 and name.endswith(TOKENS):
        return _listed("token", wrong.indices)
    return _listed(("row", "column")[wrong.axis], wrong.indices)


def _listed(word: str, numbers: Sequence[int]) -> str:
    """Numbers as ranges, the first few of them."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = [str(begin) if begin == end else f"{begin} to {end}" for begin, end in ranges[:NAMED]]
    more = sum(end - begin + 1 for begin, end in ranges[NAMED:])
    *first, last = [*shown, f"{more} more"] if more else shown
    return f"{word}{'s' if len(numbers) > 1 else ''} {' and '.join(filter(None, (', '.join(first), last)))}"
