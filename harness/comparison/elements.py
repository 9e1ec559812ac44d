"""Elements that a norm does not show: the small ones, those that vanished, and values that repeat.

A gradient that was stored in half precision is right in its large elements, which make its norm, and zero in its small
ones. So the elements of each decade of magnitude are compared among themselves, and zeros are counted.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.cases.runs_of_a_case import ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE
from harness.comparison.catalogue import SIDES
from harness.comparison.distance import HALF_ULP
from harness.comparison.left import names_of
from harness.comparison.measurement import Measurement, Place, Tensors, why_broken, why_missing
from harness.runs.files import GRADIENT
from harness.runs.sketches import (
    BUCKETS_OF_A_DECADE,
    DECADE_COUNT,
    DECADES,
    LARGEST_DECADE,
    VALUES,
    decades,
    values_of,
)
from harness.runs.trace import Run

Array = npt.NDArray[Any]
OF_DECADES, OF_VALUES = (DECADE_COUNT, 1 + BUCKETS_OF_A_DECADE), (4,)  # shapes
FEWEST = 64  # elements of a decade that are compared
COUNTED = ("zeros", "denormals", "values")
NOT_RECORDED = "the elements of the gradients were not recorded"


def of_elements(runs: Mapping[str, Run], left: Mapping[str, Tensors]) -> Iterable[Measurement]:
    """`oracle.decades.SIDE` and `.ratio`, and `train.zeros.relative`, `train.denormals.relative` and
    `train.values.relative`, by tensor, of the gradients of the probes."""
    names = (ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE)
    made, sources = [runs.get(name) for name in names], [left.get(name, {}) for name in names]
    full = sorted(set().union(*(names_of(one, GRADIENT) for one in sources)))
    places = tuple(name.removeprefix(GRADIENT) for name in full)
    found = [_by_decade(name, sources) for name in full]
    missing = why_missing(*made) or (None if any(one is not None for one in found) else NOT_RECORDED)
    for number, part in enumerate((*SIDES, "ratio")):
        values = [math.nan if one is None else one[0][number] for one in found]
        worst: dict[Place, str] = {}
        if part == "ratio":
            worst |= {place: one[1] for place, one in zip(places, found, strict=True) if one}
        yield _measured(f"oracle.decades.{part}", places, values, missing, why_broken(*made), worst)
    counted = [_counts(name, sources[1:]) for name in full]
    missing = why_missing(*made[1:]) or (None if any(one is not None for one in counted) else NOT_RECORDED)
    for number, what in enumerate(COUNTED):
        values = [math.nan if one is None else one[number] for one in counted]
        yield _measured(f"train.{what}.relative", places, values, missing, why_broken(*made[1:]), {})


def _measured(
    name: str,
    places: tuple[Place, ...],
    values: Sequence[float],
    missing: str | None,
    broken: str | None,
    within: Mapping[Place, str],
) -> Measurement:
    return Measurement(
        name=name,
        places=places if missing is None else (),
        values=tuple(values) if missing is None else (),
        missing=missing,
        broken=broken,
        within=within,
    )


def _by_decade(name: str, sources: Sequence[Tensors]) -> tuple[tuple[float, float, float], str] | None:
    """The largest relative error of each side in a decade, and the largest ratio; and where that is. None if one of the
    three left nothing."""
    each = [made for one in sources if (made := _decades(name, one)) is not None]
    if len(each) != len(sources):
        return None
    exact, *sides = each
    kept = exact[:, 0] >= FEWEST
    if not kept.any():
        return (0.0, 0.0, 0.0), "no decade has enough elements"
    sizes = np.linalg.norm(exact[kept, 1:], axis=1)
    reference, subject = (np.linalg.norm((side - exact)[kept, 1:], axis=1) / sizes for side in sides)
    ratios = subject / np.maximum(reference, HALF_ULP)
    worst = int(np.argmax(np.nan_to_num(ratios, nan=math.inf)))
    power = LARGEST_DECADE - int(np.flatnonzero(kept)[worst])
    return (float(reference.max()), float(subject.max()), float(ratios[worst])), f"elements near 1e{power}"


def _decades(name: str, left: Tensors) -> Array | None:
    if (recorded := left.get(f"{name}{DECADES}")) is not None:
        return recorded if recorded.shape == OF_DECADES else None
    return decades(name, left[name]) if name in left else None


def _counts(name: str, sides: Sequence[Tensors]) -> tuple[float, ...] | None:
    each = [made for one in sides if (made := _values(name, one)) is not None]
    if len(each) != len(sides):
        return None
    (*reference, size), (*subject, _) = (one.tolist() for one in each)
    return tuple(abs(b - a) / size if size else math.nan for a, b in zip(reference, subject, strict=True))


def _values(name: str, left: Tensors) -> Array | None:
    if (recorded := left.get(f"{name}{VALUES}")) is not None:
        return recorded if recorded.shape == OF_VALUES else None
    return values_of(left[name]) if name in left else None
