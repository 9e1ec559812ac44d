"""The steps after the first: what was left of the gradients and updates of each, compared with the exact ones.

At every step, the part of each gradient and of each update along a fixed direction is known, one number. A part of an
error is as large as the error, times a random factor, so the parts of all tensors are taken together, each in errors of
the reference in that tensor. One error of the reference is the root mean square over a step and those around it: a
single one may be small by chance.

Of examined steps, and of the whole run, each tensor is compared by its sketch, like the first gradient.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT
from harness.comparison.catalogue import SIDES
from harness.comparison.distance import HALF_ULP, error_ratio
from harness.comparison.left import difference, names_of
from harness.comparison.measurement import Measurement, Place, Tensors, why_broken, why_missing
from harness.runs.trace import Run
from harness.runs.watched import CHANGED, MOMENTS, PARAMETERS, gradients_at, updates_at

Floats = npt.NDArray[np.float64]
AROUND = 20  # steps before and after a step, in one error of the reference
SUSPECT = 2.0  # the ratio of errors from which the tensor that differs most is named; no standard allows less
NOT_WATCHED = "the case examines no steps"
NO_MOMENTS = "a runner does not show its moments"
# What is compared, the series that shows it, and its prefix at an examined step.
KINDS: tuple[tuple[str, str, Callable[[int], str]], ...] = (
    ("gradients", MOMENTS, gradients_at),
    ("updates", PARAMETERS, updates_at),
)


def of_steps(
    runs: Mapping[str, Run], left: Mapping[str, Tensors], *, examined: Sequence[int], beta: float, exact: bool
) -> Iterable[Measurement]:
    """`train.step_WHAT.relative` and `oracle.step_WHAT.SIDE` and `.ratio`, by step; `train.examined_WHAT.relative` and
    `oracle.examined_WHAT.SIDE` and `.ratio`, by step and tensor; WHAT is `gradients` and `updates`. And
    `train.change.relative`, `oracle.change.SIDE` and `.ratio`, by tensor.

    Args:
        examined: the steps that the case examines.
        beta: how much of a first moment stays in a step.
        exact: whether the oracle takes steps.
    """
    names = (ORACLE, REFERENCE, SUBJECT)
    made = [runs.get(name) for name in names]
    tensors = [left.get(name, {}) for name in names]
    oracle_missing = None if exact else "the oracle took no steps"
    for what, series, at in KINDS:
        stay = beta if series == MOMENTS else 1.0
        parts = [_parts(one, series, stay) for one in tensors]
        missing = _why(made[1:], parts[1:], examined, what)
        scale = _scale(parts[0] if exact and parts[0] else parts[1])
        yield from _sides_by_step(what, parts, scale, made, missing)
        yield from _exact_by_step(
            what, parts, scale, made, missing or oracle_missing or _why(made[:1], parts[:1], examined, what)
        )
        yield from _by_tensor(
            f"examined_{what}",
            [(f"step {step}, ", at(step)) for step in examined],
            tensors,
            made,
            missing,
            oracle_missing,
        )
    absent = None if examined else NOT_WATCHED
    yield from _by_tensor("change", [("", CHANGED)], tensors, made, absent, oracle_missing)


def _why(
    made: Sequence[Run | None], parts: Sequence[Mapping[str, Floats]], examined: Sequence[int], what: str
) -> str | None:
    if not examined:
        return NOT_WATCHED
    return why_missing(*made) or (None if all(parts) else NO_MOMENTS if what == "gradients" else "nothing was recorded")


def _parts(left: Tensors, series: str, stay: float) -> dict[str, Floats]:
    """Of each tensor, its part at each step, from the first on."""
    scale = 1.0 / (1.0 - stay) if stay < 1.0 else 1.0
    return {
        name.removeprefix(series): scale * (values[1:].astype(np.float64) - stay * values[:-1])
        for name, values in left.items()
        if name.startswith(series) and values.ndim == 1
    }


def _scale(parts: Mapping[str, Floats]) -> dict[str, float]:
    """The root mean square of a tensor's parts over all steps."""
    return {
        name: float(np.sqrt(np.mean(np.square(values)))) if len(values) else math.nan for name, values in parts.items()
    }


def _apart(one: Mapping[str, Floats], other: Mapping[str, Floats], scale: Mapping[str, float]) -> dict[str, Floats]:
    """Of each tensor, by step, how far apart two runs are in units of its scale; NaN where one has no such tensor or
    step."""
    steps = max((len(values) for values in (*one.values(), *other.values())), default=0)
    found = {}
    for name in sorted({*one, *other}):
        a, b = (_to(steps, side.get(name)) for side in (one, other))
        unit = scale.get(name, math.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name] = np.where(a == b, 0.0, np.abs(b - a) / unit)
    return found


