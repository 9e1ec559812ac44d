"""The figures of an evaluation: every document on both sides, and how far apart the sides are in it."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from harness.evidence import Bundle
from harness.report.chart_parts import draw_limits, error, layout_of, rows_for
from harness.report.charts import Chart, limits_on, plain
from harness.report.columns import Column
from harness.report.documents import TITLES, likelihoods_of
from harness.report.words import number
from harness.trace import Task

COLORS: Mapping[Task, str] = {"text": "subject", "last_word": "second", "ending": "reference"}
LEAST, MOST = 1e-4, 1e4  # nats: of a word that is nearly certain, of a long text


def likelihood_chart(columns: Mapping[str, Column]) -> Chart:
    """What every document costs the subject over what it costs the reference, in nats, on logarithmic axes."""
    figure = go.Figure(layout=_square_layout())
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=LEAST, y0=LEAST, x1=MOST, y1=MOST, line=line, layer="below")
    for task in TITLES:
        figure.add_traces([_points(task, *pair, first=not n) for n, pair in enumerate(likelihoods_of(columns, task))])
    return Chart(
        id="chart-likelihood",
        title="Every document on both sides",
        alt="What each document costs the subject, over what it costs the reference, in nats",
        caption="Minus the log-likelihood, in nats; of a passage each of its endings. On the dotted line both sides "
        "say the same.",
        figure=plain(figure),
    )


def _points(task: Task, reference: str, subject: str, first: bool) -> Any:
    return go.Scatter(
        name=TITLES[task],
        legendgroup=task,
        showlegend=first,
        mode="markers",
        marker={"size": 5, "opacity": 0.6, "color": f"var(--{COLORS[task]})"},
        meta={"x": reference, "y": subject, "keep": "nats"},
        hovertemplate="reference %{x:.7g}, subject %{y:.7g}",
    )


def _square_layout() -> dict[str, Any]:
    layout = layout_of(None, "", height=440, steps=1)
    axis = {**layout["xaxis"], "type": "log", "exponentformat": "power", "dtick": 1}
    del axis["range"]
    layout["xaxis"] = {**axis, "title": {"text": "reference, nats"}}
    layout["yaxis"] = {**axis, "title": {"text": "subject, nats"}, "anchor": "x"}
    layout["hovermode"] = "closest"
    return layout


def difference_chart(bundle: Bundle) -> Chart:
    """How far the sides' log-likelihoods of every document are apart, with the limits on it."""
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
        caption="Of a log-likelihood beyond one nat the relative difference, of others the difference. "
        + (f"Allowed: {allowed}." if limits else "No standard of this bundle limits it."),
        figure=plain(figure),
    )
