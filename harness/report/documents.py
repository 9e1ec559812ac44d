"""The numbers of every document that was scored: columns for charts and downloads, and a row a task.

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
    "last_word": "of passages, how many words are the greedy ones",
    "ending": "of passages, how often the likeliest of several endings is its own",
}


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One task: what both sides score, how far that is apart, and how far it is at most. `bound_open`: that is beyond
    what is allowed, so the evaluation is too small to show that it is not."""

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
    """A row a task, in the order in which they are scored."""
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
    """The standard and the limit that allows least of a measurement; (None, None) where none limits it."""
    return min(limits_on(bundle, measurement, statistic), key=lambda pair: pair[1].value, default=(None, None))


def allowed_of(bundle: Bundle, measurement: str) -> str:
    """What the strictest limit allows, in words; empty where none limits it."""
    standard, limit = least_limit(bundle, measurement)
    return f"{ALLOWED[limit.comparator].format(limit.value)} ({standard})" if limit else ""


def value_at(bundle: Bundle, measurement: str, place: Place) -> float | None:
    """What was measured at a place; None where nothing was."""
    measured = bundle.comparison[measurement]
    return dict(zip(measured.places, measured.values, strict=True)).get(place)


def document_columns(bundle: Bundle) -> dict[str, Column]:
    """`TASK.step`, and of each side `TASK.SIDE.score`, `.document`, `.words`, `.log_likelihood.N`; `TASK.difference` is
    that of the log-likelihoods of both sides."""
    columns: dict[str, Column] = {}
    for task, numbers in _numbers(bundle).items():
        columns[f"{task}.step"] = list(numbers)
        for side, lines in _lines(bundle, task).items():
            if lines or side != "oracle":
                _add_side(columns, f"{task}.{side}", numbers, {line.step: line for line in lines})
        add_column(columns, f"{task}.difference", list(_differences(bundle, task, numbers)))
    return columns


def document_tables(columns: Mapping[str, Column]) -> tuple[Table, ...]:
    """A CSV file a task."""
    return tuple(
        Table(
            ending=f"{task.replace('_', '-')}-documents.csv",
            title=f"{title}, every document",
            columns=tuple(name for name in columns if name.startswith(f"{task}.")),
        )
        for task, title in TITLES.items()
    )


def likelihoods_of(columns: Mapping[str, Column], task: EvaluationTask) -> list[tuple[str, str]]:
    """The columns of log-likelihoods of a task, by pairs: the reference's and the subject's."""
    pattern = f"{task}.reference.log_likelihood."
    pairs = [(name, name.replace(".reference.", ".subject.")) for name in columns if name.startswith(pattern)]
    return [pair for pair in pairs if pair[1] in columns]


def _numbers(bundle: Bundle) -> dict[EvaluationTask, range]:
    """The numbers of the documents of each task, over all tasks."""
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
