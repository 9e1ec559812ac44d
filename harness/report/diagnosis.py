"""The page of a diagnosis: the sentence, a map of layers and places, the checks, every number.

It has no script: a map is a table whose cells have the ratio as text and as colour.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.base.text import listed
from harness.diagnosis.diagnosis import Check, Diagnosis
from harness.diagnosis.errors_by_place import ALLOWED_RATIO, Reading, ReadingState
from harness.evidence.judge import Outcome
from harness.report.page import render_template
from harness.report.words import Fact, Mark, mark, number
from harness.runs.places import Direction

LAYER = re.compile(r"model\.layers\.(\d+)\.?(.*)")
LAYER_OUTPUT = "layer output"
TITLES: dict[Direction, tuple[str, str]] = {
    "forward": (
        "Values",
        "The pass goes from top to bottom. The loss is compared with the exact loss of the same logits.",
    ),
    "backward": (
        "Gradients by place",
        "Gradients of the loss with respect to each value; the pass goes from bottom to top.",
    ),
    "parameter": ("Gradients of parameters", "Before clipping; the pass goes from bottom to top."),
}
# Nothing is passed or failed here; the signs and colours are those of the report.
OUTCOMES: Mapping[ReadingState, Outcome] = {
    "agrees": Outcome.PASS,
    "differs": Outcome.FAIL,
    "not recorded": Outcome.INCONCLUSIVE,
}
# Where a cell's shade begins, as a multiple of what the reference's errors allow before the factor.
SHADES = (("agrees", 0.0), ("near", 3.0), ("differs", ALLOWED_RATIO), ("far", 1e3))


@dataclass(frozen=True, kw_only=True)
class MapCell:
    """One place of the map. `shade` is a class of the style; `title` has the numbers."""

    text: str
    shade: str
    title: str
    named: bool
    span: int


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    cells: tuple[MapCell, ...]


@dataclass(frozen=True, kw_only=True)
class Map:
    title: str
    note: str
    layers: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One reading as text."""

    name: str
    direction: str
    subject: str
    reference: str
    ratio: str
    mark: Mark
    named: bool


@dataclass(frozen=True, kw_only=True)
class DiagnosisPage:
    """Everything that the page shows."""

    case: str
    over: str
    place: str
    sentence: str
    tone: str
    facts: tuple[Fact, ...]
    maps: tuple[Map, ...]
    factor: str
    checks: tuple[tuple[Mark, Check], ...]
    lines: tuple[Line, ...]
    built: tuple[str, ...]


def render_diagnosis(diagnosis: Diagnosis) -> str:
    """The page as HTML; it opens from disk, without a network."""
    return render_template("diagnosis.html.j2", page=build_page(diagnosis))


def _over(diagnosis: Diagnosis) -> str:
    if diagnosis.step > 1:
        return f"The first place that differs in step {diagnosis.step}" if diagnosis.named else f"Step {diagnosis.step}"
    return "The first place that differs" if diagnosis.named else "Step 1 and what comes after"


def build_page(diagnosis: Diagnosis) -> DiagnosisPage:
    """The view model of a diagnosis."""
    named = diagnosis.named
    sentence = diagnosis.broken or "No place, gradient or check differs."
    return DiagnosisPage(
        case=diagnosis.case,
        over=_over(diagnosis),
        place=named.place if named else "Failed" if diagnosis.broken else "Nothing differs",
        sentence=named.finding if named else sentence,
        tone="bad" if named or diagnosis.broken else "good",
        facts=tuple(_facts(diagnosis)),
        maps=tuple(found for direction in TITLES if (found := _map(diagnosis, direction)) is not None),
        factor=number(ALLOWED_RATIO),
        checks=tuple((_mark(check.state), check) for check in diagnosis.checks),
        lines=tuple(_line(diagnosis, reading) for reading in diagnosis.readings),
        built=diagnosis.built,
    )


