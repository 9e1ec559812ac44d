"""The measurements: name, unit, places, task and meaning of each, and when it is known.

Every measurement of `harness.comparison` has its name from here, and a standard can limit these and no others. Code
that has to know what a measurement is looks its name up and never takes the name apart.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from harness.cases.runs_of_a_case import (
    REFERENCE,
    REFERENCE_LR_ZERO,
    REFERENCE_REPEAT,
    SUBJECT,
    SUBJECT_ALONE,
    SUBJECT_LR_ZERO,
    SUBJECT_REPEAT,
    SUBJECT_RESUMED,
)
from harness.cases.task import TaskName

Topic = Literal[
    "Runs", "Alignment", "Determinism", "Optimizer", "First step and gradients", "Layout", "Scores", "Logits",
    "Continuations", "Cache and batch", "Trajectory", "Convergence", "Length", "Others",
]  # fmt: skip
PlaceKind = Literal[
    "step",
    "tensor",
    "run",
    "file",
    "operator",
    "field",
    "document",
    "evaluation task",
    "row",
    "prompt",
    "position",
    "conversation",
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the measurement of one name is.

    Attributes:
        name: As standards and findings have it.
        pattern: The name with its variable parts in capitals, as the documents list it.
        capitals: What each of these capitals is in this name.
        unit: The unit of a value.
        places: What each value belongs to, by task. A task that is not here does not have the measurement.
        topic: The group of criteria that it belongs to on the page.
        meaning: One sentence, with the capitals of the pattern.
        known_at: 0 for what is known before the first step, 1 for what the first step shows; None where a value is
            known at its own step, or at the end of the runs.
        unsigned: The same without a direction, for a measurement whose values have one; None for any other.
        scales: The measurement that this one states in another unit.
        scaled_by: The measurement that holds this unit.
        higher_is_better: Whether a limit has to be the least that is required.
    """

    name: str
    pattern: str
    capitals: Mapping[str, str]
    unit: str
    places: Mapping[TaskName, PlaceKind]
    topic: Topic
    meaning: str
    known_at: Literal[0, 1] | None = None
    unsigned: str | None = None
    scales: str | None = None
    scaled_by: str | None = None
    higher_is_better: bool = False

    @property
    def differs(self) -> bool:
        """Whether each value states that two things are the same (0) or not (1)."""
        return self.unit == DIFFERS


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs that are compared step by step, with the first part of their measurements' names."""

    name: str
    first: str
    second: str
    meaning: str


TRAIN = Pair(name="train", first=REFERENCE, second=SUBJECT, meaning="reference and subject")
LR_ZERO = Pair(
    name="lr_zero",
    first=REFERENCE_LR_ZERO,
    second=SUBJECT_LR_ZERO,
    meaning="reference and subject, both at learning rate 0",
)
REPEATS = (
    Pair(name="reference.repeat", first=REFERENCE, second=REFERENCE_REPEAT, meaning="two runs of the reference"),
    Pair(name="subject.repeat", first=SUBJECT, second=SUBJECT_REPEAT, meaning="two runs of the subject"),
)
RESUMED = Pair(
    name="subject.resumed",
    first=SUBJECT,
    second=SUBJECT_RESUMED,
    meaning="the subject, and its run that was resumed from a checkpoint",
)
LAYOUT = Pair(
    name="layout", first=SUBJECT_ALONE, second=SUBJECT, meaning="the subject in one process, and over its ranks"
)
PAIRS = (TRAIN, LR_ZERO, *REPEATS, RESUMED, LAYOUT)
NUMBERS: Mapping[str, str] = {
    "loss": "loss, in nats per token",
    "grad_norm": "norm of the gradient before clipping",
    "learning_rate": "learning rate",
    "tokens": "number of tokens in the loss",
}
EXACT = ("loss", "grad_norm")  # the numbers that the oracle computes too
SIDES = ("reference", "subject")

