"""The probes of a run: gradients and updates on their own, and for a diagnosis what is inside the step."""

import gc
import shutil
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy.typing as npt
from safetensors.numpy import save_file

from harness.base.digest import digest_tensors
from harness.cases.case import Case
from harness.runners.job import Job, header_of
from harness.runners.leaving import Leaving
from harness.runners.protocol import ByParameter, Runner, Tensors, WithOperators
from harness.runners.resuming import CHECKPOINT
from harness.runners.steps import compile_step, measure_step, note, take_step
from harness.runners.tapping import ALWAYS_WHOLE, tap
from harness.runs.files import GRADIENT, TIMING, TRACE, UPDATED
from harness.runs.inputs import PROBE_UPDATES, ProbeGradients
from harness.runs.operators import PROBES, probed
from harness.runs.trace import TraceWriter
from harness.runs.watched import OPERATOR


def probe(job: Job, case: Case, build: Callable[[], Runner], weights: Tensors, batches: Tensors) -> None:
    """Records the gradients of the first batch with the steps that begin with them, and what the optimizer alone makes
    of gradients that both sides are handed; of the arm `taps` also what is inside the first step."""
    directory, tokens, loss_mask = Path(job.directory), batches["tokens"][0], batches["loss_mask"][0]
    left, runner = Leaving(case), build()
    header = header_of(job, case, runner, weights=digest_tensors(weights), batches=digest_tensors(batches))
    with TraceWriter.create(directory / TRACE, header) as writer, (directory / TIMING).open("w") as timing:
        if isinstance(runner, ByParameter) and job.steps == 1:
            step, gradients = measure_step(runner, tokens, loss_mask, timing)
            writer.append(step)
        else:
            # The step is what every other run compiles first too; see harness/studies/forks.py.
            compile_step(runner, tokens, loss_mask, timing)
            for number in range(1, job.steps + 1):
                tokens_of, mask_of = batches["tokens"][number - 1], batches["loss_mask"][number - 1]
                step = take_step(runner, number, tokens_of, mask_of, timing)
                writer.append(step)
                if not step.finite:
                    break
            del runner  # a large model is held once
            gc.collect()
            runner = build()
            gradients = runner.gradients(tokens, loss_mask)
        note(timing, "gradients")
        left.add(GRADIENT, gradients.items(), weights, whole=job.whole)
        note(timing, "gradients recorded")
        gradients = {}
        left.add(UPDATED, apply(runner, case, weights, timing), weights, change=True)
        if job.arm == "taps":
            plain = runner if case.evidence == "tensors" else None
            del runner
            gc.collect()
            of_gradients = {name: digest for name, digest in left.digests.items() if name.startswith(GRADIENT)}
            places = tap(job, plain, build, tokens, loss_mask, of_gradients)
            note(timing, "places")
            left.add("", places.items(), whole={*ALWAYS_WHOLE, *job.whole})
        operators = operators_of(runner) if case.training.examined_steps and job.arm == "probe" else {}
        kept = left.keep(job, operators)
        watched = digest_tensors(operators) if operators and job.keep_tensors else None
        writer.finish(left.digests, kept=kept, watched=watched)


def tap_after(job: Job, case: Case, build: Callable[[], Runner], weights: Tensors, batches: Tensors) -> None:
    """Takes the steps of the job, leaves the weights that the runner then has, and records the gradients of the next
    batch and what is inside that step."""
    directory, tokens, loss_mask = Path(job.directory), batches["tokens"][job.steps], batches["loss_mask"][job.steps]
    assert job.weights_left is not None, "it is where the weights go"
    left, runner, saved = Leaving(case), build(), directory / CHECKPOINT / str(job.steps)

    def loaded() -> Runner:
        fresh = build()
        fresh.load(saved)
        return fresh

    header = header_of(job, case, runner, weights=digest_tensors(weights), batches=digest_tensors(batches))
    with TraceWriter.create(directory / TRACE, header) as writer, (directory / TIMING).open("w") as timing:
        compile_step(runner, batches["tokens"][0], batches["loss_mask"][0], timing)
        for number in range(1, job.steps + 1):
            step = take_step(runner, number, batches["tokens"][number - 1], batches["loss_mask"][number - 1], timing)
            writer.append(step)
            if not step.finite:
                break
        runner.save(saved)
        reached = dict(runner.parameters().items())
        save_file(reached, job.weights_left)
        del runner
        gc.collect()
        plain = loaded()
        gradients = plain.gradients(tokens, loss_mask)
        left.add(GRADIENT, gradients.items(), reached, whole=job.whole)
        # Every run compiles the same graphs in the same order; see harness/studies/forks.py.
        for _ in apply(plain, case, weights, timing):
            pass
        del plain
        gc.collect()
        of_gradients = {name: digest for name, digest in left.digests.items() if name.startswith(GRADIENT)}
        left.add("", tap(job, None, loaded, tokens, loss_mask, of_gradients).items(), whole={*ALWAYS_WHOLE, *job.whole})
        shutil.rmtree(saved)
        writer.finish(left.digests, kept=left.keep(job))


def operators_of(runner: Runner) -> dict[str, npt.NDArray[Any]]:
    """How far the framework's elementary operators are from the exact results; nothing if the runner shows none."""
    if not isinstance(runner, WithOperators):
        return {}
    found = {}
    for name, operator in runner.operators().items():
        if name not in PROBES:
            continue
        try:
            found[f"{OPERATOR}{name}"] = probed(operator, name)
        # Any error: a device may lack an operator that the subject does not use. It is then not measured.
        except Exception:
            traceback.print_exc()
    return found


def apply(runner: Runner, case: Case, weights: Tensors, timing: TextIO) -> Iterable[tuple[str, npt.NDArray[Any]]]:
    """The parameters after the updates by drawn gradients."""
    drawn = [ProbeGradients(weights, case.initialization.seed, update) for update in range(1, PROBE_UPDATES + 1)]
    if isinstance(runner, ByParameter):
        for name in weights:
            yield name, runner.updated(name, drawn)
            note(timing, f"updated {name}")
        return
    for number, gradients in enumerate(drawn, 1):
        runner.apply_gradients(gradients)
        note(timing, f"update {number}")
    yield from runner.parameters().items()
