"""Numbers out of the documents that two sides scored; says nothing about good or bad."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from harness.cases.runs_of_a_case import SUBJECT
from harness.comparison.distance import absolute
from harness.comparison.measurement import Measurement, Place, Series, why_broken, why_missing
from harness.comparison.paired_statistics import Interval, discordance_bound, perplexity_difference
from harness.runs.evaluation import TASKS
from harness.runs.trace import EvaluationTask, Run, Scored


def scored(run: Run | None) -> tuple[Scored, ...]:
    """The documents that a run scored, one after the other."""
    return run.trace.scored if run and run.trace else ()


def series_of(places: Sequence[Place], values: Sequence[float], *made: Run | None) -> Series:
    """Values of the runs `made`; they are missing where one of these is, or nothing is there."""
    absent = why_missing(*made) or (None if places else "nothing was recorded")
    return Series(
        places=tuple(places) if absent is None else (),
        values=tuple(values) if absent is None else (),
        missing=absent,
        broken=why_broken(*made),
    )


def measured(name: str, places: Sequence[Place], values: Sequence[float], *made: Run | None) -> Measurement:
    """The measurement with such values."""
    return series_of(places, values, *made).named(name)


def measure_scores(reference: Run | None, subject: Run | None, right: Sequence[int]) -> Iterator[Measurement]:
    """`score.difference`, by task: of texts |perplexity per word / the reference's - 1|, of the others the difference
    of the parts that are right; `score.bound`: what it is at most, in 95 % of the draws of as many documents;
    `score.log_likelihood`, by document: the difference, relative where it is of more than 1. `right` is which
    ending of each question is its own."""
    made = (reference, subject)
    lines, own = (_by_task(run) for run in made)
    found = [_difference(task, lines.get(task, ()), own.get(task, ()), right) for task in TASKS]
    yield measured("score.difference", TASKS, [one.value for one in found], *made)
    yield measured("score.bound", TASKS, [one.bound for one in found], *made)
    pairs = [(a, b) for task in TASKS for a, b in pairs_of(lines.get(task, ()), own.get(task, ()))]
    places = [f"{one.task} {one.step}" for a, b in pairs if (one := a or b)]
    yield measured("score.log_likelihood", places, [likelihoods_apart(a, b) for a, b in pairs], *made)


def _by_task(run: Run | None) -> dict[str, tuple[Scored, ...]]:
    lines = scored(run)
    return {task: tuple(line for line in lines if line.task == task) for task in {line.task for line in lines}}


def pairs_of(a: Sequence[Scored], b: Sequence[Scored]) -> list[tuple[Scored | None, Scored | None]]:
    """Each document of either, with what both scored it."""
    left, right = ({line.step: line for line in lines} for lines in (a, b))
    return [(left.get(step), right.get(step)) for step in sorted({*left, *right})]


def likelihoods_apart(a: Scored | None, b: Scored | None) -> float:
    """The largest difference of a log-likelihood of a document, relative where it is of more than 1; NaN where a side
    lacks it."""
    if a is None or b is None or len(a.log_likelihoods) != len(b.log_likelihoods):
        return math.nan
    # a likelihood near 1 has a logarithm near 0, of which nothing relative can be asked
    return max(absolute(x, y) / max(1.0, abs(x)) for x, y in zip(a.log_likelihoods, b.log_likelihoods, strict=True))


def _difference(
    task: EvaluationTask, reference: Sequence[Scored], subject: Sequence[Scored], right: Sequence[int]
) -> Interval:
    """NaN where a side scored nothing, lacks a document of the other, holds a number that is not finite, or a score
    that does not follow from its log-likelihoods."""
    pairs = pairs_of(reference, subject)
    sides = (reference, subject)
    if not pairs or not all(a and b for a, b in pairs) or not all(_follows(task, lines, right) for lines in sides):
        return Interval(value=math.nan, bound=math.nan)
    scores, own = ([line.score for line in lines] for lines in sides)
    if task == "text":
        return perplexity_difference(scores, own, [line.words for line in reference])
    return discordance_bound(scores, own)


def _follows(task: EvaluationTask, lines: Sequence[Scored], right: Sequence[int]) -> bool:
    """Whether every score is what its log-likelihoods say. Whether a word is the greedy one they do not say."""
    if not all(line.finite for line in lines):
        return False
    if task == "text":
        return all(line.log_likelihoods == (line.score,) for line in lines)
    if task == "ending":
        best = [int(np.argmax(line.log_likelihoods)) for line in lines if line.log_likelihoods]
        return [float(a == b) for a, b in zip(best, right, strict=False)] == [line.score for line in lines]
    return all(line.score in (0.0, 1.0) and len(line.log_likelihoods) == 1 for line in lines)


def measure_sense(run: Run | None, unigram_nats: float, text_tokens: int) -> Measurement:
    """`subject.sense`: what a token of the texts costs a subject, in nats, over what its frequency alone makes it."""
    texts = [line.score for line in scored(run) if line.task == "text"]
    cost = -math.fsum(texts) / text_tokens if texts else math.nan
    return measured("subject.sense", [SUBJECT] if texts else [], [cost / unigram_nats], run)


def scores_apart(a: Run, b: Run) -> Series:
    """By document, how far two runs' log-likelihoods are apart: 0 where the lines are the same; NaN where one lacks it,
    it is another document, or all that differs is what followed from the same likelihoods."""
    pairs = pairs_of(scored(a), scored(b))
    places = [f"{one.task} {one.step}" for x, y in pairs if (one := x or y)]
    return series_of(places, [_line_apart(x, y) for x, y in pairs], a, b)


def _line_apart(a: Scored | None, b: Scored | None) -> float:
    if a == b:
        return 0.0
    if a is None or b is None or a.document != b.document:
        return math.nan
    return likelihoods_apart(a, b) or math.nan
