"""Numbers out of the runs of a case of inference; says nothing about good or bad.

Takes what the sides answered to the same questions, gives named measurements as `harness.comparison` does. What a run
left, by name (R rows, P prompts, S positions, V vocabulary, T tokens):

    logits.N            [S, V] every logit of row N, computed at once
    cached.N            [S, V] the same token after token, by a cache
    batch.N, alone.N    [V]    after prompt N in the batch of all, and by itself
    greedy.N            [T]    the continuation of prompt N; of the oracle also greedy_logits.N [T, V]
    stopped.N           [<T]   the same where a token ends it
    sampled.N           [T]    drawn, by a seed
    template.N          [T]    the tokens of conversation N

Of two continuations that part, nothing after that is compared; whether they part at a near tie is told by the oracle's
logits there.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.cases.runs_of_a_case import ORACLE, REFERENCE, REFERENCE_REPEAT, SUBJECT, SUBJECT_REPEAT
from harness.comparison.distance import error_ratio, tensor_difference
from harness.comparison.measurement import Comparison, Measurement, Tensors, why_broken
from harness.comparison.scores import likelihoods_apart, measure_scores, measure_sense, measured, pairs_of, scored
from harness.comparison.training import compare_mappings, missing_steps, non_finite, per_run
from harness.runs.trace import Run

Array = npt.NDArray[Any]
SIDES = (("reference", REFERENCE), ("subject", SUBJECT))
# What a run leaves: so many tensors of a kind as there are rows, prompts or conversations.
KINDS: Mapping[str, tuple[str, ...]] = {
    "rows": ("logits", "cached"),
    "prompts": ("batch", "alone", "greedy", "stopped", "sampled"),
    "conversations": ("template",),
}
KINDS_OF_ORACLE: Mapping[str, tuple[str, ...]] = {"rows": ("logits",), "prompts": ("greedy", "greedy_logits")}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which runs there have to be, and what each starts from: digests of case, weights and questions by run; digest of
    each weight; the configuration as the case states it; the length of each row, and how many prompts and conversations
    there are; digest and words of each document by task and number, and which of its endings is a question's own; and
    what a token of the texts costs by its frequency."""

    runs: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, str]]
    weights: Mapping[str, str]
    alignment: Mapping[str, Any]
    rows: tuple[int, ...]
    prompts: int
    conversations: int
    documents: Mapping[str, tuple[str, int]]
    right: tuple[int, ...]
    unigram_nats: float
    text_tokens: int


def measure_answers(runs: Mapping[str, Run], asked: Asked, tensors: Mapping[str, Tensors]) -> Comparison:
    """All measurements of a case's runs, by name.

    `oracle.*` compares either side with the exact values, `greedy.*` the continuations, `cache.*` and `batch.*` a side
    with itself, `score.*` the evaluation (see `harness.comparison.scores`), `runs.*` is about the runs,
    `SIDE.repeat.*` about a side's second run.
    """
    found = [
        *_of_runs(runs, asked, tensors),
        *_logits(runs, tensors),
        *_continuations(runs, tensors),
        *_with_itself(runs, tensors),
        *measure_scores(runs.get(REFERENCE), runs.get(SUBJECT), asked.right),
        measure_sense(runs.get(SUBJECT), asked.unigram_nats, asked.text_tokens),
    ]
    return Comparison(measurements={measurement.name: measurement for measurement in found})


