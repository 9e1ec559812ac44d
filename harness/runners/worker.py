"""One run, in a process of its own: `python -m harness.runners.worker JOB.json PARENT`.

Reads the inputs that it was told to use and states the digests of what it read; trains; writes each step at once and
a checkpoint now and then; ends at the first number that is not finite, for nothing after it means anything.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter
from safetensors.numpy import save_file

from harness.case import Case, parse_case
from harness.digest import digest_array, digest_tensors
from harness.evidence import TIMING, TRACE
from harness.inputs import BATCHES, WEIGHTS, read_tensors
from harness.runners import Job, Runner, Setting, Tensors, load_runner
from harness.trace import Step, TraceHeader, TraceWriter

CHECKPOINT = "checkpoint"
CHECKPOINT_STEP = "step.json"
PR_SET_PDEATHSIG = 1


def main(job_file: str, parent: int) -> None:
    """Carries out a job; `parent` is the process that started it."""
    end_with_parent(parent)
    job: Job = TypeAdapter(Job).validate_python(json.loads(Path(job_file).read_text(encoding="utf-8")))
    case = parse_case(dict(job.case), job_file)
    weights = read_tensors(Path(job.inputs) / WEIGHTS)
    batches = read_tensors(Path(job.inputs) / BATCHES)
    setting = Setting(device=job.device, threads=job.threads, learning_rate_zero=job.arm == "lr_zero")
    runner = load_runner(job.runner)(case, perturbed(weights, job.perturbation), setting)
    header = TraceHeader(
        run=job.run,
        side=job.side,
        arm=job.arm,
        case=case.digest(),
        weights=digest_tensors(weights),
        batches=digest_tensors(batches),
        steps=job.steps,
        runner=job.runner,
        provenance={**runner.provenance(), "perturbation": job.perturbation},
    )
    train(job, case, runner, header, batches)


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the one that started it dies, so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above; a service manager may have taken this process in
            sys.exit("the process that started this run is gone")


def perturbed(weights: Tensors, seed: int | None) -> Tensors:
    """The weights, or with a seed the weights each moved by one unit in the last place, up or down at random."""
    if seed is None:
        return weights
    random = np.random.RandomState(seed)
    return {name: _nudge(tensor, random) for name, tensor in sorted(weights.items())}


def _nudge(tensor: npt.NDArray[Any], random: np.random.RandomState) -> npt.NDArray[Any]:
    towards = np.where(random.random_sample(tensor.shape) < 0.5, -np.inf, np.inf).astype(tensor.dtype)
    moved: npt.NDArray[Any] = np.nextafter(tensor, towards)
    return moved


def train(job: Job, case: Case, runner: Runner, header: TraceHeader, batches: Tensors) -> None:
    """Takes the steps that are still to take, then states the final parameters."""
    directory = Path(job.directory)
    after = resume_step(directory / CHECKPOINT) if job.resume else 0
    if after:
        runner.load(directory / CHECKPOINT / str(after))
        writer = TraceWriter.resume(directory / TRACE, header, after)
    else:
        writer = TraceWriter.create(directory / TRACE, header)
    with writer, (directory / TIMING).open("a" if after else "w", encoding="utf-8") as timing:
        for number in range(after + 1, job.steps + 1):
            step = _take_step(runner, number, batches["tokens"][number - 1], batches["loss_mask"][number - 1], timing)
            writer.append(step)
            if not step.finite:
                break
            if number % case.training.checkpoint_every == 0 and number < job.steps:
                _save_checkpoint(runner, directory / CHECKPOINT, number)
        final = runner.parameters()
        if job.keep_parameters:
            Path(job.keep_parameters).parent.mkdir(exist_ok=True)
            save_file(final, job.keep_parameters)
        writer.finish({name: digest_array(tensor) for name, tensor in final.items()})


def _take_step(
    runner: Runner, number: int, tokens: npt.NDArray[Any], loss_mask: npt.NDArray[Any], timing: TextIO
) -> Step:
    batch = digest_tensors({"tokens": tokens, "loss_mask": loss_mask})
    started = time.perf_counter()
    numbers = runner.train_step(tokens, loss_mask)
    seconds = time.perf_counter() - started
    timing.write(json.dumps({"step": number, "seconds": round(seconds, 6)}) + "\n")
    timing.flush()
    return Step(
        step=number,
        loss=numbers.loss,
        grad_norm=numbers.grad_norm,
        learning_rate=numbers.learning_rate,
        tokens=numbers.tokens,
        batch=batch,
    )


def _save_checkpoint(runner: Runner, directory: Path, step: int) -> None:
    """Writes a checkpoint beside the last one and only then names it the newest."""
    runner.save(directory / str(step))
    unfinished = directory / f"{CHECKPOINT_STEP}.part"
    unfinished.write_text(json.dumps(step), encoding="utf-8")
    os.replace(unfinished, directory / CHECKPOINT_STEP)


def resume_step(directory: Path) -> int:
    path = directory / CHECKPOINT_STEP
    return int(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
