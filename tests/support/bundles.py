"""Bundles made of invented numbers, in the real files: for tests of everything that reads one."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from harness.base.digest import digest_each, digest_tensors
from harness.base.records import write_json
from harness.cases.alignment import expected_alignment
from harness.cases.case import DEFAULT_CASE, Case, load_case
from harness.cases.runs_of_a_case import TRAINING, floor_runs, required_runs, role, runs_of
from harness.cases.task import INFERENCE, PRETRAIN
from harness.certify.jobs import WATCHED_RUNS
from harness.evidence.bundle import Bundle, finish_bundle
from harness.levels.certificate import Certificate
from harness.levels.rule import certify
from harness.levels.submission import Submission
from harness.report import render_report, write_report
from harness.report.view import Page, build_view
from harness.runners.leaving import Leaving
from harness.runs.evaluation import Evaluation, digest_evaluation
from harness.runs.files import GRADIENT, OUTCOME, TIMING, TRACE, UPDATED
from harness.runs.inputs import BATCHES, WEIGHTS, WEIGHTS_DIGESTS, Inputs
from harness.runs.sketches import BUCKETS_OF_FIRST_GRADIENT, as_left, recorded, sketch
from harness.runs.trace import Arm, RunOutcome, Scored, Side, Step, TraceHeader, TraceWriter
from harness.runs.watched import CHANGED, MOMENTS, PARAMETERS, gradients_at, updates_at
from harness.standards import Standard, load_standard
from tests.support.answering import example_answers, example_evaluation, example_scored, write_evaluation
from tests.support.examples import shorter

Tensors = dict[str, npt.NDArray[Any]]
Change = Callable[[str, Any], Any]  # of a run's name and a line of its trace: a Step, or where it is asked a Scored

ENVIRONMENT: Mapping[str, Any] = {
    "device": "CPU",
    "python": "3.11.7",
    "threads": 1,
    "machine": {
        "processor": "An Example CPU",
        "cores": 2,
        "memory_gib": 24,
        "isa": ["avx2", "avx512f"],
        "system": "Linux",
    },
    "packages": {"mindspore": "2.9.0", "numpy": "1.26.4", "torch": "2.13.0", "transformers": "4.57.1"},
    "variables": {"HCCL_DETERMINISTIC": "true", "OMP_NUM_THREADS": "1"},
}
RUN = {
    "command": ["certify", "run", "qwen3-tiny-fp32"],
    "started": "2026-01-31T02:00:00+00:00",
    "seconds": 118.4,
    "host": "runner-7",
}
START = {"nonce": "1" * 64, "committed": "2026-01-30T12:00:00+00:00"}

AT = datetime(2026, 2, 1, tzinfo=UTC)  # a day after the examples were run


def certified(bundle: Bundle) -> Certificate:
    """The level of an example about which nothing is signed."""
    return certify(Submission(bundle=bundle), AT)


def page_of(bundle: Bundle) -> str:
    return render_report(Submission(bundle=bundle), certified(bundle))


def view_of(bundle: Bundle) -> Page:
    return build_view(Submission(bundle=bundle), certified(bundle))


def write_page_of(bundle: Bundle) -> Path:
    return write_report(Submission(bundle=bundle), certified(bundle))


def unchanged(run: str, step: Any) -> Any:
    return step


def example_step(run: str, number: int, steps: int) -> Step:
    """A falling, noisy curve; the subject is some 1e-7 from the reference, repeats are the same bits."""
    loss = 5.7 * math.exp(-number / (2.5 * steps)) + 0.05 * math.sin(1.7 * number)
    norm = 1.6 * math.exp(-number / (2 * steps)) + 0.08 * math.sin(2.3 * number)
    aside = (1 + 2e-7 * math.sin(5.1 * number)) if run.startswith("subject") else 1.0
    if run.startswith("oracle"):
        aside = 1 + 2e-7
    if run.startswith("floor"):
        aside = 1 + 4e-7 * math.sin(3.3 * number + int(run.rpartition("-")[2]))
    return Step(
        step=number,
        loss=loss * aside,
        grad_norm=norm * (1 + 3 * (aside - 1)),
        learning_rate=invented_rate(run, number),
        tokens=INVENTED_TOKENS,
        batch=invented(number),
    )


IDS = 20
NAMES = ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight")
PROBE_ERRORS = {"oracle": 0.0, "reference": 1.0e-7, "subject": 1.2e-7}


def example_parameters(run: str) -> dict[str, npt.NDArray[Any]]:
    """Parameters as a run ends with them."""
    tensors = {}
    for index, name in enumerate(NAMES):
        values = np.random.RandomState(index).standard_normal((8, 4)).astype(np.float32)
        if run.startswith("subject") and not run.endswith("lr0"):
            values = values * np.float32(1 + 2e-6)
        tensors[name] = values
    return tensors


def example_probe(run: str) -> dict[str, npt.NDArray[Any]]:
    """Gradients and updated parameters, each side with an error of its own against the oracle."""
    side = run.partition("-")[0]
    dtype, error = (np.float64 if side == "oracle" else np.float32), PROBE_ERRORS[side]
    tensors = {}
    for index, (name, weight) in enumerate(example_parameters("weights").items()):
        gradient = np.random.RandomState(10 + index).standard_normal(weight.shape) * (1 + error)
        tensors[f"gradient.{name}"] = gradient.astype(dtype)
        tensors[f"updated.{name}"] = (weight.astype(np.float64) + gradient).astype(dtype)
    return tensors


def example_case(steps: int = 200) -> Case:
    """The default case with another number of steps."""
    return shorter(load_case(DEFAULT_CASE), steps, checkpoint_every=50)


def example_steps(run: str, case: Case, parameters: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """What a run that starts from `parameters` leaves of its steps: noise, each side with an error of its own against
    the oracle."""
    if run not in WATCHED_RUNS or not case.training.examined_steps:
        return {}
    side, steps, stays = run.partition("-")[0], case.training.steps, case.optimizer.betas[0]
    noise = np.random.RandomState(list(PROBE_ERRORS).index(side))

    def off(exact: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return exact + PROBE_ERRORS[side] * noise.choice((-1.0, 1.0), exact.shape)

    left: Tensors = {}
    for index, (name, weights) in enumerate(parameters.items()):
        exact = np.random.RandomState(20 + index)
        updates, gradients = off(exact.standard_normal(steps)), off(exact.standard_normal(steps))
        moments = [0.0]
        for gradient in gradients.tolist():
            moments.append(stays * moments[-1] + (1 - stays) * gradient)
        left[f"{PARAMETERS}{name}"] = np.concatenate(([0.0], np.cumsum(updates)))
        left[f"{MOMENTS}{name}"] = np.array(moments)
        for step in case.training.examined_steps:
            for prefix in (gradients_at(step), updates_at(step)):
                tensor = off(exact.standard_normal(weights.shape))
                left |= as_left(f"{prefix}{name}", sketch(f"{prefix}{name}", tensor))
        end = weights + off(exact.standard_normal(weights.shape))
        left |= recorded(f"{CHANGED}{name}", end, BUCKETS_OF_FIRST_GRADIENT, start=weights, weights=weights)
    return left


def example_batches(case: Case) -> Tensors:
    """The token batches of a case, of few ids."""
    shape = (case.training.steps, case.data.global_batch_size, case.data.seq_length + 1)
    tokens = (np.arange(math.prod(shape), dtype=np.int32) % IDS).reshape(shape)
    return {"tokens": tokens, "loss_mask": np.ones((*shape[:-1], shape[-1] - 1), np.uint8)}


def fed(line: Any, run: str, number: int, case: Case, digests: Sequence[str]) -> Any:
    """A step with what follows from its case, in place of what an example invents: the digest of its batch, its rate
    and its target tokens."""
    if not isinstance(line, Step):
        return line
    follows = {
        "batch": (invented(number), digests[number - 1]),
        "learning_rate": (invented_rate(run, number), rate_of(case, run, number)),
        "tokens": (INVENTED_TOKENS, case.data.global_batch_size * case.data.seq_length),
    }
    return dataclasses.replace(
        line, **{name: real for name, (made_up, real) in follows.items() if getattr(line, name) == made_up}
    )


INVENTED_TOKENS = 256


def rate_of(case: Case, run: str, number: int) -> float:
    """The rate of a step as its case has it."""
    return 0.0 if run.endswith("lr0") else case.lr_schedule.over(case.training.steps).learning_rate(number)


def invented_rate(run: str, number: int) -> float:
    return 0.0 if run.endswith("lr0") else 1e-4 * min(1.0, (number - 1) / 10)


def invented(number: int) -> str:
    return f"{number:016x}"


INPUTS = Inputs(
    weights=digest_tensors(example_parameters("weights")),
    batches="",  # see `example_batches`
    corpus="sources of transformers 4.57.1",
    corpus_sha256="c" * 64,
    corpus_tokens=3_093_588,
    tokenizer_sha256=None,
    epochs=1,
    parameters=152_000,
    target_tokens=51_200,
)


def write_example(
    directory: Path,
    *,
    case: Case | None = None,
    change: Change = unchanged,
    outcomes: Mapping[str, RunOutcome] | None = None,
    floor: int = 0,
    standards: tuple[Standard, ...] | None = None,
    parameters: Callable[[str], Tensors] = example_parameters,
    answers: Callable[[str, Case], Tensors] = example_answers,
    header: Callable[[TraceHeader], TraceHeader] = lambda header: header,
    occasion: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = START,
) -> Bundle:
    """Writes a bundle. `change` returns the line to record, or None to end that run's trace before it, unfinished.

    `outcomes` replaces how a run ended; a run whose outcome is not `completed` gets no footer. `parameters` and
    `answers` are what a run leaves: one that trains, and one that is asked. Without `start` it is an older version's.
    """
    case = case or example_case()
    if floor:
        case = case.with_changes(training={**case.training.model_dump(), "floor_repeats": floor})
    standards = standards or tuple(map(_standard, case.standards))
    case = case.with_changes(standards=tuple(standard.name for standard in standards))
    write_json(directory / "case.json", case.record())
    for standard in standards:
        write_json(directory / "standards" / f"{standard.name}.json", standard.model_dump(mode="json"))
    weights, batches = example_parameters("weights"), example_batches(case)
    inputs = dataclasses.replace(INPUTS, batches=digest_tensors(batches))
    write_json(directory / "inputs.json", dataclasses.asdict(inputs))
    write_json(directory / "environment.json", {**ENVIRONMENT, **(environment or {})})
    clean = {"revision": "1234567890abcdef", "dirty": False, "sha256": "d" * 64}
    write_json(directory / "source.json", {**clean, **(source or {})})
    write_json(directory / "run.json", {**RUN, "command": ["certify", "run", case.name], **(occasion or {})})
    if start is not None:
        write_json(directory / "start.json", start)
    (directory / "inputs").mkdir()
    save_file(batches, directory / "inputs" / BATCHES)
    if case.evidence == "sketches":
        write_json(directory / "inputs" / WEIGHTS_DIGESTS, digest_each(weights))
    else:
        save_file(weights, directory / "inputs" / WEIGHTS)
    if case.inference is not None:
        write_evaluation(directory / "inputs", case)
    (directory / "tensors").mkdir()
    evaluation = None if case.inference is None else example_evaluation(case)
    each = [digest_tensors({name: one[at] for name, one in batches.items()}) for at in range(case.training.steps)]
    made = _Made(
        case=case,
        evaluation=evaluation,
        change=change,
        parameters=parameters,
        answers=answers,
        header=header,
        batches=inputs.batches,
        fed=each,
    )
    for run in (*required_runs(case), *floor_runs(case)):
        _write_run(directory, made, run, (outcomes or {}).get(run))
    return finish_bundle(directory)


_standard = functools.cache(load_standard)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made:
    """What the runs of an example are made of; see `write_example`."""

    case: Case
    evaluation: Evaluation | None
    change: Change
    parameters: Callable[[str], Tensors]
    answers: Callable[[str, Case], Tensors]
    header: Callable[[TraceHeader], TraceHeader]
    batches: str
    fed: Sequence[str]

    def left(self, run: str, arm: Arm) -> Tensors:
        if arm == "infer":
            return self.answers(run, self.case)
        return example_probe(run) if run.endswith("-probe") else self.parameters(run)

    def header_of(self, directory: Path, run: str, side: Side, arm: Arm) -> TraceHeader:
        asked = arm == "infer"
        weights = self.parameters(TRAINING) if asked and self.case.trains_weights else example_parameters("weights")
        return self.header(
            TraceHeader(
                run=run,
                side=side,
                arm=arm,
                case=self.case.digest(),
                weights=digest_tensors(weights),
                batches=digest_evaluation(directory / "inputs") if asked else self.batches,
                steps=self.case.steps_of(side, arm),
                runner=_runner(side, asked),
                initial=digest_each(weights),
                alignment=expected_alignment(self.case),
                provenance={"threads": 1, "code": json.loads((directory / "source.json").read_text())["sha256"]},
            )
        )

    def line(self, run: str, arm: Arm, number: int, left: Tensors) -> Step | Scored:
        if self.evaluation is not None and arm == "infer":
            return example_scored(run, number, self.evaluation)
        steps = self.case.training.steps if arm == "resumed" else self.case.training.steps_of(arm)
        return _example(run, number, steps, left)


def _runner(side: Side, asked: bool) -> str:
    own = (INFERENCE if asked else PRETRAIN).subject
    return {"subject": own, "reference": "torch", "oracle": "oracle"}[side]


def _write_run(directory: Path, made: _Made, run: str, outcome: RunOutcome | None) -> None:
    known = role(run, made.case)
    assert known is not None
    side, arm = known
    steps = made.case.steps_of(side, arm)
    path = directory / "runs" / run
    path.mkdir(parents=True)
    left, taken, ended = made.left(run, arm), 0, True
    header = made.header_of(directory, run, side, arm)
    with TraceWriter.create(path / TRACE, header) as writer, (path / TIMING).open("w") as timing:
        for number in range(1, steps + 1):
            line = fed(made.change(run, made.line(run, arm, number, left)), run, number, made.case, made.fed)
            if line is None:
                ended = False
                break
            writer.append(line)
            timing.write(json.dumps({"step": number, "seconds": 0.02}) + "\n")
            taken = number
            if not line.finite:
                left = {} if arm == "infer" else left
                break
        if ended and (outcome is None or outcome.status in ("completed", "non_finite")):
            leaving, kept = leave(made.case, left), run in runs_of(made.case).kept
            steps_left = example_steps(run, made.case, example_parameters("weights"))
            watched = digest_tensors(steps_left) if steps_left else None
            writer.finish(leaving.digests, leaving.digest_of_sketches if kept else None, watched)
            if kept or steps_left:
                shown = leaving.left if kept else {}
                save_file({**shown, **steps_left}, directory / "tensors" / f"{run}.safetensors")
    write_json(path / OUTCOME, outcome or _outcome(taken, steps, ended))


def leave(case: Case, tensors: Tensors) -> Leaving:
    """What a run of a case leaves of tensors that have the prefixes of a probe, or none."""
    leaving = Leaving(case)
    if case.inference is not None:
        leaving.add_answers(tensors)
        return leaving
    weights = example_parameters("weights") if case.evidence == "sketches" else None
    for prefix in (GRADIENT, UPDATED):
        named = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        leaving.add(prefix, named.items(), weights, change=prefix == UPDATED)
    leaving.add("", ((name, one) for name, one in tensors.items() if not name.startswith((GRADIENT, UPDATED))))
    return leaving


def _example(run: str, number: int, steps: int, left: Tensors) -> Step:
    """A step; the grad norm of a probe is that of the gradients that it leaves."""
    step = example_step(run, number, steps)
    gradients = [tensor for name, tensor in left.items() if name.startswith("gradient.")]
    if not gradients:
        return step
    return dataclasses.replace(
        step, grad_norm=float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gradients)))
    )


def _outcome(taken: int, steps: int, ended: bool) -> RunOutcome:
    if not ended:
        return RunOutcome(
            status="crashed", last_step=taken, detail=f"killed by signal 9 after step {taken}", log_tail="Killed"
        )
    if taken < steps:
        return RunOutcome(status="non_finite", last_step=taken, detail=f"not finite at step {taken}")
    return RunOutcome(status="completed", last_step=taken, detail=f"{taken} of {steps} steps")


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Changes a JSON file as somebody would who knows its form."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
