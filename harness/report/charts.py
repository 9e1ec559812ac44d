"""The figures, without their numbers: each trace names columns that the page already has.

Curve and error share one x axis, so that zooming one zooms the other. A logarithmic axis cannot show 0 or
not-a-number: both get a row of their own, below and above all values, and are never dropped.
Colours are the style's variables; the script resolves them, so that a figure follows light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from harness.comparison.catalogue import in_errors_of_the_reference
from harness.comparison.measurement import Measurement
from harness.evidence.bundle import Bundle
from harness.report.chart_parts import (
    curve,
    draw_beyond,
    draw_limits,
    draw_untaken,
    error,
    floor_band,
    layout_of,
    rows_for,
)
from harness.report.words import number
from harness.standards import Limit


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure for the script: `figure` is plotly's JSON, `alt` describes it as text."""

    id: str
    title: str
    alt: str
    caption: str
    figure: dict[str, Any]


def limits_on(bundle: Bundle, measurement: str, statistic: str = "maximum") -> list[tuple[str, Limit]]:
    """The limits on a statistic of a measurement, with their standards; those on `maximum` hold for every place.

    A limit in errors of the reference also limits the measurement that was scaled.
    """
    units = {measurement: 1.0}
    scaled = in_errors_of_the_reference(measurement)
    if scaled is not None and scaled.scaled_by is not None:
        units.update((scaled.name, unit) for unit in bundle.comparison[scaled.scaled_by].values if math.isfinite(unit))
    return [
        (standard.name, limit.model_copy(update={"value": limit.value * units[limit.measurement]}))
        for standard in bundle.standards
        for criterion in standard.criteria
        for limit in criterion.limits
        if limit.measurement in units and limit.statistic == statistic
    ]


def curve_chart(bundle: Bundle, field: str, title: str) -> Chart:
    """Both sides' curves over their relative difference, with its limits, the floor and the first step beyond."""
    measured = bundle.comparison[f"train.{field}.relative"]
    floor = bundle.comparison[f"floor.{field}.relative"]
    limits = limits_on(bundle, measured.name)
    rows = rows_for([*measured.values, *floor.values, *(limit.value for _, limit in limits)])
    figure = go.Figure(layout=layout_of(rows, title, height=490, steps=len(measured.values)))
    for side in ("reference", "subject"):
        figure.add_trace(curve(side, field, len(measured.values)))
    figure.add_traces(floor_band(field, rows) if floor.values else [])
    figure.add_traces(error(f"train.{field}.relative", "train.step", rows, len(measured.values)))
    draw_limits(figure, limits)
    taken = _taken(bundle, measured)
    beyond = first_beyond(measured, limits, taken)
    draw_beyond(figure, beyond)
    draw_untaken(figure, taken, len(measured.values))
    words = f"first beyond a limit at step {beyond}" if beyond else "no step beyond a limit"
    return Chart(
        id=f"chart-{field.replace('_', '-')}",
        title=title,
        alt=f"{title} of reference and subject by step, and their relative difference; {words if limits else ''}",
        caption=_caption(measured, limits, beyond, taken),
        figure=plain(figure),
    )


def rate_chart(bundle: Bundle) -> Chart:
    """The learning rate that both optimizers used."""
    figure = go.Figure(layout=layout_of(None, "learning rate", height=220, steps=bundle.case.training.steps))
    for side in ("reference", "subject"):
        figure.add_trace(curve(side, "learning_rate", bundle.case.training.steps))
    return Chart(
        id="chart-learning-rate",
        title="Learning rate",
        alt="Learning rate of reference and subject by step",
        caption="The learning rate that each side's schedule gave its optimizer.",
        figure=plain(figure),
    )


def lr_zero_chart(bundle: Bundle) -> Chart:
    """Relative difference of loss and grad norm with frozen weights: each step is a first step of its own."""
    fields = (("loss", "loss", "subject"), ("grad_norm", "grad norm", "second"))
    measured = [bundle.comparison[f"lr_zero.{field}.relative"] for field, _, _ in fields]
    limits = [limits_on(bundle, one.name) for one in measured]
    every = [value for one in measured for value in one.values]
    rows = rows_for([*every, *(limit.value for group in limits for _, limit in group)])
    figure = go.Figure(layout=layout_of(rows, "", height=290, steps=len(measured[0].values), curves=False))
    for (field, name, color), one, group in zip(fields, measured, limits, strict=True):
        traces = error(f"lr_zero.{field}.relative", "lr_zero.step", rows, len(one.values), name, color)
        figure.add_traces(traces)
        draw_limits(figure, group, f"{name} ")
    return Chart(
        id="chart-lr-zero",
        title="Learning rate 0",
        alt="Relative difference of loss and grad norm by step at learning rate 0",
        caption="With frozen weights no error can grow, so every batch is a first step of its own.",
        figure=plain(figure),
    )


def oracle_chart(bundle: Bundle) -> Chart:
    """Error of both sides' loss against the exact loss, step by step."""
    measured = {side: bundle.comparison[f"oracle.loss.{side}"].values for side in ("reference", "subject")}
    rows = rows_for(value for values in measured.values() for value in values)
    steps = len(measured["subject"])
    figure = go.Figure(layout=layout_of(rows, "", height=290, steps=steps, curves=False, errors="relative error"))
    for side in measured:
        figure.add_traces(error(f"oracle.loss.{side}", "oracle.step", rows, steps, f"{side}’s error", side))
    return Chart(
        id="chart-oracle",
        title="Error of the loss by step",
        alt="Relative error of the reference's and the subject's loss against the exact loss, by step",
        caption="The errors of two correct implementations have the same size.",
        figure=plain(figure),
    )


def _taken(bundle: Bundle, measured: Measurement) -> int:
    """How many steps both runs took."""
    runs = [bundle.runs.get(name) for name in measured.between or ()]
    return min((len(run.trace.steps) for run in runs if run and run.trace), default=0)


def first_beyond(measured: Measurement, limits: Sequence[tuple[str, Limit]], taken: int) -> int | None:
    """The first of the steps that both sides took that exceeds any limit; not finite exceeds all of them."""
    if not limits:
        return None
    least = min(limit.value for _, limit in limits)
    pairs = list(zip(measured.places, measured.values, strict=True))[:taken]
    beyond = (place for place, value in pairs if not value <= least)
    return next((place for place in beyond if isinstance(place, int)), None)


def _caption(measured: Measurement, limits: Sequence[tuple[str, Limit]], beyond: int | None, taken: int) -> str:
    if not measured.values:
        return f"Not measured: {measured.broken or measured.missing}."
    untaken = f" Steps {taken + 1} to {len(measured.values)} were not taken by both sides."
    untaken = untaken if taken < len(measured.values) else ""
    if not limits:
        return (
            "No standard of this bundle limits single steps; its limits are for means and for the first step." + untaken
        )
    allowed = " and ".join(f"{number(limit.value)} ({standard})" for standard, limit in limits)
    found = f"The first step beyond it is step {beyond}." if beyond else "No taken step is beyond it."
    return f"Allowed in every step: {allowed}. {found}{untaken}"


def plain(figure: Any) -> dict[str, Any]:
    """A figure as JSON values."""
    values: dict[str, Any] = figure.to_plotly_json()
    return values