def _of_runs(runs: Mapping[str, Run], asked: Asked, tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    def missing(run: Run) -> float:
        return missing_steps(run) + _unanswered(run, asked, tensors.get(run.name, {}))

    yield per_run("runs.missing_steps", asked.runs, runs, missing)
    yield per_run("runs.foreign_inputs", asked.runs, runs, lambda run: _foreign(run, asked.inputs.get(run.name)))
    yield non_finite(runs.values())
    for (side, name), again in zip(SIDES, (REFERENCE_REPEAT, SUBJECT_REPEAT), strict=True):
        run, repeat = runs.get(name), runs.get(again)
        for what, wanted in (("initial", asked.weights), ("alignment", asked.alignment)):
            stated = getattr(run.trace.header, what) if run and run.trace else None
            yield compare_mappings(wanted, stated, why_broken(run)).named(f"{side}.{what}.differs")
        both = why_broken(run, repeat)
        yield compare_mappings(_lines(run), _lines(repeat), both).named(f"{side}.repeat.scores.differs")
        yield compare_mappings(_left(run), _left(repeat), both).named(f"{side}.repeat.answers.differs")
    yield _same_documents([runs.get(name) for _, name in SIDES], asked)


def _same_documents(made: Sequence[Run | None], asked: Asked) -> Measurement:
    """1 for each document that a side scored otherwise than as it was asked, or not at all."""
    stated = [_documents(run) for run in made]
    names = sorted({*asked.documents, *(place for lines in stated for place in lines)})
    differs = [float(any(lines.get(place) != asked.documents.get(place) for lines in stated)) for place in names]
    return measured("train.batch.differs", names, differs, *made)


def _unanswered(run: Run, asked: Asked, left: Tensors) -> float:
    """How many of the tensors of an answer a run lacks, has beyond them, or has of other than a row's length: what all
    sides lack would be compared as the same. NaN where it did not come to its end."""
    if run.trace is None or run.trace.footer is None:
        return math.nan
    header, stated = run.trace.header, run.trace.footer.parameters
    if header.arm != "infer":
        return 0.0
    amounts = {"rows": len(asked.rows), "prompts": asked.prompts, "conversations": asked.conversations}
    kinds = KINDS_OF_ORACLE if header.side == "oracle" else KINDS
    wanted = {f"{kind}.{n}" for what, every in kinds.items() for kind in every for n in range(amounts[what])}
    rows = {f"{kind}.{n}": length for kind in kinds["rows"] for n, length in enumerate(asked.rows)}
    cut = [name for name, length in rows.items() if name in left and len(left[name]) != length]
    return float(len(wanted ^ set(stated)) + len(cut))


def _foreign(run: Run, expected: Mapping[str, str] | None) -> float:
    if run.trace is None or expected is None:
        return math.nan
    return float(sum(getattr(run.trace.header, key) != digest for key, digest in expected.items()))


def _lines(run: Run | None) -> Mapping[str, Any] | None:
    return {f"{line.task} {line.step}": (line.log_likelihoods, line.score) for line in scored(run)} or None


def _documents(run: Run | None) -> Mapping[str, tuple[str, int]]:
    return {f"{line.task} {line.step}": (line.document, line.words) for line in scored(run)}


def _left(run: Run | None) -> Mapping[str, str] | None:
    return run.trace.footer.parameters if run and run.trace and run.trace.footer else None


def _numbered(tensors: Tensors, kind: str) -> dict[int, Array]:
    """The tensors `KIND.N` by N."""
    names = (name.partition(".") for name in tensors)
    return {int(number): tensors[f"{kind}.{number}"] for first, _, number in names if first == kind}


def _logits(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """Against the oracle, by row: relative error; largest divergence of what is predicted; by how much the oracle holds
    another token for the best, at worst; and of the double benchmark the ratio of the errors."""
    exact = _numbered(tensors.get(ORACLE, {}), "logits")
    errors = []
    for side, name in SIDES:
        found, made = _numbered(tensors.get(name, {}), "logits"), (runs.get(ORACLE), runs.get(name))
        rows = sorted({*exact, *found})
        places = [f"row {row}" for row in rows]
        pairs = [(exact.get(row), found.get(row)) for row in rows]
        errors.append([_both(lambda a, b: tensor_difference(a, b)[0], *pair) for pair in pairs])
        yield measured(f"oracle.logits.{side}", places, errors[-1], *made)
        yield measured(f"oracle.divergence.{side}", places, [_both(divergence, *pair) for pair in pairs], *made)
        yield measured(f"oracle.regret.{side}", places, [_both(largest_regret, *pair) for pair in pairs], *made)
    same = len(errors[0]) == len(errors[1])
    ratios = [error_ratio(a, b) for a, b in zip(*errors, strict=True)] if same else []
    every = [runs.get(name) for name in (ORACLE, REFERENCE, SUBJECT)]
    yield measured("oracle.logits.ratio", places if same else [], ratios, *every)
    yield _top1(runs, tensors)
    yield from _after_prompts(runs, tensors)


def _after_prompts(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """Against the oracle, by prompt: relative error of the logits after it, as they come out of a prefill."""
    exact = {n: every[0] for n, every in _numbered(tensors.get(ORACLE, {}), "greedy_logits").items() if len(every)}
    for side, name in SIDES:
        found, made = _numbered(tensors.get(name, {}), "alone"), (runs.get(ORACLE), runs.get(name))
        prompts = sorted({*exact, *found})
        errors = [_both(lambda a, b: tensor_difference(a, b)[0], exact.get(n), found.get(n)) for n in prompts]
        yield measured(f"oracle.prompt.{side}", [f"prompt {n}" for n in prompts], errors, *made)


def _both(function: Callable[[Array, Array], float], a: Array | None, b: Array | None) -> float:
    """NaN where one side has none, or another shape."""
    return math.nan if a is None or b is None or a.shape != b.shape else function(a, b)


def divergence(exact_SV: Array, found_SV: Array) -> float:
    """The largest Kullback-Leibler divergence over positions of what is predicted from what is exact, in nats, float64.
    What is not finite gives NaN."""
    exact, found = (_log_softmax(logits) for logits in (exact_SV, found_SV))
    return float(np.max((np.exp(exact) * (exact - found)).sum(-1)))


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def largest_regret(exact_SV: Array, found_SV: Array) -> float:
    """By how much the exact logit of the best token is above that of the token found best, at the worst position."""
    if not np.isfinite(found_SV).all():
        return math.nan
    chosen = np.take_along_axis(exact_SV, found_SV.argmax(-1)[:, None], -1)[:, 0]
    return float(np.max(exact_SV.max(-1) - chosen))


def _top1(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """Of each row, the part of the positions at which both sides hold the same token for the best."""
    sides = [_numbered(tensors.get(name, {}), "logits") for _, name in SIDES]
    rows = sorted({*sides[0], *sides[1]})
    values = [_both(_agreement, *(side.get(row) for side in sides)) for row in rows]
    return measured("top1.agreement", [f"row {row}" for row in rows], values, *(runs.get(name) for _, name in SIDES))


def _agreement(a_SV: Array, b_SV: Array) -> float:
    return float(np.mean(a_SV.argmax(-1) == b_SV.argmax(-1)))


def _continuations(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """`greedy.regret.SIDE`, by prompt: 0 where the side continues as the oracle does, else by how much the oracle's
    own token was above the side's where they part; `greedy.compared.SIDE`: how many tokens that holds for."""
    left = tensors.get(ORACLE, {})
    exact, logits = _numbered(left, "greedy"), _numbered(left, "greedy_logits")
    for side, name in SIDES:
        found, made = _numbered(tensors.get(name, {}), "greedy"), (runs.get(ORACLE), runs.get(name))
        prompts = sorted({*exact, *found})
        parted = [_parting(exact.get(n), logits.get(n), found.get(n)) for n in prompts]
        places = [f"prompt {n}" for n in prompts]
        yield measured(f"greedy.regret.{side}", places, [regret for regret, _ in parted], *made)
        yield measured(f"greedy.compared.{side}", places, [count for _, count in parted], *made)
    for kind in ("sampled", "template"):
        yield _same_tokens(kind, runs, tensors)
    yield _stopped(runs, tensors)


def _parting(exact_T: Array | None, logits_TV: Array | None, found_T: Array | None) -> tuple[float, float]:
    """The regret where two continuations part, and the tokens before that; NaN where there is nothing to compare."""
    if exact_T is None or logits_TV is None or found_T is None or exact_T.shape != found_T.shape:
        return math.nan, math.nan
    at = first_difference(exact_T, found_T)
    if at is None:
        return 0.0, float(len(exact_T))
    return float(logits_TV[at, exact_T[at]] - logits_TV[at, found_T[at]]), float(at)


def first_difference(a: Array, b: Array) -> int | None:
    """The first place at which two rows of tokens differ, also because one ends there; None where they are the same."""
    common = min(len(a), len(b))
    differing = np.flatnonzero(a[:common] != b[:common])
    if differing.size:
        return int(differing[0])
    return None if len(a) == len(b) else common


def _same_tokens(kind: str, runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """1 for each that the sides have other tokens for, or that one of them lacks."""
    a, b = (_numbered(tensors.get(name, {}), kind) for _, name in SIDES)
    names = sorted({*a, *b})
    values = [float(n not in a or n not in b or first_difference(a[n], b[n]) is not None) for n in names]
    return measured(f"{kind}.differs", [f"{kind} {n}" for n in names], values, *(runs.get(name) for _, name in SIDES))


def _stopped(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """1 for each prompt that the subject continues, where a token ends it, otherwise than the reference does; what both
    continue as they do without that token is compared as far as they agree there."""
    (greedy, stopped), (own_greedy, own_stopped) = (
        [_numbered(tensors.get(name, {}), kind) for kind in ("greedy", "stopped")] for _, name in SIDES
    )
    prompts = sorted({*stopped, *own_stopped})

    def differs(n: int) -> float:
        if not all(n in one for one in (greedy, stopped, own_greedy, own_stopped)):
            return 1.0
        at = first_difference(stopped[n], own_stopped[n])
        parted = first_difference(greedy[n], own_greedy[n])
        return float(at is not None and (parted is None or at < parted))

    made = (runs.get(name) for _, name in SIDES)
    return measured("stopped.differs", [f"prompt {n}" for n in prompts], [differs(n) for n in prompts], *made)


def _with_itself(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """Of each side, how far what it computes by a cache, or in a batch, is from what it computes otherwise."""
    for name, kinds, what in (("cache", ("logits", "cached"), "row"), ("batch", ("alone", "batch"), "prompt")):
        for side, run in SIDES:
            a, b = (_numbered(tensors.get(run, {}), kind) for kind in kinds)
            numbers = sorted({*a, *b})
            values = [_both(lambda x, y: tensor_difference(x, y)[0], a.get(n), b.get(n)) for n in numbers]
            yield measured(f"{name}.{side}", [f"{what} {n}" for n in numbers], values, runs.get(run))


def answers_apart(a: Run | None, b: Run | None) -> dict[str, float]:
    """How far two runs of one side are apart: the largest relative difference of a log-likelihood, and how many of the
    answers have other bits; empty where one of them left nothing."""
    lines, left = (scored(a), scored(b)), (_left(a), _left(b))
    if not all(lines) or not all(left):
        return {}
    differing = compare_mappings(left[0], left[1]).values
    return {
        "log_likelihood": max(likelihoods_apart(x, y) for x, y in pairs_of(*lines)),
        "answers": math.fsum(differing),
    }
