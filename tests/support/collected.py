"""Collected runs with invented numbers, in the real files: for tests of everything that judges them."""

import dataclasses
import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from harness.base.digest import canonical_json, digest_each, digest_tensors
from harness.base.records import write_json
from harness.cases.alignment import expected_alignment
from harness.cases.case import DEFAULT_CASE, Case, load_case
from harness.certify.baseline import Statement, store
from harness.certify.case_options import named_by_digest
from harness.certify.jobs import Options, recorded_jobs
from harness.collect.collector import Collector
from harness.corpus.draw import draw_inputs
from harness.runners.job import Job
from harness.runs.collected import RECORD, sealed
from harness.runs.files import GRADIENT, OUTCOME, TRACE
from harness.runs.inputs import BATCHES, WEIGHTS, Inputs, read_tensors, read_weights
from harness.runs.trace import RunOutcome, Step, TraceHeader, TraceWriter
from qwen3_model.parallel_config import ParallelConfig, Part
from qwen3_model.sharding import parts_of
from tests.support.bundles import ENVIRONMENT, example_step, example_steps, invented_rate, rate_of
from tests.support.examples import shorter

Array = npt.NDArray[Any]
Stated = tuple[str, Part, Array]  # what a rank states of a tensor: its name, which part, and the part
STEPS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """The inputs of the small case: weights by name, tokens [steps, B, S+1] and masks [steps, B, S]."""

    case: Case
    weights: Mapping[str, Array]
    inputs: Inputs
    tokens: Array
    mask: Array


def collected_case() -> Case:
    """The default case with few steps."""
    return shorter(load_case(DEFAULT_CASE), STEPS, warmup_steps=2, lr_zero_steps=4)


