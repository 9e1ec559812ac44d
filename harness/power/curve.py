"""The curve of rejection against the size of a fault, as coordinates of a drawing."""

import math
from dataclasses import dataclass

from harness.power.rates import SizeBin, by_size, detected_from
from harness.power.record import PowerStudy

WIDTH, HEIGHT = 640, 240  # of the part inside the axes, in units of the drawing
LEVELS = (0.0, 0.5, 0.95)
STEPS = (1, 2, 5)  # of the ticks in a decade


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One bin of sizes: where it is drawn, and what it is in words."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class SizeCurve:
    """Sizes go from left to right on a logarithmic scale, rates from bottom to top. `band` and `line` are points of a
    polygon and of a line; `detected` is where the smallest size lies from which on 95 % are rejected."""

    width: int
    height: int
    band: str
    line: str
    dots: tuple[Dot, ...]
    sizes: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, str], ...]
    detected: float | None
    alt: str


def size_curve(study: PowerStudy) -> SizeCurve | None:
    """The curve of a study; None where too few of its faults have a size, or all have about the same."""
    bins = by_size(study)
    if len(bins) < 2:
        return None
    left, right = math.log10(bins[0].low), math.log10(bins[-1].high)

    def across(size: float) -> float:
        return round(WIDTH * (math.log10(size) - left) / (right - left), 1)

    middles = [across(math.sqrt(one.low * one.high)) for one in bins]
    upper = [(x, _down(one.rate.interval[1])) for x, one in zip(middles, bins, strict=True)]
    lower = [(x, _down(one.rate.interval[0])) for x, one in zip(middles, bins, strict=True)]
    dots = tuple(Dot(x=x, y=_down(_share(one)), text=_words(one)) for x, one in zip(middles, bins, strict=True))
    detected = detected_from(study)
    return SizeCurve(
        width=WIDTH,
        height=HEIGHT,
        band=_points([*upper, *reversed(lower)]),
        line=_points([(dot.x, dot.y) for dot in dots]),
        dots=dots,
        sizes=tuple((across(size), f"{size:.1%}") for size in _ticks(bins[0].low, bins[-1].high)),
        levels=tuple((_down(level), f"{level:.0%}") for level in LEVELS),
        detected=None if detected is None else across(detected),
        alt="; ".join(dot.text for dot in dots),
    )


def _share(one: SizeBin) -> float:
    return one.rate.count / one.rate.total


def _words(one: SizeBin) -> str:
    return f"{one.low:.2%} to {one.high:.2%}: {one.rate.count} of {one.rate.total} rejected"


def _down(rate: float) -> float:
    return round(HEIGHT * (1 - rate), 1)


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [step * 10.0**decade for decade in decades for step in STEPS]
    return [size for size in every if low * (1 - 1e-9) <= size <= high * (1 + 1e-9)]
