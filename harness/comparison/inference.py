"""Measurements of the runs of an inference case; they judge nothing.

Takes the outputs of the sides for the same inputs, gives named measurements. The tensors of a run, by name (R rows,
P prompts, S positions, V vocabulary, T tokens):

    logits.N            [S, V] every logit of row N, computed at once
    cached.N            [S, V] the same, token by token with a cache
    batch.N, alone.N    [V]    after prompt N in the batch of all prompts, and alone
    greedy.N            [T]    the continuation of prompt N; the oracle also has greedy_logits.N [T, V]
    stopped.N           [<T]   the same, ended by a stop token
    sampled.N           [T]    sampled with a seed
    template.N          [T]    the tokens of conversation N
    decoded.N           [1 + T, V] after given prompt N, and after each token given then, decoded with a cache, alone
    decoded_batch.N     [1 + T, V] the same in the batch of all of them
    fed.N               [T]    the tokens that the model read: of each prompt, given prompt and conversation in turn

After the first token that differs, two continuations are not compared. The oracle's logits at that token show whether
it was a near tie.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cases.runs_of_a_case import ORACLE, REFERENCE, REFERENCE_REPEAT, SUBJECT, SUBJECT_REPEAT
from harness.comparison.decoding import measure_decoding
from harness.comparison.distance import error_ratio
from harness.comparison.fed_prompts import measure_fed_prompts
from harness.comparison.measurement import Comparison, Measurement, Tensors, why_broken
from harness.comparison.outputs import (
    AGREEMENT,
    DIVERGENCE,
    ERROR,
    REGRET,
    Array,
    Logits,
    at_position,
    both,
    first_difference,
    logits_of,
    numbered,
)
from harness.comparison.scores import likelihood_difference, measure_scores, measure_sense, measured, pairs_of, scored
from harness.comparison.training import compare_mappings, missing_steps, non_finite, per_run
from harness.runs import predictions
from harness.runs.evaluation import DECODED, DECODED_BATCH, FED
from harness.runs.predictions import SketchedLogits
from harness.runs.trace import Run

SIDES = (("reference", REFERENCE), ("subject", SUBJECT))
# The tensors of a run: one of each kind per row, prompt or conversation.
KINDS: Mapping[str, tuple[str, ...]] = {
    "rows": ("logits", "cached"),
    "prompts": ("batch", "alone", "greedy", "stopped", "sampled"),
    "conversations": ("template",),
    "decoded": (DECODED, DECODED_BATCH),
    "fed": (FED,),
}
KINDS_OF_ORACLE: Mapping[str, tuple[str, ...]] = {
    "rows": ("logits",),
    "prompts": ("greedy", "greedy_logits"),
    "decoded": (DECODED,),
}


@dataclass(frozen=True, kw_only=True)
class ExpectedInference:
    """The required runs and their inputs: digests of case, weights and evaluation by run; the digest of each weight;
    the configuration of the case; the length of each row, and the numbers of prompts and conversations; the length of
    each given prompt, and how many tokens are given after it; the tokens that a model reads, by prompt; digest and
    words of each document by task and number, and the right ending of each question; the loss per token of the texts
    by token frequency; and whether the weights come from training."""

    runs: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, str]]
    weights: Mapping[str, str]
    alignment: Mapping[str, Any]
    rows: tuple[int, ...]
    prompts: int
    conversations: int
    decoded: tuple[int, ...]
    decoded_tokens: int
    fed: Mapping[str, Array]
    documents: Mapping[str, tuple[str, int]]
    right: tuple[int, ...]
    unigram_nats: float
    text_tokens: int
    has_learned: bool


def measure_inference(
    runs: Mapping[str, Run], expected: ExpectedInference, tensors: Mapping[str, Tensors]
) -> Comparison:
    """All measurements of a case's runs, by name.

    `oracle.*` compares each side with the exact values, `greedy.*` compares the continuations, `cache.*` and `batch.*`
    each side with itself, `score.*` the evaluation (see `harness.comparison.scores`). `oracle.cached.*` and
    `oracle.decoded.*` are about steps with a cache (see `harness.comparison.decoding`), `prompt.tokens.*` about what
    the models read (see `harness.comparison.fed_prompts`). `runs.*` is about the runs, `SIDE.repeat.*` about a side's
    second run.
    """
    found = [
        *_of_runs(runs, expected, tensors),
        *_logits(runs, tensors),
        *_continuations(runs, tensors),
        *_with_itself(runs, tensors),
        *measure_decoding(runs, tensors, expected.decoded),
        *measure_fed_prompts(runs, tensors, expected.fed),
        *measure_scores(runs.get(REFERENCE), runs.get(SUBJECT), expected.right),
        measure_sense(runs.get(SUBJECT), expected.unigram_nats, expected.text_tokens, has_learned=expected.has_learned),
    ]
    return Comparison(measurements={measurement.name: measurement for measurement in found})


def _of_runs(
    runs: Mapping[str, Run], expected: ExpectedInference, tensors: Mapping[str, Tensors]
) -> Iterator[Measurement]:
    def missing(run: Run) -> float:
        return missing_steps(run) + _wrong_outputs(run, expected, tensors.get(run.name, {}))

    yield per_run("runs.missing_steps", expected.runs, runs, missing)
    yield per_run("runs.foreign_inputs", expected.runs, runs, lambda run: _foreign(run, expected.inputs.get(run.name)))
    yield non_finite(runs.values())
    for (side, name), again in zip(SIDES, (REFERENCE_REPEAT, SUBJECT_REPEAT), strict=True):
        run, repeat = runs.get(name), runs.get(again)
        for what, wanted in (("initial", expected.weights), ("alignment", expected.alignment)):
            stated = getattr(run.trace.header, what) if run and run.trace else None
            yield compare_mappings(wanted, stated, why_broken(run)).named(f"{side}.{what}.differs")
        both = why_broken(run, repeat)
        yield compare_mappings(_lines(run), _lines(repeat), both).named(f"{side}.repeat.scores.differs")
        yield compare_mappings(_left(run), _left(repeat), both).named(f"{side}.repeat.answers.differs")
    yield _same_documents([runs.get(name) for _, name in SIDES], expected)


def _same_documents(made: Sequence[Run | None], expected: ExpectedInference) -> Measurement:
    """1 for each document that a side did not score, or that is not the expected one."""
    stated = [_documents(run) for run in made]
    names = sorted({*expected.documents, *(place for lines in stated for place in lines)})
    differs = [float(any(lines.get(place) != expected.documents.get(place) for lines in stated)) for place in names]
    return measured("train.batch.differs", names, differs, *made)


def _wrong_outputs(run: Run, expected: ExpectedInference, left: Tensors) -> float:
    """How many output tensors of a run are missing, unexpected or of a wrong length: a tensor that is missing on all
    sides would otherwise count as equal. NaN if the run did not finish."""
    if run.trace is None or run.trace.footer is None:
        return math.nan
    header, stated = run.trace.header, run.trace.footer.parameters
    if header.arm != "infer":
        return 0.0
    amounts = {
        "rows": len(expected.rows),
        "prompts": expected.prompts,
        "conversations": expected.conversations,
        "decoded": len(expected.decoded),
        "fed": len(expected.fed),
    }
    kinds = KINDS_OF_ORACLE if header.side == "oracle" else KINDS
    wanted = {f"{kind}.{n}" for what, every in kinds.items() for kind in every for n in range(amounts[what])}
    lengths = {"rows": expected.rows, "decoded": [1 + expected.decoded_tokens] * len(expected.decoded)}
    misfits = sum(
        n < len(every) and len(one) != every[n]
        for what, every in lengths.items()
        for kind in kinds[what]
        for n, one in logits_of(left, kind).items()
    )
    return float(len(wanted ^ set(stated)) + misfits)


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


def _logits(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """Compared with the oracle, by row: relative error, largest divergence of the predictions, largest regret, and the
    ratio of both sides' errors."""
    exact = logits_of(tensors.get(ORACLE, {}), "logits")
    errors = []
    for side, name in SIDES:
        found, made = logits_of(tensors.get(name, {}), "logits"), (runs.get(ORACLE), runs.get(name))
        rows = sorted({*exact, *found})
        places = [f"row {row}" for row in rows]
        pairs = [(exact.get(row), found.get(row)) for row in rows]
        errors.append([both(ERROR, *pair) for pair in pairs])
        yield measured(f"oracle.logits.{side}", places, errors[-1], *made)
        yield measured(f"oracle.divergence.{side}", places, [both(DIVERGENCE, *pair) for pair in pairs], *made)
        yield measured(f"oracle.regret.{side}", places, [both(REGRET, *pair) for pair in pairs], *made)
    same = len(errors[0]) == len(errors[1])
    ratios = [error_ratio(a, b) for a, b in zip(*errors, strict=True)] if same else []
    every = [runs.get(name) for name in (ORACLE, REFERENCE, SUBJECT)]
    yield measured("oracle.logits.ratio", places if same else [], ratios, *every)
    yield _top1(runs, tensors)
    yield from _after_prompts(runs, tensors)


