"""Measurements against a standard: findings.

Takes numbers and limits, gives one finding per criterion, and has no default outcome: a number that was not measured is
INCONCLUSIVE, a failed run is ERROR, a number that is not finite FAILS.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.comparison.distance import root_mean_square
from harness.comparison.measurement import Comparison, Measurement, Place
from harness.standards import Criterion, Limit, Standard

# Relative. An error is the difference of two float64 numbers that agree in seven digits or more, so of their sixteen
# nine are left, and sums lose some; and absolute, for one that is smaller than any limit but 0.
ROUNDING, NOTHING = 1e-6, 1e-12


class Outcome(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One limit with the measured value.

    `value` is None if nothing was measured. `worst` is the place of the value furthest from what is allowed,
    `first_beyond` the first place at which a single value exceeds the limit.
    """

    limit: Limit
    outcome: Outcome
    value: float | None = None
    worst: Place | None = None
    first_beyond: Place | None = None
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One criterion's outcome with the measured numbers; `message` states where, how much and what is allowed."""

    standard: str
    criterion: str
    title: str
    outcome: Outcome
    judged: tuple[Judged, ...]
    message: str


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # the sum is beyond every float, the mean is not
        largest = max(map(abs, values))
        return largest * (math.fsum(value / largest for value in values) / len(values))


STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "first": lambda values: values[0],
    "mean": _mean,
    "rms": root_mean_square,
    "maximum": max,
    "minimum": min,
    "bias": lambda values: abs(_mean(values)),
}


def statistic(name: str, values: Sequence[float]) -> float:
    """A statistic in float64; the order of the values does not matter.

    If any value that it uses is not finite, the statistic is not finite: NaN, or the infinity if there is only one.
    """
    looked_at = values[:1] if name == "first" else values
    if bad := [value for value in looked_at if not math.isfinite(value)]:
        return float(bad[0]) if len(set(bad)) == 1 else math.nan
    return float(STATISTICS[name](looked_at))


def holds(value: float, limit: Limit) -> bool:
    """Whether a value keeps a limit. A value that is not finite never does."""
    if not math.isfinite(value):
        return False
    match limit.comparator:
        case "at_most":
            return value <= limit.value
        case "below":
            return value < limit.value
        case "at_least":
            return value >= limit.value


def judge(comparison: Comparison, standard: Standard) -> tuple[Finding, ...]:
    """One finding for each criterion of a standard, in its order."""
    return tuple(_judge_criterion(comparison, standard, criterion) for criterion in standard.criteria)


def restated(comparison: Comparison, standard: Standard, finding: Finding, values: Sequence[float | None]) -> Finding:
    """A finding with the numbers that another machine computed, if they differ only in their last digits.

    A float64 sum depends on the order in which a processor adds the values, so a number that is recomputed on another
    machine may differ in its last bits. A number that differs by more, or that changes an outcome, is not replaced.
    """
    criterion = next(one for one in standard.criteria if one.id == finding.criterion)
    judged = tuple(
        replace(one, value=value) if _same_number(one, value) else one
        for one, value in zip(finding.judged, values, strict=True)
    )
    message = _message(comparison, standard, criterion, finding.outcome, judged)
    return replace(finding, judged=judged, message=message)


def _same_number(judged: Judged, value: float | None) -> bool:
    if value is None or judged.value is None or not math.isfinite(value):
        return False
    close = math.isclose(value, judged.value, rel_tol=ROUNDING, abs_tol=NOTHING)
    return close and holds(value, judged.limit) == holds(judged.value, judged.limit)


def _judge_criterion(comparison: Comparison, standard: Standard, criterion: Criterion) -> Finding:
    judged = tuple(_judge_limit(comparison, limit) for limit in criterion.limits)
    outcome = _combine(criterion, [one.outcome for one in judged])
    return Finding(
        standard=standard.name,
        criterion=criterion.id,
        title=criterion.title,
        outcome=outcome,
        judged=judged,
        message=_message(comparison, standard, criterion, outcome, judged),
    )


def _combine(criterion: Criterion, outcomes: Sequence[Outcome]) -> Outcome:
    """Any one limit suffices; if none is met, ERROR comes before FAIL, and FAIL before INCONCLUSIVE."""
    if Outcome.PASS in outcomes:
        return Outcome.PASS
    if Outcome.FAIL in outcomes:
        return Outcome(criterion.unmet)
    return Outcome.ERROR if Outcome.ERROR in outcomes else Outcome.INCONCLUSIVE


def _judge_limit(comparison: Comparison, limit: Limit) -> Judged:
    if limit.measurement not in comparison:
        return Judged(limit=limit, outcome=Outcome.ERROR, explanation=f"nothing measures {limit.measurement!r}")
    measurement = comparison[limit.measurement]
    if not measurement.values or measurement.missing is not None:
        reason = measurement.broken or measurement.missing or "no values"
        outcome = Outcome.ERROR if measurement.broken else Outcome.INCONCLUSIVE
        return Judged(limit=limit, outcome=outcome, explanation=reason)
    value = statistic(limit.statistic, measurement.values)
    broken = measurement.broken
    outcome = Outcome.PASS if holds(value, limit) else Outcome.FAIL
    if broken is not None and (outcome is Outcome.PASS or not _exceeded_by_a_number(limit, measurement)):
        outcome = Outcome.ERROR  # the steps that were taken pass, and the others are missing
    return Judged(
        limit=limit,
        outcome=outcome,
        value=value,
        worst=_worst(limit, measurement),
        first_beyond=_first_beyond(limit, measurement) if outcome is not Outcome.PASS else None,
        explanation=broken or "",
    )


