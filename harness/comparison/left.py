"""What runs left of a tensor, compared: the tensor itself, or its sketch.

Both give the same number, the norm of the difference over the norm of the first; a sketch estimates it within the
deviation that `harness.runs.sketches` states.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.distance import tensor_difference
from harness.runs.files import UPDATED
from harness.runs.sketches import SKETCH, distance, sketched

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


def names_of(left: Tensors, prefix: str = "") -> set[str]:
    """The names of the tensors of which something was left, with their prefix."""
    names = {name.removesuffix(SKETCH) for name in left}
    return {name for name in names if name.startswith(prefix) and "#" not in name}


def has_sketches(left: Tensors) -> bool:
    """Whether sketches were left in place of tensors."""
    return any(name.endswith(SKETCH) for name in left)


def difference(name: str, exact: Tensors, found: Tensors) -> tuple[float, float]:
    """The relative difference of a tensor, and its largest element as in `tensor_difference`; NaN if one of both was
    not left. The largest element of what was sketched is not known: NaN."""
    a, b = sketched(exact, name), sketched(found, name)
    if a is not None and b is not None:
        between = distance(a, b)
        if a.norm == 0.0:
            return (0.0 if between == 0.0 else between * math.inf), math.nan
        return between / a.norm, math.nan
    if name not in exact or name not in found:
        return math.nan, math.nan
    return tensor_difference(exact[name], found[name])


def change_difference(name: str, exact: Tensors, found: Tensors, weights: Tensors | None) -> float:
    """The relative difference of the change of a parameter from its initial value in `weights`.

    Of a change, a sketch is left as it is; where the parameter itself was left, its initial value is subtracted.
    """
    if f"{name}{SKETCH}" in exact:
        return difference(name, exact, found)[0]
    start = (weights or {}).get(name.removeprefix(UPDATED))
    if name not in exact or name not in found or start is None:
        return math.nan
    a, b = exact[name].astype(np.float64), found[name].astype(np.float64)
    if not start.shape == a.shape == b.shape:
        return math.nan
    return tensor_difference(a - start, b - start)[0]


def absolute_difference(name: str, exact: Tensors, found: Tensors) -> float:
    """The norm of the difference of a tensor; NaN as in `difference`."""
    a, b = sketched(exact, name), sketched(found, name)
    if a is not None and b is not None:
        return distance(a, b)
    if name not in exact or name not in found or exact[name].shape != found[name].shape:
        return math.nan
    return float(np.linalg.norm(found[name].astype(np.float64) - exact[name]))


def squares_of(name: str, left: Tensors, start: Array | None = None) -> float | None:
    """The sum of the squares of a tensor, or of its change from `start`; of what was sketched, as that was recorded.
    None if nothing was left."""
    if (found := sketched(left, name)) is not None:
        return found.squares
    if name not in left or (start is not None and start.shape != left[name].shape):
        return None
    whole = left[name].astype(np.float64)
    return float(np.square(whole if start is None else whole - start).sum())


def norm_of(left: Tensors, prefix: str) -> float | None:
    """The norm of all tensors with a prefix together; None if there are none."""
    names = sorted(names_of(left, prefix))
    return math.sqrt(math.fsum(squares_of(name, left) or 0.0 for name in names)) if names else None
