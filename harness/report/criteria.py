"""Every criterion, also those that pass, with its measured number, its limit, its reason and its source."""

import math
from dataclasses import dataclass

from harness.comparison.measurement import Comparison
from harness.evidence.judge import ALLOWED, STATISTIC_WORDS, Finding, Judged, Outcome, describe_place, holds, is_minimum
from harness.report.words import Mark, exact, mark, number
from harness.standards import Limit


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The used share of a limit: `width` in per cent of the bar, which ends at the limit, and the same as `text`.

    `width` is None if nothing is allowed and nothing is used.
    """

    width: float | None
    over: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class LimitRow:
    """One limit and what was measured against it."""

    measurement: str
    statistic: str
    measured: str
    exact: str
    allowed: str
    bar: Bar | None
    mark: Mark
    note: str
    reason: str
    source: str


@dataclass(frozen=True, kw_only=True)
class CriterionRow:
    """One criterion; any one of its limits suffices."""

    id: str
    title: str
    mark: Mark
    message: str
    limits: tuple[LimitRow, ...]


def criterion_row(comparison: Comparison, finding: Finding) -> CriterionRow:
    """A finding with each of its limits and the measured numbers."""
    return CriterionRow(
        id=finding.criterion,
        title=finding.title,
        mark=mark(finding.outcome),
        message=finding.message,
        limits=tuple(_limit(comparison, judged) for judged in finding.judged),
    )


def _limit(comparison: Comparison, judged: Judged) -> LimitRow:
    limit = judged.limit
    return LimitRow(
        measurement=limit.measurement,
        statistic=STATISTIC_WORDS[limit.statistic],
        measured=number(judged.value),
        exact="" if judged.value is None else exact(judged.value),
        allowed=ALLOWED[limit.comparator].format(limit.value),
        bar=used_of_allowed(limit, judged.value),
        mark=mark(judged.outcome),
        note=_note(comparison, judged),
        reason=limit.reason,
        source=limit.source,
    )


def _note(comparison: Comparison, judged: Judged) -> str:
    """The first place beyond the limit, or else the worst of several; and why a number is missing."""
    parts = [judged.explanation] if judged.explanation else []
    measured = judged.limit.measurement in comparison and len(comparison[judged.limit.measurement].values)
    several = measured and measured > 1
    extreme = judged.limit.statistic in ("maximum", "minimum")
    if judged.first_beyond is not None and several:
        parts.insert(0, f"first beyond at {describe_place(judged.first_beyond)}")
    elif judged.worst is not None and judged.value and several and extreme and judged.outcome is Outcome.PASS:
        parts.insert(0, f"worst at {describe_place(judged.worst)}")
    return "; ".join(parts)


def used_of_allowed(limit: Limit, value: float | None) -> Bar | None:
    """How much of a limit is used, or how much of a requirement is reached; None if nothing was measured."""
    if value is None or not math.isfinite(value):
        return None if value is None else _full("not finite")
    if limit.value == 0:
        return Bar(width=None, over=False, text="exact") if holds(value, limit) else _full("not exact")
    ratio = value / limit.value
    over = not holds(value, limit)
    text = f"{_ratio(ratio)} of what is required" if is_minimum(limit) else _ratio(ratio)
    return Bar(width=round(min(max(ratio, 0.0), 1.0) * 100, 2), over=over, text=text)


def _full(text: str) -> Bar:
    return Bar(width=100.0, over=True, text=text)


def _ratio(ratio: float) -> str:
    """Below the limit in per cent, beyond it as a multiple; never rounded across it."""
    if ratio > 1:
        return f"{number(ratio)} ×"
    if 0 < ratio < 0.001:
        return "below 0.1 %"
    return "just below 100 %" if 0.995 <= ratio < 1 else f"{number(float(f'{ratio * 100:.2g}'))} %"
