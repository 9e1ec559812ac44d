"""The measurements of the runs of a case, by its task, and the differences of two runs of one name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.base.digest import digest_each, digest_json
from harness.base.errors import EvidenceError
from harness.cases.alignment import expected_alignment
from harness.cases.case import Case
from harness.cases.runs_of_a_case import TRAINING, required_runs
from harness.cases.task import TaskName
from harness.comparison.inference import ExpectedInference, inference_differences, measure_inference
from harness.comparison.measurement import Comparison, Tensors
from harness.comparison.reach import reached
from harness.comparison.training import Expected, compare_steps, measure
from harness.evidence.collected import Drawn, required_of, without_what_was_not_collected
from harness.evidence.collected_gradient import with_first_gradient
from harness.evidence.collected_parts import PartsOfCase
from harness.evidence.collected_run import CollectedRun
from harness.evidence.judge import statistic
from harness.runs.evaluation import EVALUATION, Evaluation, digest_evaluation, documents_of, read_evaluation
from harness.runs.inputs import BATCHES, Inputs, read_tensors
from harness.runs.trace import Run


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Everything that the measurements of a case are computed from: the directory of its inputs, their record, the
    digests of the weights and the weights, the runs, and what each run left of its tensors, and of its steps. A case
    whose evidence is sketches has no weights. `collected` are the runs that a trainer made by itself."""

    case: Case
    directory: Path
    inputs: Inputs
    digests: Mapping[str, str]
    weights: Tensors
    runs: Mapping[str, Run]
    left: Mapping[str, Tensors]
    steps: Mapping[str, Tensors]
    collected: Mapping[str, CollectedRun] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TaskMeasurements:
    """How a task is measured. `measure` gives every measurement of a case's runs; `differences` gives, by number, the
    differences of two runs of one name, and is empty if one of them left no trace."""

    measure: Callable[[Recorded], Comparison]
    differences: Callable[[Run | None, Run | None], dict[str, float]]


def measure_recorded(recorded: Recorded) -> Comparison:
    """All measurements of the runs of a case.

    Raises:
        EvidenceError: an input of the task cannot be read, or is less than the case requires.
    """
    return MEASUREMENTS[recorded.case.task.name].measure(recorded)


def expected_of(
    case: Case,
    inputs: Inputs,
    weights: Mapping[str, str],
    runs: tuple[str, ...] | None = None,
    tokens: Sequence[int] = (),
) -> Expected:
    """The required inputs of every training run of a case; `weights` are the digests of its weights, `runs` the runs
    that there must be (None: those of the case), `tokens` the target tokens of each step."""
    schedule, steps = case.lr_schedule.over(case.training.steps), case.training.steps
    return Expected(
        runs=required_runs(case) if runs is None else runs,
        inputs={"case": case.digest(), "weights": inputs.weights, "batches": inputs.batches},
        weights=weights,
        alignment=expected_alignment(case),
        examined_steps=case.training.examined_steps,
        rates=tuple(schedule.learning_rate(step) for step in range(1, steps + 1)),
        tokens=tokens,
    )


def _measure_training(recorded: Recorded) -> Comparison:
    required = required_of(recorded.case, recorded.runs, recorded.collected)
    batches = read_batches(recorded.directory)
    tokens = tuple(int((mask != 0).sum()) for mask in batches["loss_mask"])
    expected = expected_of(recorded.case, recorded.inputs, recorded.digests, required, tokens)
    tensors = {"weights": recorded.weights, **recorded.left}
    found = measure(recorded.runs, expected, tensors, recorded.steps)
    inputs = reached(recorded.case, batches)
    if recorded.collected:
        weights = PartsOfCase(recorded.directory, recorded.digests, recorded.weights)
        found = without_what_was_not_collected(found, recorded.runs, recorded.collected, Drawn(batches), weights)
        found = with_first_gradient(
            found,
            recorded.runs,
            recorded.left,
            recorded.collected,
            recorded.weights,
            lambda runs, left: measure(runs, expected, {"weights": recorded.weights, **left}, recorded.steps),
        )
    return Comparison(measurements={**found.measurements, **{one.name: one for one in inputs}})


