"""The parts of figures: traces that name columns, lines and shades over them, axes and layout.

A logarithmic axis cannot show 0 or not-a-number: both get a row of their own (`Rows`). Colours are the style's
variables.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from harness.report.words import number
from harness.standards import Limit

LEAST = 1e-17  # the row of equal values if nothing differs: below half a unit in the last place of 1
MARKED_STEPS = 400  # with more steps, one marker per step only makes the page slow


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Positions on the log axis for values without a logarithm: equal values at the bottom, not finite ones on top."""

    equal: float
    broken: float


def rows_for(values: Iterable[float]) -> Rows:
    decades = [math.log10(value) for value in values if math.isfinite(value) and value > 0]
    if not decades:
        return Rows(equal=LEAST, broken=1.0)
    below, above = math.floor(min(decades)) - 1, math.ceil(max(decades)) + 1
    return Rows(
        equal=10.0 ** max(below, sys.float_info.min_10_exp), broken=10.0 ** min(above, sys.float_info.max_10_exp)
    )


def curve(side: str, field: str, steps: int) -> Any:
    # The reference is wide and pale under a thin subject, so that both curves are visible even if they agree.
    thin = 1.6 if steps <= MARKED_STEPS else 0.8
    line = {"color": f"var(--{side})", "width": 6 if side == "reference" else thin}
    meta = {"x": "train.step", "y": f"train.{side}.{field}"}
    return go.Scatter(
        name=side, mode="lines", line=line, meta=meta, hovertemplate="%{y:.9g}", connectgaps=False, legendgroup=side
    )


def error(
    column: str, steps: str, rows: Rows, length: int, name: str = "relative difference", color: str = "subject"
) -> list[Any]:
    """Finite differences as a line; equal and not finite values as markers in their rows."""
    paint = f"var(--{color})"
    mode = "lines+markers" if length <= MARKED_STEPS else "lines"
    shared = {"yaxis": "y2", "hovertemplate": "%{customdata}"}
    line = go.Scatter(
        name=name,
        mode=mode,
        line={"color": paint, "width": 1.2},
        marker={"size": 3.5, "color": paint},
        connectgaps=True,
        meta={"x": steps, "y": column, "keep": "positive"},
        **shared,
    )
    equal = go.Scatter(
        name=f"{name}, exactly equal",
        mode="markers",
        marker={"size": 6, "symbol": "circle-open", "color": paint},
        meta={"x": steps, "y": column, "keep": "equal", "at": rows.equal},
        showlegend=False,
        **shared,
    )
    broken = go.Scatter(
        name=f"{name}, not finite",
        mode="markers",
        marker={"size": 10, "symbol": "x", "color": "var(--fail)"},
        meta={"x": steps, "y": column, "keep": "broken", "at": rows.broken},
        showlegend=False,
        **shared,
    )
    return [line, equal, broken]


def floor_band(field: str, rows: Rows) -> list[Any]:
    """The largest difference of the reference's perturbed repeats, filled down to the row of equal values."""
    meta = {"x": "train.step", "y": f"floor.{field}.relative"}
    base = {**meta, "keep": "base", "at": rows.equal}
    shared = {"yaxis": "y2", "mode": "lines", "line": {"width": 0}}
    return [
        go.Scatter(name="", showlegend=False, hoverinfo="skip", meta=base, **shared),
        go.Scatter(
            name="floor: reference, perturbed",
            fill="tonexty",
            fillcolor="var(--band)",
            meta={**meta, "keep": "band", "at": rows.equal},
            hovertemplate="%{customdata}",
            **shared,
        ),
    ]


def draw_limits(figure: Any, limits: Sequence[tuple[str, Limit]], what: str = "") -> None:
    for standard, limit in limits:
        line = {"color": "var(--fail)", "width": 1.4, "dash": "dash"}
        figure.add_shape(type="line", xref="x domain", yref="y2", x0=0, x1=1, y0=limit.value, y1=limit.value, line=line)
        figure.add_annotation(
            text=f"{what}limit {number(limit.value)} ({standard})",
            xref="x domain", yref="y2", x=1, y=math.log10(limit.value) if limit.value > 0 else 0,
            xanchor="right", yanchor="bottom", showarrow=False, font={"color": "var(--fail)", "size": 11},
        )  # fmt: skip


def draw_beyond(figure: Any, step: int | None) -> None:
    if step is None:
        return
    line = {"color": "var(--fail)", "width": 1.2}
    figure.add_shape(type="line", xref="x", yref="paper", x0=step, x1=step, y0=0, y1=1, line=line)
    figure.add_annotation(
        text=f"× step {step}", xref="x", yref="paper", x=step, y=1, xanchor="left", yanchor="bottom",
        showarrow=False, font={"color": "var(--fail)", "size": 12},
    )  # fmt: skip


def draw_untaken(figure: Any, taken: int, total: int) -> None:
    """Shades the steps that one of the two runs did not take."""
    if taken == total:
        return
    figure.add_shape(
        type="rect", xref="x", yref="paper", x0=taken + 0.5, x1=total + 0.5, y0=0, y1=1,
        fillcolor="var(--band)", line={"width": 0}, layer="below",
    )  # fmt: skip
    figure.add_annotation(
        text="not taken by both sides", xref="x", yref="paper", x=(taken + total) / 2, y=0.46,
        showarrow=False, font={"color": "var(--muted)", "size": 12},
    )  # fmt: skip


def layout_of(
    rows: Rows | None,
    title: str,
    *,
    height: int,
    steps: int,
    curves: bool = True,
    errors: str = "relative difference",
    along: str = "step",
) -> dict[str, Any]:
    grid = {"gridcolor": "var(--grid)", "zeroline": False, "linecolor": "var(--rule)", "automargin": True}
    layout: dict[str, Any] = {
        "template": go.layout.Template(),
        "height": height,
        "margin": {"l": 64, "r": 12, "t": 56 if curves and rows else 36, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--ink)", "size": 12},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.06 if curves and rows else 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--muted)", "activecolor": "var(--ink)"},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "hoverlabel": {"bgcolor": "var(--panel)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        "uirevision": "kept",  # a change of colours keeps the zoom
        "xaxis": {**grid, "title": {"text": along}, "anchor": "y2" if rows else "y", "range": [0, steps + 1]},
    }
    if curves:
        layout["yaxis"] = {
            **grid,
            "title": {"text": title.lower()},
            "domain": [0.5, 1] if rows else [0, 1],
            "exponentformat": "e",
        }
    if rows:
        layout["yaxis2"] = {**grid, **_log_axis(rows, errors), "domain": [0, 0.42] if curves else [0, 1]}
        layout["annotations"] = [_row_name("= exactly equal", rows.equal)]
    return layout


def _log_axis(rows: Rows, title: str) -> dict[str, Any]:
    low, high = math.log10(rows.equal), math.log10(rows.broken)
    span = round(high - low)
    return {
        "type": "log",
        "anchor": "x",
        "title": {"text": title},
        "range": [low - 0.4, high + 0.2],
        "exponentformat": "power",
        "tickfont": {"size": 11},
        "dtick": 1 if span <= 7 else 2,
    }


def _row_name(text: str, at: float) -> dict[str, Any]:
    return {
        "text": text, "xref": "x domain", "yref": "y2", "x": 0, "y": math.log10(at), "xanchor": "left",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 10, "color": "var(--muted)"},
    }  # fmt: skip
