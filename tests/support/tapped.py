"""Tapped runs of invented numbers, in memory and as files."""

import dataclasses
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from harness.base.digest import digest_each
from harness.base.records import write_json
from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, load_case
from harness.diagnosis.errors_by_place import SIDES, TappedRun
from harness.evidence.bundle_files import CASE
from harness.runners.leaving import Leaving
from harness.runners.tapping import ALWAYS_WHOLE
from harness.runs.files import OUTCOME, TRACE, UPDATED
from harness.runs.inputs import BATCHES, WEIGHTS, seeded
from harness.runs.places import places
from harness.runs.taps import TAPS, TapRecord, exact_loss
from harness.runs.trace import Run, RunOutcome, Side, Step, Trace, TraceFooter, TraceHeader, TraceWriter
from qwen3_model.configuration_qwen3 import parameter_shapes

Array = npt.NDArray[Any]
Change = Callable[[dict[str, Array]], None]
STEPS = 6
ERRORS: Mapping[Side, float] = {"reference": 3e-7, "subject": 5e-7, "oracle": 0.0}


def small_case() -> Case:
    """One row of eight tokens in two layers."""
    case = load_case("qwen3-tiny-fp32")
    return case.with_changes(data={**case.data.model_dump(), "seq_length": 8, "global_batch_size": 1})


CASE_OF_ALL = small_case()
MASK = np.array([[[1, 1, 0, 1, 1, 1, 1, 1]]], np.uint8)
TOKENS = seeded("tokens").randint(0, CASE_OF_ALL.model.vocab_size, (1, 1, 9)).astype(np.int32)
WEIGHTS_OF_ALL: dict[str, Array] = {
    name: seeded(name).standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(CASE_OF_ALL.model)
}


def exact_tensors() -> dict[str, Array]:
    """The oracle's tensors: random numbers, except for the loss, which fits its logits."""
    every = places(CASE_OF_ALL.model, 1, 8)
    found = {f"forward.{place.name}": _drawn(f"forward.{place.name}", place.shape) for place in every}
    found |= {f"backward.{p.name}": _drawn(f"backward.{p.name}", p.shape) for p in every if p.gradient}
    found |= {f"gradient.{name}": _drawn(f"gradient.{name}", w.shape) for name, w in WEIGHTS_OF_ALL.items()}
    found |= {f"updated.{n}": w - 1e-3 * _drawn(f"updated.{n}", w.shape) for n, w in WEIGHTS_OF_ALL.items()}
    return found | {"forward.loss": np.asarray(_loss_of(found["forward.lm_head"])), "backward.loss": np.ones(())}


def _drawn(label: str, shape: tuple[int, ...]) -> Array:
    return np.asarray(seeded(label).standard_normal(shape))


def _loss_of(logits: Array) -> float:
    return exact_loss(logits, TOKENS[0][:, 1:], MASK[0], float(MASK.sum()))


EXACT = exact_tensors()


def correct(side: Side, seed: int = 0) -> dict[str, Array]:
    """The tensors of a correct run of a side: the exact values with its own rounding."""
    if side == "oracle":
        return dict(EXACT)
    found = {name: _rounded(f"{seed}/{side}/{name}", tensor, ERRORS[side]) for name, tensor in EXACT.items()}
    loss = np.asarray(_loss_of(found["forward.lm_head"]), np.float32)
    return found | {"forward.loss": loss, "backward.loss": np.ones((), np.float32)}


def _rounded(label: str, tensor: Array, error: float) -> Array:
    return np.asarray(tensor * (1 + error * seeded(label).standard_normal(tensor.shape)), np.float32)


def tapped(side: Side, tensors: Mapping[str, Array], taps: TapRecord | None = None, **header: Any) -> TappedRun:
    """A finished tapped run of a side."""
    steps = tuple(
        Step(step=n, loss=5.0 / n, grad_norm=2.0, learning_rate=1e-5 * (n - 1), tokens=7, batch=f"{n}")
        for n in range(1, STEPS + 1)
    )
    stated = TraceHeader(
        run=f"{side}-taps", side=side, arm="taps", case=CASE_OF_ALL.digest(), weights="w", batches="b", steps=STEPS,
        runner=f"example:{side.capitalize()}", initial=digest_each(WEIGHTS_OF_ALL),
        alignment=expected_alignment(CASE_OF_ALL),
    )  # fmt: skip
    footer = TraceFooter(last_step=STEPS, parameters={}, lines="")
    trace = Trace(header=dataclasses.replace(stated, **header), steps=steps, footer=footer)
    outcome = RunOutcome(status="completed", last_step=STEPS, detail=f"{STEPS} of {STEPS} steps")
    logits = tensors.get("forward.lm_head")
    own = None if logits is None else _loss_of(logits)
    whole = taps or TapRecord(missing=None, plain_seconds=0.1, tapped_seconds=0.2, loss_of_logits=own)
    return TappedRun(run=Run(name=f"{side}-taps", outcome=outcome, trace=trace), tensors=tensors, taps=whole)


def three(change: Change | None = None, seed: int = 0) -> dict[Side, TappedRun]:
    """Three correct sides; `change` plants a fault in the subject's tensors."""
    tensors = {side: correct(side, seed) for side in SIDES}
    if change is not None:
        change(tensors["subject"])
    return {side: tapped(side, found) for side, found in tensors.items()}


def batches() -> dict[str, Array]:
    return {"tokens": TOKENS, "loss_mask": MASK}


def write(directory: Path, sides: Mapping[Side, TappedRun]) -> Path:
    """Writes the sides as the files of a diagnosis."""
    write_json(directory / CASE, CASE_OF_ALL.record())
    for name, tensors in ((WEIGHTS, WEIGHTS_OF_ALL), (BATCHES, batches())):
        (directory / "inputs").mkdir(exist_ok=True)
        save_file(dict(tensors), directory / "inputs" / name)
    for one in sides.values():
        run = directory / "runs" / one.run.name
        run.mkdir(parents=True)
        assert one.run.trace is not None
        with TraceWriter.create(run / TRACE, one.run.trace.header) as writer:
            for step in one.run.trace.steps:
                writer.append(step)
            writer.finish({})
        write_json(run / OUTCOME, one.run.outcome)
        write_json(run / TAPS, vars(one.taps))
        (directory / "tensors").mkdir(exist_ok=True)
        save_file(
            {name: np.asarray(t) for name, t in one.tensors.items()},
            directory / "tensors" / f"{one.run.name}.safetensors",
        )
    return directory


def sketched_sides(sides: Mapping[Side, TappedRun], whole: Container[str] = ()) -> dict[Side, TappedRun]:
    """The same sides of a case that keeps no tensors, except for those in `whole` and the small ones."""
    return {side: dataclasses.replace(one, tensors=_sketched(one.tensors, whole)) for side, one in sides.items()}


def _sketched(tensors: Mapping[str, Array], whole: Container[str]) -> dict[str, Array]:
    left = Leaving(CASE_OF_ALL.with_changes(evidence="sketches"))
    every = {name.partition(".")[0] + ".": dict[str, Array]() for name in tensors}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        every[f"{prefix}."][rest] = tensor
    for prefix, found in every.items():
        weights = WEIGHTS_OF_ALL if prefix == UPDATED else None
        left.add(
            prefix,
            found.items(),
            weights,
            change=prefix == UPDATED,
            whole={*ALWAYS_WHOLE, *(n for n in tensors if n in whole)},
        )
    return left.left