DIFFERS, FLAG = "1 if different, else 0", "1 if so, else 0"
RELATIVE, COUNT, NATS, LOGITS = "relative", "count", "nats", "logits"
REFERENCE_ERRORS, STANDARD_ERRORS, DEVIATIONS = "errors of the reference", "standard errors", "standard deviations"
Places = Mapping[TaskName, PlaceKind]
STEPS: Places = {"pretrain": "step", "finetune": "step"}
TENSORS: Places = {"pretrain": "tensor", "finetune": "tensor"}
ONE_RUN: Places = {"pretrain": "run", "finetune": "run"}
FILE: Places = {"pretrain": "file", "finetune": "file"}
OPERATORS: Places = {"pretrain": "operator", "finetune": "operator"}
ROWS: Places = {"inference": "row"}
PROMPTS: Places = {"inference": "prompt"}
POSITIONS: Places = {"inference": "position"}
FIRST_STEP: Topic = "First step and gradients"
# Which numbers of which runs belong to which topic.
CURVES: tuple[tuple[Sequence[Pair], Sequence[str], Topic], ...] = (
    ((TRAIN,), EXACT, "Trajectory"),
    ((TRAIN,), ("learning_rate",), "Optimizer"),
    ((TRAIN,), ("tokens",), "Alignment"),
    ((LR_ZERO,), tuple(NUMBERS), FIRST_STEP),
    ((*REPEATS, RESUMED), tuple(NUMBERS), "Determinism"),
    ((LAYOUT,), tuple(NUMBERS), "Layout"),
)
# The runs whose batches, or final parameters, are compared, and the topic.
BATCHES: Mapping[Pair, Topic] = {
    LR_ZERO: FIRST_STEP,
    **dict.fromkeys((*REPEATS, RESUMED), "Determinism"),
    LAYOUT: "Layout",
}
FINAL_BITS: Mapping[Pair, Topic] = {
    TRAIN: "Trajectory",
    LR_ZERO: "Optimizer",
    **dict.fromkeys(REPEATS, "Determinism"),
    RESUMED: "Determinism",
    LAYOUT: "Layout",
}
FINAL_PARAMETERS: Mapping[Pair, Topic] = {TRAIN: "Trajectory", LAYOUT: "Layout"}
TENSORS_WITH_ORACLE: Mapping[str, Topic] = {"gradients": FIRST_STEP, "updates": "Optimizer"}
# A measurement in errors of the reference, what it was before, and the topic.
SCALED: tuple[tuple[str, str, Topic], ...] = (
    ("train.NUMBER.scaled", "train.NUMBER.relative", "Trajectory"),
    ("lr_zero.NUMBER.scaled", "lr_zero.NUMBER.relative", FIRST_STEP),
    ("oracle.NUMBER.scaled", "oracle.NUMBER.subject", "Trajectory"),
)

Over = Mapping[str, Sequence[str]]
ONCE: Over = MappingProxyType({})
EACH_SIDE: Over = {"SIDE": SIDES}
EACH_EXACT: Over = {"NUMBER": EXACT}


def _each(
    pattern: str,
    unit: str,
    places: Places,
    topic: Topic,
    meaning: str,
    over: Over = ONCE,
    **more: Any,
) -> Iterator[Kind]:
    """A kind for each value of the capitals in `over`; `more` has further fields, with capitals in names too."""
    for values in itertools.product(*over.values()):
        capitals, fields = dict(zip(over, values, strict=True)), {"name": pattern, **more}
        for capital, value in capitals.items():
            fields = {key: one.replace(capital, value) if isinstance(one, str) else one for key, one in fields.items()}
        yield Kind(pattern=pattern, capitals=capitals, unit=unit, places=places, topic=topic, meaning=meaning, **fields)


