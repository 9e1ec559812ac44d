"""One run, in a process of its own: `python -m harness.runners.worker JOB.json PARENT [resume]`.

Reads the inputs of its job and records the digests of what it read; trains; writes each step at once and a checkpoint
now and then; stops at the first number that is not finite, because nothing after it has a meaning.
"""

import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_tensors
from harness.base.records import parse, read_json
from harness.cases.case import Case, parse_case
from harness.runners import cores
from harness.runners.inference_worker import infer
from harness.runners.job import Job, header_of
from harness.runners.leaving import Leaving
from harness.runners.probing import probe, tap_after
from harness.runners.processes import end_with_parent
from harness.runners.profiling import Profiling
from harness.runners.protocol import Copies, Runner, Setting, Tensors
from harness.runners.registry import load_runner
from harness.runners.resuming import CHECKPOINT, resume_step, save_checkpoint
from harness.runners.step_lines import prints_steps, step_line
from harness.runners.steps import compile_step, note, take_step
from harness.runners.watching import Watch
from harness.runs.files import TIMING, TRACE
from harness.runs.inputs import BATCHES, read_tensors, read_weights
from harness.runs.trace import TraceHeader, TraceWriter


def main(job_file: str, parent: int, resume: bool) -> bool:
    """Carries out the job of a file; `parent` is the process that started this one. See `carry_out`."""
    end_with_parent(parent)
    job = read_job(job_file)
    cores.hold(job.cores)
    return carry_out(job, load_runner(job.runner), resume or job.resume)


def read_job(job_file: str) -> Job:
    """The job of a file."""
    job: Job = parse(Job, read_json(Path(job_file)), Path(job_file))
    return job


def carry_out(job: Job, factory: Any, resume: bool, rank: int | None = None) -> bool:
    """Makes one run with the runners of a factory; False if it stopped half way, as its arm requires.

    `factory` is a `RunnerFactory`, or for inference an `AnswererFactory`.
    `rank` is the rank of this process, if several make the run together.

    Raises:
        CertifyError: case or inputs cannot be read. Whatever else a runner raises.
    """
    case = parse_case(dict(job.case), f"the job of {job.run}")
    weights = read_weights(Path(job.weights))
    if job.arm == "infer":
        infer(job, case, factory, weights)
        return True
    batches = read_tensors(Path(job.inputs) / BATCHES)
    setting = Setting(device=job.device, threads=job.threads, learning_rate_zero=job.arm == "lr_zero", rank=rank)

    def build() -> Runner:
        return factory(case, perturbed(weights, job.perturbation), setting)

    if job.arm == "taps" and job.weights_left is not None:
        tap_after(job, case, build, weights, batches)
        return True
    if job.arm in ("probe", "alone_probe", "taps"):
        probe(job, case, build, weights, batches)
        return True
    runner = build()
    header = header_of(job, case, runner, weights=digest_tensors(weights), batches=digest_tensors(batches))
    shown = job.starter == "msrun" and prints_steps(case.parallel, rank)  # other processes have no stages
    return train(job, case, runner, header, weights, batches, resume, shown=shown)


def perturbed(weights: Tensors, seed: int | None) -> Tensors:
    """The weights, or with a seed the weights each moved by one unit in the last place, up or down at random.

    One stream of random numbers goes through all of them by name; each tensor is moved when it is asked for.
    """
    if seed is None:
        return weights
    random, states = np.random.RandomState(seed), dict[str, Any]()
    for name in sorted(weights):
        states[name] = random.get_state()
        random.random_sample(weights[name].shape)
    return Copies(states, lambda name: _nudge(weights[name], states[name]))


def _nudge(tensor: npt.NDArray[Any], state: Any) -> npt.NDArray[Any]:
    random = np.random.RandomState()
    random.set_state(state)
    towards = np.where(random.random_sample(tensor.shape) < 0.5, -np.inf, np.inf).astype(tensor.dtype)
    moved: npt.NDArray[Any] = np.nextafter(tensor, towards)
    return moved


def train(
    job: Job,
    case: Case,
    runner: Runner,
    header: TraceHeader,
    weights: Tensors,
    batches: Tensors,
    resume: bool,
    *,
    shown: bool = False,
) -> bool:
    """Takes the steps that are still to take, then states the final parameters. `shown`: each step is printed too.

    A run of the arm `resumed` stops half way with a checkpoint; whether it came to its end is returned.
    """
    directory, watch = Path(job.directory), Watch(case, runner) if job.watch else None
    profiling = Profiling(job, runner)
    after = resume_step(directory / CHECKPOINT) if resume else 0
    half = (case.training.resume_after or job.steps // 2) if job.arm == "resumed" and not after else None
    if after:
        runner.load(directory / CHECKPOINT / str(after))
        writer = TraceWriter.resume(directory / TRACE, header, after)
    else:
        writer = TraceWriter.create(directory / TRACE, header)
    if watch is not None:
        watch.load(directory / CHECKPOINT / str(after)) if after else watch.begin()
    with writer, (directory / TIMING).open("a" if after else "w", encoding="utf-8") as timing:
        compile_step(runner, batches["tokens"][0], batches["loss_mask"][0], timing)
        for number in range(after + 1, job.steps + 1):
            if watch is not None:
                watch.before(number)
            profiling.before(number)
            began = time.perf_counter()
            step = take_step(runner, number, batches["tokens"][number - 1], batches["loss_mask"][number - 1], timing)
            writer.append(step)
            if shown:
                now = datetime.datetime.now()
                print(step_line(step, job.steps, time.perf_counter() - began, now), flush=True)
            profiling.after(number, last=number == job.steps or not step.finite)
            if not step.finite:
                break
            if watch is not None:
                watch.after(number)
            if number == half or (number % case.training.checkpoint_every == 0 and number < job.steps):
                save_checkpoint(runner, watch, directory / CHECKPOINT, number)
            if number == half:
                return False
        left = Leaving(case)
        left.add("", runner.parameters().items())
        if watch is not None:
            watch.end(weights)
        if job.checkpoint:
            runner.save(Path(job.checkpoint))
        note(timing, "final parameters")
        watched = watch.left if watch is not None and job.keep_tensors else None
        kept = left.keep(job, watched)
        writer.finish(left.digests, kept=kept, watched=digest_tensors(watched) if watched else None)
    return True


if __name__ == "__main__":
    if not main(sys.argv[1], int(sys.argv[2]), resume=sys.argv[3:] == ["resume"]):
        # The rest is done by a process that has nothing but the checkpoint.
        os.execv(sys.executable, [sys.executable, "-m", "harness.runners.worker", *sys.argv[1:3], "resume"])
