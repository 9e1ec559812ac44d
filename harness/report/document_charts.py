"""The figures of an evaluation: every document on both sides, and the difference between the sides."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from harness.evidence.bundle import Bundle
from harness.report.chart_parts import draw_limits, error, layout_of, rows_for
from harness.report.charts import Chart, limits_on, plain
from harness.report.columns import Column
from harness.report.documents import TITLES, likelihoods_of
from harness.report.words import number
from harness.runs.trace import EvaluationTask

COLORS: Mapping[EvaluationTask, str] = {"text": "subject", "last_word": "second", "ending": "reference"}


def likelihood_chart(columns: Mapping[str, Column]) -> Chart:
    """The cost of every document on the subject against that on the reference, in nats, on logarithmic axes."""
    pairs = {task: likelihoods_of(columns, task) for task in TITLES}
    least, most = _decades(columns, [name for every in pairs.values() for pair in every for name in pair])
    figure = go.Figure(layout=_square_layout(least, most))
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    ends = {"x0": 10.0**least, "y0": 10.0**least, "x1": 10.0**most, "y1": 10.0**most}
    figure.add_shape(type="line", **ends, line=line, layer="below")
    for task, every in pairs.items():
        figure.add_traces([_points(task, *pair, first=not n) for n, pair in enumerate(every)])
    return Chart(
        id="chart-likelihood",
        title="Every document on both sides",
        alt="Cost of each document on the subject against that on the reference, in nats",
        caption="Minus the log-likelihood, in nats; for a passage, of each of its endings. On the dotted line both "
        "sides are equal.",
        figure=plain(figure),
    )


def _points(task: EvaluationTask, reference: str, subject: str, first: bool) -> Any:
    return go.Scatter(
        name=TITLES[task],
        legendgroup=task,
        showlegend=first,
        mode="markers",
        marker={"size": 5, "opacity": 0.6, "color": f"var(--{COLORS[task]})"},
        meta={"x": reference, "y": subject, "keep": "nats"},
        hovertemplate="reference %{x:.7g}, subject %{y:.7g}",
    )


def _decades(columns: Mapping[str, Column], names: Sequence[str]) -> tuple[float, float]:
    """The range of all costs, as decimal logarithms."""
    found = [columns[name] for name in names]
    costs = [-value for column in found if isinstance(column, list) for value in column if isinstance(value, float)]
    logarithms = [math.log10(cost) for cost in costs if cost > 0]
    return min(logarithms, default=0.0) - 0.2, max(logarithms, default=1.0) + 0.2


def _square_layout(least: float, most: float) -> dict[str, Any]:
    layout = layout_of(None, "", height=440, steps=1)
    axis = {**layout["xaxis"], "type": "log", "exponentformat": "power", "dtick": 1, "range": [least, most]}
    layout["xaxis"] = {**axis, "title": {"text": "reference, nats"}}
    layout["yaxis"] = {**axis, "title": {"text": "subject, nats"}, "anchor": "x"}
    layout["hovermode"] = "closest"
    return layout


def difference_chart(bundle: Bundle) -> Chart:
    """The difference of the sides' log-likelihoods for every document, with its limits."""
    measured = bundle.comparison["score.log_likelihood"]
    limits = limits_on(bundle, measured.name)
    rows = rows_for([*measured.values, *(limit.value for _, limit in limits)])
    layout = layout_of(
        rows, "", height=320, steps=len(measured.values), curves=False, errors="difference", along="document"
    )
    figure = go.Figure(layout=layout)
    for task, title in TITLES.items():
        amount = len(measured.values)
        traces = error(f"{task}.difference", f"{task}.step", rows, amount, title.lower(), COLORS[task])
        figure.add_traces(traces)
    draw_limits(figure, limits)
    allowed = " and ".join(f"{number(limit.value)} ({standard})" for standard, limit in limits)
    return Chart(
        id="chart-difference",
        title="Difference of every document",
        alt="Difference of the sides' log-likelihoods by document",
        caption="Relative difference for log-likelihoods beyond one nat, absolute difference for others. "
        + (f"Allowed: {allowed}." if limits else "No standard of this bundle limits it."),
        figure=plain(figure),
    )