def _of_every_task() -> Iterator[Kind]:
    runs: Places = {**ONE_RUN, "inference": "run"}
    tensors: Places = {**TENSORS, "inference": "tensor"}
    fields: Places = {"pretrain": "field", "finetune": "field", "inference": "field"}
    batches: Places = {**STEPS, "inference": "document"}
    yield from _each("runs.missing_steps", COUNT, runs, "Runs", "Missing and unexpected steps or outputs of the run.")
    yield from _each("runs.non_finite", FLAG, runs, "Runs", "The run recorded a number that is not finite.")
    inputs = (
        "Digests of case, weights and batches that the run states and that are not the case's; for training also its "
        "steps whose learning rate or target tokens are not the case's."
    )
    yield from _each("runs.foreign_inputs", COUNT, runs, "Alignment", inputs)
    initial = "An initial weight in the first run of SIDE, and in the case."
    yield from _each("SIDE.initial.differs", DIFFERS, tensors, "Alignment", initial, EACH_SIDE, known_at=0)
    configured = "A field of the configuration in the first run of SIDE, and in the case."
    yield from _each("SIDE.alignment.differs", DIFFERS, fields, "Alignment", configured, EACH_SIDE, known_at=0)
    given = "The tokens of both sides; for inference a document of both sides, and of the case."
    yield from _each("train.batch.differs", DIFFERS, batches, "Alignment", given)


def _of_steps() -> Iterator[Kind]:
    """A number in each step of two runs."""
    for pairs, numbers, topic in CURVES:
        over = {"PAIR": [pair.name for pair in pairs], "NUMBER": numbers}
        absolute = "abs(b - a), where a and b are the NUMBER of the first and the second run of PAIR."
        yield from _each("PAIR.NUMBER.absolute", "that of NUMBER", STEPS, topic, absolute, over)
        yield from _each("PAIR.NUMBER.relative", RELATIVE, STEPS, topic, "abs(b - a) / abs(a).", over)
        unsigned = "PAIR.NUMBER.relative"
        yield from _each("PAIR.NUMBER.signed", RELATIVE, STEPS, topic, "(b - a) / abs(a).", over, unsigned=unsigned)
        yield from _each("PAIR.NUMBER.differs", DIFFERS, STEPS, topic, "The bits of a and b.", over)
    for pair, topic in BATCHES.items():
        yield from _each("PAIR.batch.differs", DIFFERS, STEPS, topic, "The tokens of both runs.", {"PAIR": [pair.name]})


def _of_tensors() -> Iterator[Kind]:
    """Parameters and gradients of two runs."""
    for pair, topic in FINAL_BITS.items():
        bits, over = "The bits of a final parameter in both runs.", {"PAIR": [pair.name]}
        yield from _each("PAIR.parameters.differs", DIFFERS, TENSORS, topic, bits, over)
    relative = "Norm of the difference over the norm of the first run's tensor."
    maximum = "Largest difference of an element over the root mean square of the first run's tensor."
    for pair, topic in FINAL_PARAMETERS.items():
        over = {"PAIR": [pair.name]}
        yield from _each("PAIR.parameters.relative", RELATIVE, TENSORS, topic, relative, over)
        yield from _each("PAIR.parameters.maximum", RELATIVE, TENSORS, topic, maximum, over)
    yield from _each("layout.gradients.relative", RELATIVE, TENSORS, "Layout", relative, known_at=1)


