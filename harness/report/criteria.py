"""Every criterion with its measured number beside its limit, its reason and its source, passes included."""

import math
from dataclasses import dataclass

from harness.comparison import Comparison
from harness.evidence import Bundle
from harness.judge import ALLOWED, STATISTIC_WORDS, Finding, Judged, Outcome, describe_place
from harness.report.words import Mark, exact, mark, number
from harness.standards import Limit, Standard


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Used of allowed: `width` in per cent of the bar, which ends at the limit; `text` says it without the bar."""

    width: float
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


@dataclass(frozen=True, kw_only=True)
class StandardTable:
    name: str
    version: int
    title: str
    digest: str
    criteria: tuple[CriterionRow, ...]


def standard_tables(bundle: Bundle) -> tuple[StandardTable, ...]:
    """A table a standard, its criteria in its order."""
    return tuple(_table(bundle, standard) for standard in bundle.standards)


def _table(bundle: Bundle, standard: Standard) -> StandardTable:
    found = [finding for finding in bundle.findings if finding.standard == standard.name]
    return StandardTable(
        name=standard.name,
        version=standard.version,
        title=standard.title,
        digest=standard.digest(),
        criteria=tuple(_criterion(bundle.comparison, finding) for finding in found),
    )


def _criterion(comparison: Comparison, finding: Finding) -> CriterionRow:
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
        allowed=f"{ALLOWED[limit.comparator]} {number(limit.value)}",
        bar=used_of_allowed(limit, judged.value),
        mark=mark(judged.outcome),
        note=_note(comparison, judged),
        reason=limit.reason,
        source=limit.source,
    )


def _note(comparison: Comparison, judged: Judged) -> str:
    """Where: the first place beyond the limit, else the worst of several; and why a number is missing."""
    parts = [judged.explanation] if judged.explanation else []
    several = judged.limit.measurement in comparison and len(comparison[judged.limit.measurement].values) > 1
    if judged.first_beyond is not None:
        parts.insert(0, f"first beyond at {describe_place(judged.first_beyond)}")
    elif judged.worst is not None and judged.value and several and judged.outcome is Outcome.PASS:
        parts.insert(0, f"worst at {describe_place(judged.worst)}")
    return "; ".join(parts)


def used_of_allowed(limit: Limit, value: float | None) -> Bar | None:
    """How much of a limit is used; None where no ratio says it: nothing measured, or exactly nothing allowed."""
    if value is None or not math.isfinite(value):
        return None if value is None else Bar(width=100.0, over=True, text="not finite")
    used, allowed = (limit.value, value) if limit.comparator == "at_least" else (value, limit.value)
    if limit.value == 0:
        return Bar(width=0.0, over=False, text="exact") if value == 0 else Bar(width=100.0, over=True, text="not exact")
    if allowed <= 0:
        return Bar(width=100.0, over=True, text="not reached")
    ratio = used / allowed
    return Bar(width=round(min(ratio, 1.0) * 100, 2), over=ratio > 1, text=_ratio(ratio))


def _ratio(ratio: float) -> str:
    if ratio > 1:
        return f"{ratio:.3g} × the limit" if ratio < 1e6 else f"{ratio:.1e} × the limit"
    if 0 < ratio < 0.001:
        return "below 0.1 %"
    return f"{ratio * 100:.2g} %" if ratio < 0.995 else "100 %"
