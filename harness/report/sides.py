"""Whether each side repeats itself, how far the final parameters are apart, and the subject compared with the floor."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.comparison.measurement import Comparison, Measurement, Place
from harness.evidence.bundle import Bundle
from harness.evidence.judge import describe_place, statistic
from harness.report.charts import limits_on
from harness.report.criteria import Bar, used_of_allowed
from harness.report.words import Mark, count, exact, number

SAME = Mark(glyph="✓", word="identical bits", tone="pass")
DIFFER = Mark(glyph="✕", word="differ", tone="fail")
UNKNOWN = Mark(glyph="?", word="not measured", tone="inconclusive")
SHOWN_TENSORS = 8


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """What a side's second run must repeat: the measurement without its side, its title, and what is counted."""

    measurement: str
    what: str
    noun: str


@dataclass(frozen=True, kw_only=True)
class RepeatRow:
    """One number of one side in two fresh processes."""

    side: str
    what: str
    mark: Mark
    detail: str


@dataclass(frozen=True, kw_only=True)
class TensorRow:
    name: str
    relative: str
    maximum: str
    bar: Bar | None


@dataclass(frozen=True, kw_only=True)
class TensorTable:
    """Final parameters, worst first: `first` is shown, `rest` unfolds. `missing` states why there are none."""

    first: tuple[TensorRow, ...]
    rest: tuple[TensorRow, ...]
    summary: str
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class FloorRow:
    """The subject's error compared with that of the reference's perturbed repeats; not a limit."""

    what: str
    statistic: str
    subject: str
    floor: str
    ratio: str


def repeat_rows(bundle: Bundle, repeated: Sequence[Repeated]) -> tuple[RepeatRow, ...]:
    """Each side compared with itself, bit for bit."""
    return tuple(_repeat_row(bundle, side, one) for side in ("reference", "subject") for one in repeated)


def _repeat_row(bundle: Bundle, side: str, repeated: Repeated) -> RepeatRow:
    state, detail = _repeat(bundle.comparison[f"{side}.repeat.{repeated.measurement}"], repeated.noun)
    return RepeatRow(side=side, what=repeated.what, mark=state, detail=detail)


def _repeat(measured: Measurement, noun: str) -> tuple[Mark, str]:
    if not measured.values:
        return UNKNOWN, measured.broken or measured.missing or "no values"
    differing = [place for place, value in zip(measured.places, measured.values, strict=True) if value != 0]
    if not differing:
        return SAME, f"in {number(len(measured.values))} of {count(len(measured.values), noun)}"
    untaken = all(math.isnan(value) for value in measured.values if value != 0)
    where = f"from {describe_place(differing[0])} on one side was not taken" if untaken else ""
    detail = (
        where
        or f"in {number(len(differing))} of {count(len(measured.values), noun)}, first {_at(measured, differing[0])}"
    )
    return (UNKNOWN if untaken else DIFFER), "; ".join(filter(None, (detail, measured.broken)))


def _at(measured: Measurement, place: Place) -> str:
    if not measured.sides:
        return describe_place(place)
    a, b = measured.sides[measured.places.index(place)]
    return f"{describe_place(place)}: {exact(a)} and {exact(b)}"


def tensor_table(bundle: Bundle) -> TensorTable:
    """Relative difference of each final tensor, worst first; a value that is not finite is worse than any number."""
    relative, maximum = (bundle.comparison[f"train.parameters.{measure}"] for measure in ("relative", "maximum"))
    elements = dict(zip(maximum.places, maximum.values, strict=True))
    pairs = sorted(
        zip(relative.places, relative.values, strict=True), key=lambda pair: (-badness(pair[1]), str(pair[0]))
    )
    limits = limits_on(bundle, relative.name)
    limit = min((limit for _, limit in limits), key=lambda limit: limit.value, default=None)
    rows = tuple(
        TensorRow(
            name=str(name),
            relative=number(value),
            maximum=number(elements[name]) if name in elements else "not kept",
            bar=used_of_allowed(limit, value) if limit else None,
        )
        for name, value in pairs
    )
    equal = sum(value == 0 for value in relative.values)
    return TensorTable(
        first=rows[:SHOWN_TENSORS],
        rest=rows[SHOWN_TENSORS:],
        summary=f"{count(len(rows), 'tensor')}, {number(equal)} exactly equal.",
        missing=None if rows else relative.broken or relative.missing or "no tensors",
    )


def badness(value: float) -> float:
    """A sort key for errors: not-a-number is worse than any number."""
    return math.inf if math.isnan(value) else value


def floor_rows(bundle: Bundle) -> tuple[FloorRow, ...]:
    """Mean and maximum of the subject's relative error and of the floor; empty if no floor was measured."""
    return tuple(
        _floor_row(bundle.comparison, field, what, name, word)
        for field, what in (("loss", "Loss"), ("grad_norm", "Grad norm"))
        for name, word in (("mean", "mean"), ("maximum", "largest"))
        if bundle.comparison[f"floor.{field}.relative"].values
    )


def _floor_row(comparison: Comparison, field: str, what: str, name: str, word: str) -> FloorRow:
    subject = _statistic(name, comparison[f"train.{field}.relative"].values)
    floor = _statistic(name, comparison[f"floor.{field}.relative"].values)
    known = subject is not None and floor is not None and math.isfinite(subject) and math.isfinite(floor) and floor > 0
    return FloorRow(
        what=what,
        statistic=word,
        subject=number(subject),
        floor=number(floor),
        ratio=f"{subject / floor:.2g} ×" if known and subject is not None and floor is not None else "no ratio",
    )


def _statistic(name: str, values: Sequence[float]) -> float | None:
    return statistic(name, values) if values else None