def _of_oracle() -> Iterator[Kind]:
    """Errors against the oracle, and distances in errors of the reference."""
    side, ratio = "Relative error of SIDE against the oracle.", "The subject's error over the reference's."
    yield from _each("oracle.NUMBER.SIDE", RELATIVE, STEPS, "Trajectory", side, {**EACH_EXACT, **EACH_SIDE})
    yield from _each("oracle.NUMBER.ratio", REFERENCE_ERRORS, STEPS, "Trajectory", ratio, EACH_EXACT)
    for name, topic in TENSORS_WITH_ORACLE.items():
        yield from _each(f"oracle.{name}.SIDE", RELATIVE, TENSORS, topic, side, EACH_SIDE, known_at=1)
        yield from _each(f"oracle.{name}.ratio", REFERENCE_ERRORS, TENSORS, topic, ratio, known_at=1)
    line = "Largest error of a row or a column of SIDE's first gradient, relative to the size of that row or column."
    yield from _each("oracle.lines.SIDE", RELATIVE, TENSORS, FIRST_STEP, line, EACH_SIDE, known_at=1)
    yield from _each("oracle.lines.ratio", REFERENCE_ERRORS, TENSORS, FIRST_STEP, ratio, known_at=1)
    unit = "Root mean square of `oracle.NUMBER.reference`: one error of the reference."
    yield from _each("oracle.NUMBER.unit", RELATIVE, ONE_RUN, "Trajectory", unit, EACH_EXACT)
    for scaled, scales, topic in SCALED:
        meaning, names = f"`{scales}` / `oracle.NUMBER.unit`.", {"scales": scales, "scaled_by": "oracle.NUMBER.unit"}
        yield from _each(scaled, REFERENCE_ERRORS, STEPS, topic, meaning, EACH_EXACT, **names)
    yield from _each(
        "train.NUMBER.drift",
        STANDARD_ERRORS,
        STEPS,
        "Trajectory",
        "`train.NUMBER.signed` / `oracle.NUMBER.unit` * sqrt(number of steps).",
        EACH_EXACT,
        unsigned="train.NUMBER.scaled",
        scales="train.NUMBER.signed",
        scaled_by="oracle.NUMBER.unit",
    )
    norms = "The norm of the gradients that a probe recorded against the grad norm that its step reported."
    yield from _each("runs.probe_norm", RELATIVE, ONE_RUN, FIRST_STEP, norms, known_at=1)


def _of_inputs() -> Iterator[Kind]:
    """How much of the model the batches reach."""
    for what, meaning in (
        ("vocabulary", "Fraction of the ids that are an input and a target of the batches."),
        ("positions", "Length of a row over the positions of the model."),
        ("shards", "Fraction of the shards of the vocabulary that own an input and a target."),
    ):
        yield from _each(f"inputs.{what}", RELATIVE, FILE, "Alignment", meaning, known_at=0, higher_is_better=True)


def _of_operators() -> Iterator[Kind]:
    """The elementary operators of a framework on its device."""
    for what, meaning in (
        ("bias", "Mean signed relative error of an elementary operator of SIDE on fixed inputs."),
        ("error", "Root mean square of the relative errors of an elementary operator of SIDE on fixed inputs."),
        ("largest", "Largest relative error of an elementary operator of SIDE on fixed inputs."),
    ):
        yield from _each(f"SIDE.operators.{what}", RELATIVE, OPERATORS, FIRST_STEP, meaning, EACH_SIDE, known_at=1)


def _of_elements() -> Iterator[Kind]:
    """Elements of the first gradients that a norm does not show."""
    decade = "Largest error of SIDE's first gradient among elements of one decade of magnitude, relative to these."
    ratio = "The same in errors of the reference among these elements, at most."
    yield from _each("oracle.decades.SIDE", RELATIVE, TENSORS, FIRST_STEP, decade, EACH_SIDE, known_at=1)
    yield from _each("oracle.decades.ratio", REFERENCE_ERRORS, TENSORS, FIRST_STEP, ratio, known_at=1)
    for what, counted in (
        ("zeros", "elements that are zero"),
        ("denormals", "elements below the smallest normal number of float32"),
        ("values", "different values among the first 2^20 elements"),
    ):
        counts = f"Difference of the number of {counted} in a first gradient, over the number of elements."
        yield from _each(f"train.{what}.relative", RELATIVE, TENSORS, FIRST_STEP, counts, known_at=1)


LATER: Mapping[str, Topic] = {"gradients": "Trajectory", "updates": "Trajectory"}
COHERENT: Mapping[str, Topic] = {"gradients": FIRST_STEP, "updates": "Optimizer", "change": "Trajectory"}