def read_batches(directory: Path) -> dict[str, npt.NDArray[Any]]:
    """Tokens [steps, B, S + 1] and loss mask [steps, B, S] of a directory of inputs.

    Raises:
        EvidenceError: they cannot be read, or are none.
    """
    path = directory / BATCHES
    batches = read_tensors(path)
    tokens, mask = batches.get("tokens"), batches.get("loss_mask")
    fitting = (
        tokens is not None
        and mask is not None
        and tokens.ndim == mask.ndim == 3
        and tokens.dtype.kind == mask.dtype.kind.replace("u", "i") == "i"
        and (*mask.shape[:-1], mask.shape[-1] + 1) == tokens.shape
    )
    if not fitting:
        raise EvidenceError(f"{path} does not hold the tokens and the loss mask of batches, but {sorted(batches)}.")
    return batches


def _curve_differences(first: Run | None, second: Run | None) -> dict[str, float]:
    """The largest relative difference of loss and grad norm."""
    found = compare_steps(first, second)
    curves = {number: found[f"{number}.relative"].values for number in ("loss", "grad_norm")}
    return {number: statistic("maximum", values) for number, values in curves.items() if values}


def _measure_inference(recorded: Recorded) -> Comparison:
    return measure_inference(recorded.runs, _expected_of_inference(recorded), recorded.left)


def _expected_of_inference(recorded: Recorded) -> ExpectedInference:
    """The required inputs of every inference run.

    Raises:
        EvidenceError: the evaluation cannot be read, or is less than the case requires.
    """
    case, inputs = recorded.case, recorded.inputs
    digests = digest_each(recorded.left.get(TRAINING, {})) if case.trains_weights else recorded.digests
    drawn = {"case": case.digest(), "weights": inputs.weights, "batches": inputs.batches}
    inferred = {**drawn, "weights": digest_json(digests), "batches": digest_evaluation(recorded.directory)}
    evaluation = read_evaluation(recorded.directory)
    _check_amounts(case, evaluation, recorded.directory / EVALUATION)
    return ExpectedInference(
        runs=required_runs(case),
        inputs={name: drawn if name == TRAINING else inferred for name in required_runs(case)},
        weights=digests,
        alignment=expected_alignment(case),
        rows=tuple(map(len, evaluation.rows)),
        prompts=len(evaluation.prompts),
        conversations=len(evaluation.conversations),
        decoded=tuple(len(one.prompt) for one in evaluation.given or ()),
        decoded_tokens=case.inference_section.decoded_tokens,
        fed=evaluation.fed(),
        documents=documents_of(evaluation),
        right=tuple(question.right for question in evaluation.questions),
        unigram_nats=evaluation.unigram_nats,
        text_tokens=evaluation.text_tokens,
        has_learned=case.has_learned,
    )


def _check_amounts(case: Case, found: Evaluation, path: Path) -> None:
    """Rejects an evaluation that is smaller, or shorter, than the case requires."""
    section = case.inference_section
    wanted = (
        [case.data.seq_length] * section.rows,
        list(section.prompts),
        section.texts,
        section.documents,
        section.documents,
    )
    rows, prompts = ([len(one) for one in every] for every in (found.rows, found.prompts))
    if wanted != (rows, prompts, len(found.texts), len(found.passages), len(found.questions)):
        raise EvidenceError(f"{path} has fewer or shorter rows, prompts, texts, passages or questions than its case.")
    if not section.borders and (found.given, found.conversation_tokens) == (None, None):
        return  # it was drawn before they were
    given = [(len(one.prompt), len(one.then)) for one in found.given or ()]
    lengths = [(length, section.decoded_tokens) for length in section.given_lengths]
    if (given, len(found.conversation_tokens or ())) != (lengths, len(found.conversations)):
        raise EvidenceError(f"{path} has fewer or shorter given prompts or conversations than its case.")


MEASUREMENTS: Mapping[TaskName, TaskMeasurements] = {
    "pretrain": TaskMeasurements(measure=_measure_training, differences=_curve_differences),
    "finetune": TaskMeasurements(measure=_measure_training, differences=_curve_differences),
    "inference": TaskMeasurements(measure=_measure_inference, differences=inference_differences),
}