def _facts(diagnosis: Diagnosis) -> Iterator[Fact]:
    yield Fact(term="Subject", text=diagnosis.subject or "not known", code=True)
    rows = "1 row" if diagnosis.rows == 1 else f"{diagnosis.rows} rows"
    begin = "" if diagnosis.step == 1 else "; all sides begin with the weights that the subject has before it"
    what = f"{rows} of {diagnosis.length} tokens, compared by its {diagnosis.evidence}{begin}"
    yield Fact(term="Step", text=f"{diagnosis.step}: {what}")
    if diagnosis.named and diagnosis.named.reading:
        reading = diagnosis.named.reading
        yield Fact(term="Measured at", text=f"{reading.name} ({reading.direction})", code=True)
        yield Fact(term="Subject’s error", text=_number(reading.subject))
        yield Fact(term="Reference’s error", text=_number(reading.reference))
        yield Fact(term="Ratio", text=f"{number(reading.ratio)}, allowed {number(ALLOWED_RATIO)}")
    if diagnosis.omitted:
        yield Fact(term="Not compared", text=listed(diagnosis.omitted), code=True)
    for side, taps in diagnosis.taps.items():
        if taps.missing:
            yield Fact(term=f"Taps of the {side}", text=taps.missing)
            continue
        same = "the same bits" if not taps.differing else f"OTHER BITS in {len(taps.differing)} gradients"
        cost = f"{taps.cost:.2f} times a plain step" if taps.cost is not None else "cost not measured"
        yield Fact(term=f"Taps of the {side}", text=f"{cost}; tapped and plain step gave {same}")


def _mark(state: ReadingState) -> Mark:
    return dataclasses.replace(mark(OUTCOMES[state]), word=state)


def _number(value: float | None) -> str:
    return "not recorded" if value is None else number(value)


def _line(diagnosis: Diagnosis, reading: Reading) -> Line:
    return Line(
        name=reading.name,
        direction=reading.direction,
        subject=_number(reading.subject),
        reference=_number(reading.reference),
        ratio="not recorded" if reading.state == "not recorded" else number(reading.ratio),
        mark=_mark(reading.state),
        named=bool(diagnosis.named and diagnosis.named.reading == reading),
    )


def _map(diagnosis: Diagnosis, direction: Direction) -> Map | None:
    """Rows in the order of the forward pass, one column per layer; a place outside the layers spans all columns."""
    readings = [reading for reading in diagnosis.readings if reading.direction == direction]
    if not any(reading.state != "not recorded" for reading in readings):
        return None
    if direction != "forward":
        readings = readings[::-1]
    layers = sorted({int(found[1]) for reading in readings if (found := LAYER.fullmatch(reading.name))})
    rows: dict[str, list[MapCell]] = {}
    for reading in readings:
        found = LAYER.fullmatch(reading.name)
        name = (found[2] or LAYER_OUTPUT) if found else reading.name
        rows.setdefault(name, []).append(_cell(diagnosis, reading, 1 if found else max(1, len(layers))))
    title, note = TITLES[direction]
    return Map(
        title=title,
        note=note,
        layers=tuple(map(str, layers)),
        rows=tuple(Row(name=name, cells=tuple(cells)) for name, cells in rows.items()),
    )


def _cell(diagnosis: Diagnosis, reading: Reading, span: int) -> MapCell:
    line = _line(diagnosis, reading)
    title = f"{reading.name}: subject {line.subject}, reference {line.reference}, ratio {line.ratio}"
    return MapCell(text=_short(reading), shade=_shade(reading), title=title, named=line.named, span=span)


def _short(reading: Reading) -> str:
    if reading.state == "not recorded":
        return "–"
    if not math.isfinite(reading.ratio):
        return "NaN"
    return (
        f"{reading.ratio:.1f}" if reading.ratio < 100 else f"{reading.ratio:.0e}".replace("e+0", "e").replace("e+", "e")
    )


def _shade(reading: Reading) -> str:
    if reading.state == "not recorded":
        return "missing"
    if not math.isfinite(reading.ratio):
        return "far"
    return [name for name, start in SHADES if reading.ratio >= start][-1]
