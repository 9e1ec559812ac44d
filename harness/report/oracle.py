"""Both sides compared with the exact result: their errors, the ratio with its limit, and the first gradients."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.comparison.measurement import Comparison, Measurement
from harness.evidence.bundle import Bundle
from harness.evidence.judge import ALLOWED, STATISTIC_WORDS, statistic
from harness.report.charts import Chart, limits_on, oracle_chart
from harness.report.criteria import Bar, used_of_allowed
from harness.report.sides import SHOWN_TENSORS, badness
from harness.report.words import count, number

SUBJECTS = (
    ("loss", "Loss", "step"),
    ("grad_norm", "Grad norm", "step"),
    ("gradients", "First gradients", "parameter"),
    ("updates", "Optimizer alone", "parameter"),
)
STATISTICS = ("mean", "rms", "maximum")


@dataclass(frozen=True, kw_only=True)
class ErrorRow:
    """One statistic of both sides' errors and of their ratio; `allowed` is empty if no standard limits the ratio."""

    statistic: str
    reference: str
    subject: str
    ratio: str
    allowed: str
    bar: Bar | None


@dataclass(frozen=True, kw_only=True)
class ErrorGroup:
    """What was measured, over how many places; `missing` states why there are no rows, `broken` which run failed."""

    what: str
    places: str
    broken: str | None
    rows: tuple[ErrorRow, ...]
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class GradientRow:
    name: str
    reference: str
    subject: str
    ratio: str
    bar: Bar | None


@dataclass(frozen=True, kw_only=True)
class GradientTable:
    """First gradients by parameter, highest ratio first: `first` is shown, `rest` unfolds."""

    first: tuple[GradientRow, ...]
    rest: tuple[GradientRow, ...]
    summary: str
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class AgainstOracle:
    """The whole section; `chart` is None if no step was measured."""

    groups: tuple[ErrorGroup, ...]
    chart: Chart | None
    gradients: GradientTable


def against_oracle(bundle: Bundle) -> AgainstOracle:
    """The section of the measurements `oracle.WHAT.reference`, `.subject` and `.ratio` of a bundle."""
    return AgainstOracle(
        groups=tuple(error_group(bundle, *subject) for subject in SUBJECTS),
        chart=None if _missing(bundle.comparison["oracle.loss.ratio"]) else oracle_chart(bundle),
        gradients=_gradients(bundle),
    )


def error_group(bundle: Bundle, what: str, title: str, noun: str) -> ErrorGroup:
    """Both sides' errors against the oracle for one measurement, by statistic."""
    ratio = bundle.comparison[f"oracle.{what}.ratio"]
    missing = _missing(ratio)
    rows = () if missing else tuple(_error_row(bundle, what, name) for name in STATISTICS)
    places = count(len(ratio.values), noun)
    return ErrorGroup(what=title, places=places, broken=ratio.broken, rows=rows, missing=missing)


def _missing(ratio: Measurement) -> str | None:
    """Why there is no number at all; a failed run has not-a-number at every place that it did not reach."""
    return None if any(not math.isnan(value) for value in ratio.values) else ratio.broken or ratio.missing


def _error_row(bundle: Bundle, what: str, name: str) -> ErrorRow:
    reference, subject, ratio = (
        statistic(name, bundle.comparison[f"oracle.{what}.{part}"].values) for part in ("reference", "subject", "ratio")
    )
    standard, limit = min(
        limits_on(bundle, f"oracle.{what}.ratio", name), key=lambda pair: pair[1].value, default=(None, None)
    )
    return ErrorRow(
        statistic=STATISTIC_WORDS[name],
        reference=number(reference),
        subject=number(subject),
        ratio=number(ratio),
        allowed=f"{ALLOWED[limit.comparator].format(limit.value)} ({standard})" if limit else "",
        bar=used_of_allowed(limit, ratio) if limit else None,
    )


def _gradients(bundle: Bundle) -> GradientTable:
    ratio = bundle.comparison["oracle.gradients.ratio"]
    missing = _missing(ratio)
    rows = () if missing else tuple(_gradient_rows(bundle))
    closer = sum(value <= 1 for value in ratio.values)
    return GradientTable(
        first=rows[:SHOWN_TENSORS],
        rest=rows[SHOWN_TENSORS:],
        summary=f"{count(len(rows), 'parameter')}; in {number(closer)} of them the subject is at least as close to the "
        "exact gradient as the reference.",
        missing=missing,
    )


def _gradient_rows(bundle: Bundle) -> Iterator[GradientRow]:
    limits = [limit for _, limit in limits_on(bundle, "oracle.gradients.ratio")]
    limit = min(limits, key=lambda one: one.value, default=None)
    for name, reference, subject, ratio in sorted(_by_parameter(bundle.comparison), key=lambda row: -badness(row[3])):
        yield GradientRow(
            name=name,
            reference=number(reference),
            subject=number(subject),
            ratio=number(ratio),
            bar=used_of_allowed(limit, ratio) if limit else None,
        )


def _by_parameter(comparison: Comparison) -> Iterator[tuple[str, float, float, float]]:
    reference, subject, ratio = (comparison[f"oracle.gradients.{part}"] for part in ("reference", "subject", "ratio"))
    for place, *errors in zip(ratio.places, reference.values, subject.values, ratio.values, strict=True):
        yield str(place), errors[0], errors[1], errors[2]