def _of_later_steps() -> Iterator[Kind]:
    """Gradients and updates of all steps, of the examined ones, and the change over the whole run."""
    side, ratio = "Relative error of SIDE against the oracle.", "The subject's error over the reference's."
    part = "Difference of the parts of all tensors along a fixed direction, in units of those parts over all steps."
    error = f"{part[:-1]}, SIDE against the oracle."
    one = "Root mean square over all tensors of the subject's error over the reference's around that step."
    norm = "Norm of the difference of both sides over the norm of the reference's tensor."
    for what, topic in LATER.items():
        yield from _each(f"train.step_{what}.relative", RELATIVE, STEPS, topic, part)
        yield from _each(f"oracle.step_{what}.SIDE", RELATIVE, STEPS, topic, error, EACH_SIDE)
        yield from _each(f"oracle.step_{what}.ratio", REFERENCE_ERRORS, STEPS, topic, one)
    for what, topic in {**{f"examined_{name}": topic for name, topic in LATER.items()}, "change": "Trajectory"}.items():
        yield from _each(f"train.{what}.relative", RELATIVE, TENSORS, topic, norm)
        yield from _each(f"oracle.{what}.SIDE", RELATIVE, TENSORS, topic, side, EACH_SIDE)
        yield from _each(f"oracle.{what}.ratio", REFERENCE_ERRORS, TENSORS, topic, ratio)
    along = "Error of SIDE along the initial weights, in what independent errors of the reference's size leave there."
    length = "Relative error of the norm of SIDE against that of the oracle's."
    for what, topic in COHERENT.items():
        known = None if what == "change" else 1
        yield from _each(f"oracle.{what}.along.SIDE", DEVIATIONS, TENSORS, topic, along, EACH_SIDE, known_at=known)
        yield from _each(f"oracle.{what}.length.SIDE", RELATIVE, TENSORS, topic, length, EACH_SIDE, known_at=known)


def _of_one_side() -> Iterator[Kind]:
    """The curve of the subject alone, and of the reference's perturbed repeats."""
    fall = "1 - mean loss of the last tenth of the steps / mean loss of the first tenth."
    yield from _each("subject.loss.fall", RELATIVE, ONE_RUN, "Convergence", fall, higher_is_better=True)
    trend = "Kendall's tau-b between loss and step; -1 if every later loss is lower."
    yield from _each("subject.loss.trend", RELATIVE, ONE_RUN, "Convergence", trend)
    spike = "Largest rise of a loss above the median of up to 20 losses before it, over that median."
    yield from _each("subject.loss.spike", RELATIVE, ONE_RUN, "Convergence", spike)
    taken = "Steps of the subject."
    yield from _each("subject.steps", COUNT, ONE_RUN, "Length", taken, higher_is_better=True)
    floor = "Largest relative difference of a perturbed repeat of the reference from the reference."
    yield from _each("floor.NUMBER.relative", RELATIVE, STEPS, "Others", floor, EACH_EXACT)


def _of_logits() -> Iterator[Kind]:
    error = "Relative error of all logits of SIDE against the oracle."
    yield from _each("oracle.logits.SIDE", RELATIVE, ROWS, "Logits", error, EACH_SIDE)
    ratio = "The subject's error over the reference's."
    yield from _each("oracle.logits.ratio", REFERENCE_ERRORS, ROWS, "Logits", ratio)
    divergence = "Largest Kullback-Leibler divergence of SIDE's prediction at a position from the oracle's."
    yield from _each("oracle.divergence.SIDE", NATS, ROWS, "Logits", divergence, EACH_SIDE)
    regret = "The oracle's largest logit minus its logit of SIDE's most likely token, at the worst position."
    yield from _each("oracle.regret.SIDE", LOGITS, ROWS, "Logits", regret, EACH_SIDE)
    prompt = "Relative error of the logits of SIDE after a prompt, against the oracle."
    yield from _each("oracle.prompt.SIDE", RELATIVE, PROMPTS, "Logits", prompt, EACH_SIDE)
    agreement = "Fraction of the positions at which both sides have the same most likely token."
    yield from _each("top1.agreement", RELATIVE, ROWS, "Logits", agreement, higher_is_better=True)
    cache = "Logits of SIDE token by token through the cache against those of the whole row."
    yield from _each("cache.SIDE", RELATIVE, ROWS, "Cache and batch", cache, EACH_SIDE)
    cached = "Relative error of the logits of SIDE token by token through the cache, against the oracle."
    yield from _each("oracle.cached.SIDE", RELATIVE, ROWS, "Cache and batch", cached, EACH_SIDE)
    yield from _each("oracle.cached.ratio", REFERENCE_ERRORS, ROWS, "Cache and batch", ratio)
    decoded = "Relative error of the logits of SIDE after a prompt, and after each token decoded then."
    yield from _each("oracle.decoded.SIDE", RELATIVE, POSITIONS, "Cache and batch", decoded, EACH_SIDE)
    one = "The subject's error over the reference's, which counts as at least the root mean square over all positions."
    yield from _each("oracle.decoded.ratio", REFERENCE_ERRORS, POSITIONS, "Cache and batch", one)
    batch = "Logits of SIDE after a prompt in a batch against those after the prompt alone."
    yield from _each("batch.SIDE", RELATIVE, PROMPTS, "Cache and batch", batch, EACH_SIDE)


