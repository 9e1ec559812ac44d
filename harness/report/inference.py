"""The sections for inference: scores, logits compared with the exact ones, continuations, each side with itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.base.text import listed
from harness.cases.runs_of_a_case import SUBJECT
from harness.evidence.bundle import Bundle
from harness.report.charts import Chart
from harness.report.columns import Column, Table
from harness.report.continuations import Continuations, continuations
from harness.report.criteria import Bar, used_of_allowed
from harness.report.document_charts import difference_chart, likelihood_chart
from harness.report.documents import (
    ScoreRow,
    allowed_of,
    document_columns,
    document_tables,
    least_limit,
    score_rows,
    value_at,
)
from harness.report.oracle import ErrorGroup, error_group
from harness.report.sides import SHOWN_TENSORS, Repeated, RepeatRow, badness, repeat_rows
from harness.report.words import Fact, count, number

SIDES = ("reference", "subject")
REPEATED = (
    Repeated(measurement="scores.differs", what="Every document's scores", noun="document"),
    Repeated(measurement="answers.differs", what="Logits and tokens", noun="tensor"),
)
SELVES = (
    ("cache", "With a cache, token by token, against all at once"),
    ("batch", "In a batch, padded on the left, against alone"),
)


@dataclass(frozen=True, kw_only=True)
class LogitsRow:
    """One row of tokens: both sides' errors, how far the subject's predictions are from the exact ones, and where both
    sides have the same best token."""

    row: str
    reference: str
    subject: str
    ratio: str
    divergence: str
    regret: str
    top1: str


@dataclass(frozen=True, kw_only=True)
class SelfRow:
    """How far a side is from itself if it computes the same in another way; `where` may state why that is not known."""

    side: str
    what: str
    largest: str
    where: str
    allowed: str
    bar: Bar | None


@dataclass(frozen=True, kw_only=True)
class InferencePart:
    """`charts` show every document; `not_drawn` states why there are none. `rest` are rows that unfold."""

    scores: tuple[ScoreRow, ...]
    charts: tuple[Chart, ...]
    not_drawn: str | None
    errors: ErrorGroup
    rows: tuple[LogitsRow, ...]
    rest: tuple[LogitsRow, ...]
    continuations: Continuations
    selves: tuple[SelfRow, ...]
    repeats: tuple[RepeatRow, ...]
    columns: dict[str, Column]
    tables: tuple[Table, ...]
    inputs: tuple[Fact, ...]


def build_inference(bundle: Bundle) -> InferencePart:
    """The sections of a bundle of inference, with the numbers of its documents."""
    columns, not_drawn = document_columns(bundle), _not_drawn(bundle)
    rows = tuple(_logits_rows(bundle))
    return InferencePart(
        scores=score_rows(bundle),
        charts=() if not_drawn else (likelihood_chart(columns), difference_chart(bundle)),
        not_drawn=not_drawn,
        errors=error_group(bundle, "logits", "Logits", "row"),
        rows=rows[:SHOWN_TENSORS],
        rest=rows[SHOWN_TENSORS:],
        continuations=continuations(bundle),
        selves=tuple(_self_row(bundle, side, *one) for one in SELVES for side in SIDES),
        repeats=repeat_rows(bundle, REPEATED),
        columns=columns,
        tables=document_tables(columns),
        inputs=tuple(_inputs(bundle)),
    )


def _inputs(bundle: Bundle) -> Iterator[Fact]:
    """The weights and the evaluation that the subject read, by digest."""
    section, run = bundle.case.inference_section, bundle.runs.get(SUBJECT)
    if run is None or run.trace is None:
        return
    yield Fact(term="Weights for inference", text=run.trace.header.weights, code=True)
    yield Fact(term="Evaluation", text=run.trace.header.batches, code=True)
    amounts = (count(section.rows, "row"), count(len(section.prompts), "prompt"), count(section.texts, "text"))
    documents = count(section.documents, "document")
    yield Fact(term="Size of the evaluation", text=f"{listed(amounts)}; {documents} of each other task")


def _not_drawn(bundle: Bundle) -> str | None:
    """Why there is no document to draw."""
    measured = bundle.comparison["score.log_likelihood"]
    finite = any(math.isfinite(value) for value in measured.values)
    return None if finite else measured.broken or measured.missing or "no document was scored"


def _logits_rows(bundle: Bundle) -> Iterator[LogitsRow]:
    """The highest ratio of errors first."""
    ratio = bundle.comparison["oracle.logits.ratio"]
    for place, value in sorted(zip(ratio.places, ratio.values, strict=True), key=lambda pair: -badness(pair[1])):
        names = (
            "oracle.logits.reference",
            "oracle.logits.subject",
            "oracle.divergence.subject",
            "oracle.regret.subject",
        )
        reference, subject, divergence, regret = (number(value_at(bundle, name, place)) for name in names)
        top1 = value_at(bundle, "top1.agreement", place)
        yield LogitsRow(
            row=str(place),
            reference=reference,
            subject=subject,
            ratio=number(value),
            divergence=divergence,
            regret=regret,
            top1=number(top1) if top1 is None else f"{100 * top1:.4g} %",
        )


def _self_row(bundle: Bundle, side: str, name: str, what: str) -> SelfRow:
    measured = bundle.comparison[f"{name}.{side}"]
    _, limit = least_limit(bundle, measured.name)
    pairs = list(zip(measured.places, measured.values, strict=True))
    worst = max(pairs, key=lambda pair: badness(pair[1]), default=None)
    return SelfRow(
        side=side,
        what=what,
        largest=number(worst[1] if worst else None),
        where=str(worst[0]) if worst else measured.broken or measured.missing or "no values",
        allowed=allowed_of(bundle, measured.name),
        bar=used_of_allowed(limit, worst[1]) if limit and worst else None,
    )
