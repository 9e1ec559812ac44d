"""Numbers, places and outcomes as the page shows them. All formatting of the page starts here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.cases.runs_of_a_case import FLOOR, FLOOR_RUN
from harness.cases.task import Task, TaskName
from harness.evidence.judge import Outcome

GLYPHS = {Outcome.PASS: "✓", Outcome.FAIL: "✕", Outcome.INCONCLUSIVE: "?", Outcome.ERROR: "!"}

PURPOSES_IN_TRAINING = {
    "reference-1": "compared step by step",
    "subject-1": "compared step by step",
    "reference-2": "a repeat, compared bit for bit",
    "subject-2": "a repeat, compared bit for bit",
    "reference-lr0": "learning rate 0: no error can grow",
    "subject-lr0": "learning rate 0: no error can grow",
    "subject-resumed": "saved after half the steps and resumed in a fresh process",
    "oracle-1": "the exact result: the same mathematics in float64",
    "reference-probe": "first gradients, and the optimizer alone",
    "subject-probe": "first gradients, and the optimizer alone",
    "oracle-probe": "first gradients and updates, exact",
    "subject-alone": "the subject in one process: its layout must not change the numbers",
    "subject-alone-probe": "first gradients of the subject in one process",
    FLOOR: "weights moved by one unit in the last place",
}
# The purpose of each run of a task.
PURPOSES: Mapping[TaskName, Mapping[str, str]] = {
    "pretrain": PURPOSES_IN_TRAINING,
    "finetune": PURPOSES_IN_TRAINING,
    "inference": {
        "training": "trains the weights for inference",
        "reference-1": "scores every document, then generates",
        "subject-1": "scores every document, then generates",
        "reference-2": "a repeat, compared bit for bit",
        "subject-2": "a repeat, compared bit for bit",
        "oracle-1": "the exact result: the same mathematics in float64, without a cache",
    },
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A state as glyph and word; `tone` adds a colour, which is never the only sign."""

    glyph: str
    word: str
    tone: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A term and its value. `code`: in a monospaced font, for digests and names."""

    term: str
    text: str
    code: bool = False


def mark(outcome: Outcome) -> Mark:
    return Mark(glyph=GLYPHS[outcome], word=outcome.value, tone=outcome.value.lower())


def number(value: float | None) -> str:
    """Three significant digits; a name if it is not finite, and "not measured" for None."""
    if value is None:
        return "not measured"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.3g}"


def purpose(run: str, task: Task) -> str:
    """The purpose of a run of a task, in a few words."""
    return PURPOSES[task.name][FLOOR if FLOOR_RUN.fullmatch(run) else run]


def exact(value: float) -> str:
    """Every digit of a float: reading it back gives the same bits."""
    return repr(float(value)) if math.isfinite(value) else number(value)


def count(amount: int, noun: str, plural: str | None = None) -> str:
    return f"{number(amount)} {noun if amount == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds in readable units."""
    if not math.isfinite(seconds):
        return number(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
