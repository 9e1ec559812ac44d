"""Measurements of the documents that two sides scored; they judge nothing."""

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
    """The documents that a run scored, in order."""
    return run.trace.scored if run and run.trace else ()


def series_of(places: Sequence[Place], values: Sequence[float], *made: Run | None) -> Series:
    """Values of the runs `made`; they are missing if a run is missing or there is no place."""
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
    """`score.difference`, by task: for texts |perplexity per word / the reference's - 1|, for others the difference of
    the shares that are right; `score.bound`: its upper bound at 95 % confidence; `score.log_likelihood`, by document:
    the difference, relative for values above 1. `right` is the right ending of each question."""
    made = (reference, subject)
    lines, own = (_by_task(run) for run in made)
    found = [_difference(task, lines.get(task, ()), own.get(task, ()), right) for task in TASKS]
    yield measured("score.difference", TASKS, [one.value for one in found], *made)
    yield measured("score.bound", TASKS, [one.bound for one in found], *made)
    pairs = [(a, b) for task in TASKS for a, b in pairs_of(lines.get(task, ()), own.get(task, ()))]
    places = [f"{one.task} {one.step}" for a, b in pairs if (one := a or b)]
    yield measured("score.log_likelihood", places, [likelihood_difference(a, b) for a, b in pairs], *made)


def _by_task(run: Run | None) -> dict[str, tuple[Scored, ...]]:
    lines = scored(run)
    return {task: tuple(line for line in lines if line.task == task) for task in {line.task for line in lines}}


def pairs_of(a: Sequence[Scored], b: Sequence[Scored]) -> list[tuple[Scored | None, Scored | None]]:
    """Each document of either side, with both scores."""
    left, right = ({line.step: line for line in lines} for lines in (a, b))
    return [(left.get(step), right.get(step)) for step in sorted({*left, *right})]


def likelihood_difference(a: Scored | None, b: Scored | None) -> float:
    """The largest difference of a log-likelihood of a document, relative for values above 1; NaN if a side has none."""
    if a is None or b is None or len(a.log_likelihoods) != len(b.log_likelihoods):
        return math.nan
    # a likelihood near 1 has a logarithm near 0, for which a relative difference has no meaning
    return max(absolute(x, y) / max(1.0, abs(x)) for x, y in zip(a.log_likelihoods, b.log_likelihoods, strict=True))


def _difference(
    task: EvaluationTask, reference: Sequence[Scored], subject: Sequence[Scored], right: Sequence[int]
) -> Interval:
    """NaN if a side scored nothing, misses a document of the other, or has a number that is not finite or a score that
    does not follow from its log-likelihoods."""
    pairs = pairs_of(reference, subject)
    sides = (reference, subject)
    if not pairs or not all(a and b for a, b in pairs) or not all(_follows(task, lines, right) for lines in sides):
        return Interval(value=math.nan, bound=math.nan)
    scores, own = ([line.score for line in lines] for lines in sides)
    if task == "text":
        return perplexity_difference(scores, own, [line.words for line in reference])
    return discordance_bound(scores, own)


def _follows(task: EvaluationTask, lines: Sequence[Scored], right: Sequence[int]) -> bool:
    """Whether every score follows from its log-likelihoods. They do not show whether a word is the greedy one."""
    if not all(line.finite for line in lines):
        return False
    if task == "text":
        return all(line.log_likelihoods == (line.score,) for line in lines)
    if task == "ending":
        best = [int(np.argmax(line.log_likelihoods)) for line in lines if line.log_likelihoods]
        return [float(a == b) for a, b in zip(best, right, strict=False)] == [line.score for line in lines]
    return all(line.score in (0.0, 1.0) and len(line.log_likelihoods) == 1 for line in lines)


def measure_sense(run: Run | None, unigram_nats: float, text_tokens: int, *, has_learned: bool) -> Measurement:
    """`subject.sense`: the subject's loss per token of the texts, divided by the loss by token frequency. It is not
    measured of a model that has learned nothing."""
    if not has_learned:
        unmeasured = "the weights are drawn: a model that has learned nothing predicts nothing"
        return Series(missing=unmeasured, broken=why_broken(run)).named("subject.sense")
    texts = [line.score for line in scored(run) if line.task == "text"]
    cost = -math.fsum(texts) / text_tokens if texts else math.nan
    return measured("subject.sense", [SUBJECT] if texts else [], [cost / unigram_nats], run)


def score_differences(a: Run, b: Run) -> Series:
    """By document, the difference of two runs' log-likelihoods: 0 if the lines are equal; NaN if a run has none, if it
    is another document, or if the likelihoods are equal and something else differs."""
    pairs = pairs_of(scored(a), scored(b))
    places = [f"{one.task} {one.step}" for x, y in pairs if (one := x or y)]
    return series_of(places, [_line_difference(x, y) for x, y in pairs], a, b)


def _line_difference(a: Scored | None, b: Scored | None) -> float:
    if a == b:
        return 0.0
    if a is None or b is None or a.document != b.document:
        return math.nan
    return likelihood_difference(a, b) or math.nan