def _to(steps: int, values: Floats | None) -> Floats:
    whole = np.full(steps, math.nan)
    if values is not None:
        whole[: len(values)] = values
    return whole


def _together(apart: Mapping[str, Floats]) -> Floats:
    """By step, the root mean square over all tensors."""
    together: Floats = np.sqrt(np.mean(np.square(np.array(list(apart.values()))), axis=0))
    return together


def _around(errors: Floats) -> Floats:
    """The root mean square over a step and those around it, of what is a number."""
    known = np.isfinite(errors)
    squares = np.concatenate(([0.0], np.cumsum(np.where(known, np.square(errors), 0.0))))
    counts = np.concatenate(([0], np.cumsum(known)))
    steps = np.arange(len(errors))
    first, end = np.maximum(steps - AROUND, 0), np.minimum(steps + AROUND + 1, len(errors))
    with np.errstate(invalid="ignore"):
        mean: Floats = np.sqrt((squares[end] - squares[first]) / (counts[end] - counts[first]))
    return mean


def _sides_by_step(
    what: str,
    parts: Sequence[Mapping[str, Floats]],
    scale: Mapping[str, float],
    made: Sequence[Run | None],
    missing: str | None,
) -> Iterable[Measurement]:
    apart = _apart(parts[1], parts[2], scale) if missing is None else {}
    errors = _together(apart) if apart else np.empty(0)
    yield Measurement(
        name=f"train.step_{what}.relative",
        places=tuple(range(1, len(errors) + 1)),
        values=tuple(errors.tolist()),
        missing=missing,
        broken=why_broken(*made[1:]),
        within=_worst(apart, range(len(errors))),
    )


def _exact_by_step(
    what: str,
    parts: Sequence[Mapping[str, Floats]],
    scale: Mapping[str, float],
    made: Sequence[Run | None],
    missing: str | None,
) -> Iterable[Measurement]:
    apart = [_apart(parts[0], side, scale) if missing is None else {} for side in parts[1:]]
    errors = [_together(one) if one else np.empty(0) for one in apart]
    # Of each tensor in errors of the reference in that tensor, so that one with coarse roundings hides no other.
    units = {name: np.maximum(_around(values), HALF_ULP) for name, values in apart[0].items()}
    scaled = {name: values / units[name] for name, values in apart[1].items()}
    ratios = _together(scaled).tolist() if scaled else []
    suspects = [step for step, ratio in enumerate(ratios) if not ratio <= SUSPECT]
    for part, values in zip((*SIDES, "ratio"), (*(one.tolist() for one in errors), ratios), strict=True):
        yield Measurement(
            name=f"oracle.step_{what}.{part}",
            places=tuple(range(1, len(values) + 1)),
            values=tuple(values),
            missing=missing,
            broken=why_broken(*made),
            within=_worst(scaled, suspects) if part == "ratio" else {},
        )


def _worst(apart: Mapping[str, Floats], steps: Iterable[int]) -> dict[Place, str]:
    """At steps, counted from 0, the tensor that is furthest apart."""
    if not apart:
        return {}
    names, chosen = list(apart), list(steps)
    worst = np.argmax(np.nan_to_num(np.array([apart[name] for name in names]), nan=math.inf), axis=0)
    return {step + 1: names[worst[step]] for step in chosen}


def _by_tensor(
    what: str,
    prefixes: Sequence[tuple[str, str]],
    tensors: Sequence[Tensors],
    made: Sequence[Run | None],
    missing: str | None,
    oracle_missing: str | None,
) -> Iterable[Measurement]:
    """Tensors whose sketches were left under some prefixes, each with what its places begin with."""
    exact, reference, subject = tensors
    full = {
        f"{place}{name.removeprefix(prefix)}": name
        for place, prefix in prefixes
        for name in sorted(set().union(*(names_of(one, prefix) for one in tensors)))
    }
    between = tuple(difference(name, reference, subject)[0] for name in full.values())
    absent = missing or why_missing(*made[1:]) or (None if full else "nothing was recorded")
    yield _measured(f"train.{what}.relative", tuple(full), between, absent, why_broken(*made[1:]))
    absent = absent or oracle_missing or why_missing(made[0])
    errors = [tuple(difference(name, exact, side)[0] for name in full.values()) for side in (reference, subject)]
    ratios = tuple(map(error_ratio, *errors))
    for part, values in zip((*SIDES, "ratio"), (*errors, ratios), strict=True):
        yield _measured(f"oracle.{what}.{part}", tuple(full), values, absent, why_broken(*made))


def _measured(
    name: str, places: tuple[Place, ...], values: tuple[float, ...], missing: str | None, broken: str | None
) -> Measurement:
    return Measurement(
        name=name,
        places=places if missing is None else (),
        values=values if missing is None else (),
        missing=missing,
        broken=broken,
    )