def _of_continuations() -> Iterator[Kind]:
    topic: Topic = "Continuations"
    regret = "The logit of the oracle's token minus that of SIDE's where the continuations differ; 0 if they do not."
    yield from _each("greedy.regret.SIDE", LOGITS, PROMPTS, topic, regret, EACH_SIDE)
    compared = "Tokens of the greedy continuation of SIDE before the first that differs from the oracle's."
    yield from _each("greedy.compared.SIDE", COUNT, PROMPTS, topic, compared, EACH_SIDE, higher_is_better=True)
    yield from _each("sampled.differs", DIFFERS, PROMPTS, topic, "The sampled tokens of both sides.")
    stopped = "The continuations of both sides, ended by a stop token."
    yield from _each("stopped.differs", DIFFERS, PROMPTS, topic, stopped)
    fed = "The tokens that the models of both sides read."
    yield from _each("prompt.tokens.differs", DIFFERS, PROMPTS, topic, fed)
    expected = "The tokens that the model of SIDE read, and those of the evaluation."
    yield from _each("prompt.tokens.SIDE.differs", DIFFERS, PROMPTS, topic, expected, EACH_SIDE)
    template = "The tokens of a conversation on both sides."
    yield from _each("template.differs", DIFFERS, {"inference": "conversation"}, topic, template)


def _of_scores() -> Iterator[Kind]:
    tasks: Places = {"inference": "evaluation task"}
    documents: Places = {"inference": "document"}
    difference = "Difference of accuracy between the sides; for texts the relative difference of perplexity per word."
    yield from _each("score.difference", RELATIVE, tasks, "Scores", difference)
    bound = "Upper bound of `score.difference` at a confidence of 95 %."
    yield from _each("score.bound", RELATIVE, tasks, "Scores", bound)
    likelihood = "Largest difference of a log-likelihood between the sides, relative if it is above 1."
    yield from _each("score.log_likelihood", RELATIVE, documents, "Scores", likelihood)
    sense = "Loss of the subject on the texts over the loss of a model of token frequencies."
    yield from _each("subject.sense", RELATIVE, {"inference": "run"}, "Scores", sense)
    scores = "The scores of a document in both runs of SIDE."
    yield from _each("SIDE.repeat.scores.differs", DIFFERS, documents, "Determinism", scores, EACH_SIDE)
    outputs = "An output of both runs of SIDE."
    tensors: Places = {"inference": "tensor"}
    yield from _each("SIDE.repeat.answers.differs", DIFFERS, tensors, "Determinism", outputs, EACH_SIDE)


KINDS: tuple[Kind, ...] = (
    *_of_every_task(),
    *_of_steps(),
    *_of_tensors(),
    *_of_oracle(),
    *_of_inputs(),
    *_of_operators(),
    *_of_elements(),
    *_of_later_steps(),
    *_of_one_side(),
    *_of_logits(),
    *_of_continuations(),
    *_of_scores(),
)
CATALOGUE: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}


def names_of(task: TaskName) -> frozenset[str]:
    """The names of all measurements of a task."""
    return frozenset(kind.name for kind in KINDS if task in kind.places)


def in_errors_of_the_reference(name: str) -> Kind | None:
    """The measurement that states another one in errors of the reference; None where there is none."""
    return next((kind for kind in KINDS if kind.scales == name and kind.unit == REFERENCE_ERRORS), None)
