"""Errors that all point one way: the error of a tensor along the initial weights, and that of its length.

The error of a tensor as a whole holds the roundings of all its elements. Along a direction that does not depend on
them, they cancel: of n elements the root of n remains. What is left is what they have in common, such as a weight decay
that is a little too large, which is a multiple of the weights, or a gradient that was scaled.

An error along the weights is stated in units of what roundings of the reference's size leave there if they are
independent: its error as a whole, divided by the root of the number of elements.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from harness.cases.runs_of_a_case import ORACLE, ORACLE_PROBE, REFERENCE, REFERENCE_PROBE, SUBJECT, SUBJECT_PROBE
from harness.comparison.catalogue import SIDES
from harness.comparison.distance import HALF_ULP
from harness.comparison.left import absolute_difference, names_of, squares_of
from harness.comparison.measurement import Measurement, Tensors, why_broken, why_missing
from harness.runs.files import GRADIENT, UPDATED
from harness.runs.sketches import ALONG, along
from harness.runs.trace import Run
from harness.runs.watched import CHANGED

Array = npt.NDArray[Any]
OF_ALONG = (3,)  # shape
PROBES, TRAINED = (ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE), (ORACLE, REFERENCE, SUBJECT)
SOURCES = (("gradients", GRADIENT, PROBES), ("updates", UPDATED, PROBES), ("change", CHANGED, TRAINED))


def coherent(
    runs: Mapping[str, Run], left: Mapping[str, Tensors], weights: Tensors, *, why_no_change: str | None
) -> Iterable[Measurement]:
    """`oracle.WHAT.along.SIDE` and `oracle.WHAT.length.SIDE`, by tensor; WHAT is `gradients` and `updates` of the
    probes, and `change` of the whole run.

    Args:
        left: what each run left of its tensors, or of its steps.
        weights: the initial weights; none if the evidence is sketches.
        why_no_change: why the change of the whole run has no exact values.
    """
    for what, prefix, names in SOURCES:
        sources, made = [left.get(name, {}) for name in names], [runs.get(name) for name in names]
        full = sorted(set().union(*(names_of(one, prefix) for one in sources)))
        found = [_of_tensor(name, prefix, sources, weights) for name in full]
        without = "no part along the weights was recorded" if not any(one is not None for one in found) else None
        missing = (why_no_change if what == "change" else None) or why_missing(*made) or without
        for side, name in enumerate(SIDES):
            for which, measure in enumerate(("along", "length")):
                values = tuple(math.nan if one is None else one[side][which] for one in found)
                yield Measurement(
                    name=f"oracle.{what}.{measure}.{name}",
                    places=tuple(one.removeprefix(prefix) for one in full) if missing is None else (),
                    values=values if missing is None else (),
                    missing=missing,
                    broken=why_broken(*made),
                )


def _of_tensor(
    name: str, prefix: str, sources: Sequence[Tensors], weights: Tensors
) -> tuple[tuple[float, float], ...] | None:
    """Of each side, the error along the weights and that of the length; None if one of the three left nothing."""
    initial = weights.get(name.removeprefix(prefix))
    start = initial if prefix == UPDATED else None
    parts = [part for one in sources if (part := _along(name, one, initial, start)) is not None]
    squares = [found for one in sources if (found := squares_of(name, one, start)) is not None]
    if not len(parts) == len(squares) == len(sources):
        return None
    (exact, *others), (length, *lengths) = parts, map(math.sqrt, squares)
    error = max(absolute_difference(name, sources[0], sources[1]), HALF_ULP * length)
    unit = error * math.sqrt(exact[1] / exact[2])
    return tuple(
        (_quotient(abs(part[0] - exact[0]), unit), _quotient(abs(other - length), length))
        for part, other in zip(others, lengths, strict=True)
    )


def _quotient(value: float, unit: float) -> float:
    return 0.0 if value == 0.0 else value / unit if unit else math.inf


def _along(name: str, left: Tensors, initial: Array | None, start: Array | None) -> Array | None:
    if (recorded := left.get(f"{name}{ALONG}")) is not None:
        return recorded if recorded.shape == OF_ALONG and recorded[2] > 0 else None
    if name not in left or initial is None or left[name].shape != initial.shape:
        return None
    return along(left[name], initial, start)