def _after_prompts(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """Compared with the oracle, by prompt: relative error of the logits after it, as a prefill gives them."""
    every = logits_of(tensors.get(ORACLE, {}), "greedy_logits")
    exact = {n: at_position(one, 0) for n, one in every.items() if len(one)}
    for side, name in SIDES:
        found, made = logits_of(tensors.get(name, {}), "alone"), (runs.get(ORACLE), runs.get(name))
        prompts = sorted({*exact, *found})
        errors = [both(ERROR, exact.get(n), found.get(n)) for n in prompts]
        yield measured(f"oracle.prompt.{side}", [f"prompt {n}" for n in prompts], errors, *made)


def _top1(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """For each row, the share of positions at which both sides have the same best token."""
    sides = [logits_of(tensors.get(name, {}), "logits") for _, name in SIDES]
    rows = sorted({*sides[0], *sides[1]})
    values = [both(AGREEMENT, *(side.get(row) for side in sides)) for row in rows]
    return measured("top1.agreement", [f"row {row}" for row in rows], values, *(runs.get(name) for _, name in SIDES))


def _continuations(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """`greedy.regret.SIDE`, by prompt: 0 if the side continues as the oracle does, else the oracle's logit of its own
    token minus that of the side's at the first difference; `greedy.compared.SIDE`: the number of tokens before that."""
    left = tensors.get(ORACLE, {})
    exact, logits = numbered(left, "greedy"), logits_of(left, "greedy_logits")
    for side, name in SIDES:
        found, made = numbered(tensors.get(name, {}), "greedy"), (runs.get(ORACLE), runs.get(name))
        prompts = sorted({*exact, *found})
        found_at = [_regret_at_difference(exact.get(n), logits.get(n), found.get(n)) for n in prompts]
        places = [f"prompt {n}" for n in prompts]
        yield measured(f"greedy.regret.{side}", places, [regret for regret, _ in found_at], *made)
        yield measured(f"greedy.compared.{side}", places, [count for _, count in found_at], *made)
    for kind in ("sampled", "template"):
        yield _same_tokens(kind, runs, tensors)
    yield _stopped(runs, tensors)


def _regret_at_difference(exact_T: Array | None, logits: Logits | None, found_T: Array | None) -> tuple[float, float]:
    """The regret at the first difference of two continuations, and the tokens before it; NaN if one is missing."""
    if exact_T is None or logits is None or found_T is None or exact_T.shape != found_T.shape:
        return math.nan, math.nan
    at = first_difference(exact_T, found_T)
    if at is None:
        return 0.0, float(len(exact_T))
    own, other = (_logit(logits, at, int(tokens[at])) for tokens in (exact_T, found_T))
    return own - other, float(at)


def _logit(logits: Logits, position: int, token: int) -> float:
    if isinstance(logits, SketchedLogits):
        return predictions.logit_of(logits, position, token)
    return float(logits[position, token])


def _same_tokens(kind: str, runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """1 for each prompt or conversation for which the tokens of the sides differ, or one side has none."""
    a, b = (numbered(tensors.get(name, {}), kind) for _, name in SIDES)
    names = sorted({*a, *b})
    values = [float(n not in a or n not in b or first_difference(a[n], b[n]) is not None) for n in names]
    return measured(f"{kind}.differs", [f"{kind} {n}" for n in names], values, *(runs.get(name) for _, name in SIDES))


def _stopped(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """1 for each prompt that subject and reference continue differently with a stop token. A continuation that is
    a part of the greedy one is compared only as far as the greedy ones agree."""
    (greedy, stopped), (own_greedy, own_stopped) = (
        [numbered(tensors.get(name, {}), kind) for kind in ("greedy", "stopped")] for _, name in SIDES
    )
    prompts = sorted({*stopped, *own_stopped})

    def differs(n: int) -> float:
        if not all(n in one for one in (greedy, stopped, own_greedy, own_stopped)):
            return 1.0
        at = first_difference(stopped[n], own_stopped[n])
        found_at = first_difference(greedy[n], own_greedy[n])
        return float(at is not None and (found_at is None or at < found_at))

    made = (runs.get(name) for _, name in SIDES)
    return measured("stopped.differs", [f"prompt {n}" for n in prompts], [differs(n) for n in prompts], *made)


def _with_itself(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Iterator[Measurement]:
    """For each side, how far its results with a cache, or in a batch, are from those without."""
    for name, kinds, what in (("cache", ("logits", "cached"), "row"), ("batch", ("alone", "batch"), "prompt")):
        for side, run in SIDES:
            a, b = (logits_of(tensors.get(run, {}), kind) for kind in kinds)
            numbers = sorted({*a, *b})
            values = [both(ERROR, a.get(n), b.get(n)) for n in numbers]
            yield measured(f"{name}.{side}", [f"{what} {n}" for n in numbers], values, runs.get(run))


def inference_differences(a: Run | None, b: Run | None) -> dict[str, float]:
    """The differences of two runs of one side: the largest relative difference of a log-likelihood, and how many
    outputs have other bits; empty if one run left nothing."""
    lines, left = (scored(a), scored(b)), (_left(a), _left(b))
    if not all(lines) or not all(left):
        return {}
    differing = compare_mappings(left[0], left[1]).values
    return {
        "log_likelihood": max(likelihood_difference(x, y) for x, y in pairs_of(*lines)),
        "answers": math.fsum(differing),
    }