def _single(limit: Limit, value: float) -> float:
    return abs(value) if limit.statistic == "bias" else value


def _used_by(limit: Limit, measurement: Measurement) -> Iterable[tuple[Place, float]]:
    pairs = list(zip(measurement.places, measurement.values, strict=True))
    return pairs[:1] if limit.statistic == "first" else pairs


def _first_beyond(limit: Limit, measurement: Measurement) -> Place | None:
    places = (place for place, value in _used_by(limit, measurement) if not holds(_single(limit, value), limit))
    return next(places, None)


def _exceeded_by_a_number(limit: Limit, measurement: Measurement) -> bool:
    """Whether a taken step already exceeds a limit that holds for every single step."""
    if limit.statistic not in ("first", "maximum"):
        return False
    return any(not math.isnan(value) and not holds(value, limit) for _, value in _used_by(limit, measurement))


def _worst(limit: Limit, measurement: Measurement) -> Place:
    def badness(pair: tuple[Place, float]) -> float:
        value = _single(limit, pair[1])
        if math.isnan(value):
            return math.inf
        return -value if limit.comparator == "at_least" else value

    return max(_used_by(limit, measurement), key=badness)[0]


NAMED = 3  # places in a message
ALLOWED = {"at_most": "at most {:g} allowed", "below": "less than {:g} allowed", "at_least": "at least {:g} required"}


def share_of_allowed(judged: Judged) -> float | None:
    """Value over limit; None if the limit is a minimum, if it allows only 0, or if nothing was measured."""
    if judged.value is None or judged.limit.value == 0 or is_minimum(judged.limit):
        return None
    return judged.value / judged.limit.value


def is_minimum(limit: Limit) -> bool:
    """Whether more is better: for `at_least`, and for a negative limit, which requires at least that much decrease."""
    return limit.comparator == "at_least" or limit.value < 0


def closest(findings: Iterable[Finding]) -> tuple[float, Finding, Judged] | None:
    """The finding that uses most of its limit, or is furthest beyond it, and how much; None if no limit has a share."""
    shares = [
        (share if math.isfinite(share) else math.inf, finding, judged)
        for finding in findings
        for judged in finding.judged
        if (share := share_of_allowed(judged)) is not None
    ]
    return max(shares, key=lambda one: one[0], default=None)


def describe_place(place: Place) -> str:
    """A place as text: `step 17` or the name of a tensor or run."""
    return f"step {place}" if isinstance(place, int) else place


def _message(
    comparison: Comparison,
    standard: Standard,
    criterion: Criterion,
    outcome: Outcome,
    judged: Sequence[Judged],
) -> str:
    decisive = next((one for one in judged if one.outcome is outcome), judged[0])
    if decisive.value is None:
        return f"{criterion.title}: {decisive.explanation} ({standard.name})"
    limit = decisive.limit
    found = f"{STATISTIC_WORDS[limit.statistic]} {decisive.value:.3g}, {ALLOWED[limit.comparator].format(limit.value)}"
    summary = f"{criterion.title}: {found} ({standard.name})"
    if outcome is Outcome.PASS:
        return summary
    located = _located(comparison[limit.measurement], decisive)
    return "; ".join(part for part in (summary, located, decisive.explanation) if part)


def _located(measurement: Measurement, judged: Judged) -> str:
    """For steps, the first beyond the limit; for comparisons of equality, the first few places that differ; for tensors
    and runs, the worst."""
    if judged.first_beyond is None:
        return ""
    if isinstance(judged.first_beyond, int):
        sides = _sides(measurement, judged.first_beyond)
        part = measurement.within.get(judged.first_beyond)
        return f"first beyond the limit at {describe_place(judged.first_beyond)}{f', {part}' if part else ''}{sides}"
    if measurement.kind.differs:
        return f"differs: {_differing(measurement)}"
    if len(measurement.places) == 1 or judged.worst is None:
        return ""
    part = measurement.within.get(judged.worst)
    return f"worst: {judged.worst}{f', {part}' if part else ''}"


def _differing(measurement: Measurement) -> str:
    places = [place for place, value in zip(measurement.places, measurement.values, strict=True) if value != 0]
    names = [f"{one} ({part})" if (part := measurement.within.get(one)) else str(one) for one in places[:NAMED]]
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return ", ".join(names) + more


STATISTIC_WORDS = {
    "first": "step 1", "mean": "mean", "rms": "root mean square", "maximum": "largest", "minimum": "smallest",
    "bias": "bias",
}  # fmt: skip


def _sides(measurement: Measurement, place: Place) -> str:
    if not measurement.sides or measurement.between is None:
        return ""
    (a, b), (name_a, name_b) = measurement.sides[measurement.places.index(place)], measurement.between
    return f": {name_b} has {b:.9g}, {name_a} has {a:.9g}"