@functools.cache
def drawn() -> Drawn:
    case = collected_case()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "inputs"
        found = draw_inputs(case, directory)
        weights = dict(read_weights(directory / WEIGHTS).items())
        batches = read_tensors(directory / BATCHES)
    return Drawn(case=case, weights=weights, inputs=found, tokens=batches["tokens"], mask=batches["loss_mask"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """A trainer that takes its numbers from a table. Every field is a way to be wrong."""

    run: str = "subject-1"
    trainer: str = "example"
    steps: int = STEPS
    length: int | None = None  # of the run that its numbers are of, if it is a part
    arm: str = "train"
    ranks: int = 1
    layout: ParallelConfig | None = None  # of its ranks, each of which states its parts of the weights
    parts: Callable[[int, str, list[Stated]], list[Stated] | None] = lambda rank, when, parts: parts  # of that rank
    change: Callable[[Step], Step | None] = lambda step: step
    tokens: Callable[[int, Array], Array] = lambda step, tokens: tokens
    weights: Callable[[dict[str, Array]], dict[str, Array]] = lambda weights: weights
    alignment: Callable[[dict[str, Any]], dict[str, Any]] = lambda alignment: alignment
    omitted: tuple[str, ...] = ()
    moves: Callable[[Array], Array] = lambda weight: weight + np.float32(0.01)  # what training does to a weight
    gradient: bool | float = False  # whether it gives its first gradient; a number: this many times it
    ends: bool = True
    final: bool = True


def train(directory: Path, how: Trainer | None = None, after: int = 0) -> Path:
    """Collects one run, of all its ranks in turn, each with its rows; or goes on after a step."""
    how = how or Trainer()
    for rank in range(how.layout.world_size if how.layout else how.ranks):
        _train(directory, how, rank, after)
    return directory


def _train(directory: Path, how: Trainer, rank: int, after: int) -> None:
    inputs = drawn()
    layout = how.layout or ParallelConfig(data_parallel=how.ranks)
    ranks, replica = layout.world_size, layout.coordinates(rank).replica
    collector = Collector(
        directory,
        steps=how.steps,
        trainer=how.trainer,
        arm=how.arm,
        rank=rank,
        ranks=ranks,
        reporting=ranks - 1,
    )
    alignment = how.alignment(dict(expected_alignment(inputs.case)))
    weights = how.weights(dict(inputs.weights))
    begun = _held(how, rank, "initial", weights)
    collector.begin(**begun, alignment=alignment, provenance={"mode": "GRAPH"}, omitted=how.omitted, after=after)
    for number in range(after + 1, how.steps + 1):
        shares = np.array_split(np.arange(len(inputs.tokens[number - 1])), layout.data_parallel)
        tokens = how.tokens(number, inputs.tokens[number - 1].copy())[shares[replica]]
        taken = how.change(example_step(how.run, number, how.length or how.steps))
        if taken is None:
            return
        if taken.learning_rate == invented_rate(how.run, number):
            taken = dataclasses.replace(taken, learning_rate=rate_of(inputs.case, how.run, number))
        if "batches" not in how.omitted:
            rows = shares[replica] if how.layout else None
            collector.micro_batch(tokens, inputs.mask[number - 1][shares[replica]], rows)
        norm = None if "grad_norm" in how.omitted else taken.grad_norm
        if how.gradient and number == 1:
            given = example_gradient(first_norm() * how.gradient, PROBE_ERRORS["subject"])
            collector.first_gradient({name: one.astype(np.float32) for name, one in given.items()}, weights)
        collector.step(loss=taken.loss, grad_norm=norm, learning_rate=taken.learning_rate)
    if how.ends:
        moved = {name: how.moves(one) for name, one in weights.items()} if how.arm != "lr_zero" else weights
        collector.end(**_held(how, rank, "final", moved) if how.final else {})
    assert collector.failed is None


def _held(how: Trainer, rank: int, when: str, weights: Mapping[str, Array]) -> dict[str, Any]:
    """What a rank gives to the collector of weights: all of them, or its parts."""
    if how.layout is None:
        return {"parameters": weights}
    held = parts_of(weights, drawn().case.model, how.layout, rank)
    return {"parts": how.parts(rank, when, [(name, part, part.take(weights[name])) for name, part in held])}


def example_gradient(norm: float, error: float = 0.0) -> dict[str, Array]:
    """Gradients of every weight, of this norm together, each element off by `error` up or down; in float64."""
    found = {}
    for name, weights in drawn().weights.items():
        noise = np.random.RandomState(len(name))
        exact = noise.standard_normal(weights.shape)
        found[name] = exact * (1 + error * np.random.RandomState(int(1e9 * error)).choice((-1.0, 1.0), exact.shape))
    whole = math.sqrt(sum(float(np.square(one).sum()) for one in found.values()))
    return {name: one * (norm / whole) for name, one in found.items()}


def first_norm() -> float:
    """The grad norm of the first step of the reference."""
    return example_step("reference-1", 1, STEPS).grad_norm


def edit_record(directory: Path, *, seal: bool = True, **changes: Any) -> None:
    """Other fields in the record of a collected run, with a seal that fits."""
    content = {**json.loads((directory / RECORD).read_bytes()), **changes}
    written = sealed(content) if seal else content
    (directory / RECORD).write_text(canonical_json(written) + "\n", encoding="utf-8")


PROBE_ERRORS = {"oracle": 0.0, "reference": 1.0e-7, "subject": 1.2e-7}


def example_baseline(directory: Path) -> Path:
    """A recorded baseline of the small case with invented numbers, by the shipped reference and oracle. Its probes have
    the gradients of `example_gradient`, each side with an error of its own."""
    inputs, made = drawn(), directory / "made"
    draw_inputs(inputs.case, made / "inputs")
    case = named_by_digest(inputs.case, inputs.inputs)
    options = Options(out=made, command=("certify", "baseline", "record"))
    for job in recorded_jobs(case, options):
        _run_of(job, case, made)
    write_json(made / "case.json", case.record())
    write_json(made / "environment.json", ENVIRONMENT)
    write_json(made / "source.json", {"revision": "1234567890abcdef", "dirty": False, "sha256": "d" * 64})
    said = Statement(author="A", reason="a test", command=("certify", "baseline", "record"))
    work = directory / "work"
    work.mkdir()
    (directory / "baselines").mkdir()
    store(work, made, case, inputs.inputs, said, directory / "baselines" / case.name)
    return directory / "baselines" / case.name


def _run_of(job: Job, case: Case, made: Path) -> None:
    inputs, place = drawn(), made / "runs" / job.run
    place.mkdir(parents=True)
    header = TraceHeader(
        run=job.run,
        side=job.side,
        arm=job.arm,
        case=case.digest(),
        weights=inputs.inputs.weights,
        batches=inputs.inputs.batches,
        steps=job.steps,
        runner=job.runner,
        initial=digest_each(inputs.weights),
        alignment=expected_alignment(case),
    )
    with TraceWriter.create(place / TRACE, header) as writer:
        for number in range(1, job.steps + 1):
            length = STEPS if job.arm == "probe" else case.training.steps_of(job.arm)  # a probe takes the first step
            step = example_step(job.run, number, length)
            batch = digest_tensors({"tokens": inputs.tokens[number - 1], "loss_mask": inputs.mask[number - 1]})
            tokens = int(inputs.mask[number - 1].sum())
            rate = rate_of(case, job.run, number)
            writer.append(dataclasses.replace(step, batch=batch, tokens=tokens, learning_rate=rate))
        left = _probed(job) if job.arm == "probe" else dict(inputs.weights)
        steps_left = example_steps(job.run, case, inputs.weights)
        writer.finish(digest_each(left), watched=digest_tensors(steps_left) if steps_left else None)
    if job.arm == "probe" or steps_left:
        only_steps = steps_left and job.side == "oracle"
        kept = steps_left if only_steps else {**left, **steps_left}
        (made / "tensors").mkdir(exist_ok=True)
        save_file(kept, made / "tensors" / f"{job.run}.safetensors")
    write_json(place / OUTCOME, RunOutcome(status="completed", last_step=job.steps, detail="all steps"))


def _probed(job: Job) -> dict[str, Array]:
    found = example_gradient(first_norm(), PROBE_ERRORS[job.side])
    dtype = np.float64 if job.side == "oracle" else np.float32
    return {f"{GRADIENT}{name}": one.astype(dtype) for name, one in found.items()}
