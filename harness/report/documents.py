"""The numbers of every scored document: columns for charts and downloads, and one row per task.

A document that a side did not score is None; see `harness.report.columns`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT
from harness.comparison.measurement import Place
from harness.evidence.bundle import Bundle
from harness.evidence.judge import ALLOWED
from harness.report.charts import limits_on
from harness.report.columns import Column, Table, add_column
from harness.report.criteria import Bar, used_of_allowed
from harness.report.words import number
from harness.runs.trace import EvaluationTask, Scored

SIDES = (("reference", REFERENCE), ("subject", SUBJECT))
EVERY_SIDE = (*SIDES, ("oracle", ORACLE))
TITLES: Mapping[EvaluationTask, str] = {"text": "Texts", "last_word": "Last words", "ending": "Endings"}
SCORES: Mapping[EvaluationTask, str] = {
    "text": "perplexity per word",
    "last_word": "share of passages whose last word is the greedy one",
    "ending": "share of passages whose own ending is the most likely",
}


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One task: the scores of both sides, their difference, and its upper bound. `bound_open`: the bound is beyond the
    limit, so the evaluation is too small to show that the difference is within it."""

    task: str
    score: str
    documents: str
    reference: str
    subject: str
    exact: str
    difference: str
    bar: Bar | None
    bound: str
    bound_bar: Bar | None
    bound_open: bool
    allowed: str


def score_rows(bundle: Bundle) -> tuple[ScoreRow, ...]:
    """One row per task, in the order of scoring."""
    return tuple(_score_row(bundle, task) for task in TITLES if any(_lines(bundle, task).values()))


def _score_row(bundle: Bundle, task: EvaluationTask) -> ScoreRow:
    lines = _lines(bundle, task)
    difference, bound = (value_at(bundle, f"score.{name}", task) for name in ("difference", "bound"))
    scores = {side: _score(task, found) for side, found in lines.items()}
    _, limit = least_limit(bundle, "score.difference")
    _, bound_limit = least_limit(bundle, "score.bound")
    bound_bar = used_of_allowed(bound_limit, bound) if bound_limit else None
    return ScoreRow(
        task=TITLES[task],
        score=SCORES[task],
        documents=number(len(lines["subject"])),
        reference=scores["reference"],
        subject=scores["subject"],
        exact=scores["oracle"] if lines["oracle"] else "",
        difference=_percent(difference),
        bar=used_of_allowed(limit, difference) if limit else None,
        bound=_percent(bound),
        bound_bar=bound_bar,
        bound_open=bound_bar is not None and bound_bar.over,
        allowed=_percent(limit.value) if limit else "",
    )


def _score(task: EvaluationTask, lines: Sequence[Scored]) -> str:
    scores = [line.score for line in lines]
    if not scores or not all(map(math.isfinite, scores)):
        return "not a number" if scores else "not scored"
    if task != "text":
        return f"{100 * math.fsum(scores) / len(scores):.2f} %"
    nats = -math.fsum(scores) / sum(line.words for line in lines)
    return f"{math.exp(nats):.6g}" if nats < 700 else "infinite"


def _percent(value: float | None) -> str:
    return number(value) if value is None or not math.isfinite(value) else f"{number(100 * value)} %"


def least_limit(bundle: Bundle, measurement: str, statistic: str = "maximum") -> Any:
    """The strictest limit on a measurement, with its standard; (None, None) if there is none."""
    return min(limits_on(bundle, measurement, statistic), key=lambda pair: pair[1].value, default=(None, None))


def allowed_of(bundle: Bundle, measurement: str) -> str:
    """The strictest limit as text; empty if there is none."""
    standard, limit = least_limit(bundle, measurement)
    return f"{ALLOWED[limit.comparator].format(limit.value)} ({standard})" if limit else ""


def value_at(bundle: Bundle, measurement: str, place: Place) -> float | None:
    """The measured value at a place, or None."""
    measured = bundle.comparison[measurement]
    return dict(zip(measured.places, measured.values, strict=True)).get(place)


def document_columns(bundle: Bundle) -> dict[str, Column]:
    """`TASK.step`, and for each side `TASK.SIDE.score`, `.document`, `.words` and `.log_likelihood.N`;
    `TASK.difference` is the difference of both sides' log-likelihoods."""
    columns: dict[str, Column] = {}
    for task, numbers in _numbers(bundle).items():
        columns[f"{task}.step"] = list(numbers)
        for side, lines in _lines(bundle, task).items():
            if lines or side != "oracle":
                _add_side(columns, f"{task}.{side}", numbers, {line.step: line for line in lines})
        add_column(columns, f"{task}.difference", list(_differences(bundle, task, numbers)))
    return columns


def document_tables(columns: Mapping[str, Column]) -> tuple[Table, ...]:
    """One CSV file per task."""
    return tuple(
        Table(
            ending=f"{task.replace('_', '-')}-documents.csv",
            title=f"{title}, every document",
            columns=tuple(name for name in columns if name.startswith(f"{task}.")),
        )
        for task, title in TITLES.items()
    )


def likelihoods_of(columns: Mapping[str, Column], task: EvaluationTask) -> list[tuple[str, str]]:
    """The log-likelihood columns of a task, in pairs of reference and subject."""
    pattern = f"{task}.reference.log_likelihood."
    pairs = [(name, name.replace(".reference.", ".subject.")) for name in columns if name.startswith(pattern)]
    return [pair for pair in pairs if pair[1] in columns]


def _numbers(bundle: Bundle) -> dict[EvaluationTask, range]:
    """The document numbers of each task, counted over all tasks."""
    section = bundle.case.inference_section
    first, second = 1 + section.texts, 1 + section.texts + section.documents
    return {
        "text": range(1, first),
        "last_word": range(first, second),
        "ending": range(second, second + section.documents),
    }


def _lines(bundle: Bundle, task: EvaluationTask) -> dict[str, tuple[Scored, ...]]:
    runs = {side: bundle.runs.get(name) for side, name in EVERY_SIDE}
    return {
        side: tuple(line for line in run.trace.scored if line.task == task) if run and run.trace else ()
        for side, run in runs.items()
    }


def _add_side(columns: dict[str, Column], name: str, numbers: range, lines: Mapping[int, Scored]) -> None:
    taken = [lines.get(step) for step in numbers]
    add_column(columns, f"{name}.document", [line.document if line else None for line in taken])
    add_column(columns, f"{name}.words", [line.words if line else None for line in taken])
    add_column(columns, f"{name}.score", [line.score if line else None for line in taken])
    for index in range(max((len(line.log_likelihoods) for line in taken if line), default=0)):
        values = [line.log_likelihoods[index : index + 1] if line else () for line in taken]
        add_column(columns, f"{name}.log_likelihood.{index + 1}", [v[0] if v else None for v in values])


def _differences(bundle: Bundle, task: EvaluationTask, numbers: range) -> Iterator[float | None]:
    measured = bundle.comparison["score.log_likelihood"]
    found = dict(zip(measured.places, measured.values, strict=True))
    for step in numbers:
        yield found.get(f"{task} {step}")
