"""One run, in a process of its own: `python -m harness.runners.worker JOB.json PARENT [resume]`.

Reads the inputs of its job and records the digests of what it read; trains; writes each step at once and a checkpoint
now and then; stops at the first number that is not finite, because nothing after it has a meaning.
"""

import datetime
import gc
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from harness.base.digest import digest_array, digest_tensors
from harness.base.errors import CertifyError
from harness.base.records import check_list, encode_json, list_files, parse, plain_files, read_json, write_json
from harness.cases.case import Case, parse_case
from harness.runners import cores
from harness.runners.inference_worker import infer
from harness.runners.job import Job, header_of
from harness.runners.leaving import Leaving
from harness.runners.processes import end_with_parent, peak_resident
from harness.runners.protocol import ByParameter, Compiled, Numbers, Runner, Setting, Tapped, Tensors, WithOperators
from harness.runners.registry import load_runner
from harness.runners.step_lines import prints_steps, step_line
from harness.runners.watching import Watch
from harness.runs.files import GRADIENT, TIMING, TRACE, UPDATED
from harness.runs.inputs import BATCHES, PROBE_UPDATES, ProbeGradients, read_tensors, read_weights
from harness.runs.operators import PROBES, probed
from harness.runs.places import HEAD, LOSS, TABLES
from harness.runs.taps import TAPS, TapRecord, exact_loss
from harness.runs.trace import Step, TraceHeader, TraceWriter
from harness.runs.watched import OPERATOR

CHECKPOINT = "checkpoint"
CHECKPOINT_STEP = "step.json"
TIMED_CALLS = 3
MIB = 1 << 20
ALWAYS_WHOLE = (f"forward.{LOSS}", f"backward.{LOSS}", f"forward.{TABLES}")
OVER_RANKS = "a step is tapped in one process only, not over ranks"


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
    """The weights, or with a seed the weights each moved by one unit in the last place, up or down at random."""
    if seed is None:
        return weights
    random = np.random.RandomState(seed)
    return {name: _nudge(tensor, random) for name, tensor in sorted(weights.items())}


def _nudge(tensor: npt.NDArray[Any], random: np.random.RandomState) -> npt.NDArray[Any]:
    towards = np.where(random.random_sample(tensor.shape) < 0.5, -np.inf, np.inf).astype(tensor.dtype)
    moved: npt.NDArray[Any] = np.nextafter(tensor, towards)
    return moved


def probe(job: Job, case: Case, build: Callable[[], Runner], weights: Tensors, batches: Tensors) -> None:
    """Records the gradients of the first batch with the steps that begin with them, and what the optimizer alone makes
    of gradients that both sides are handed; of the arm `taps` also what is inside the first step."""
    directory, tokens, loss_mask = Path(job.directory), batches["tokens"][0], batches["loss_mask"][0]
    left, runner = Leaving(case), build()
    header = header_of(job, case, runner, weights=digest_tensors(weights), batches=digest_tensors(batches))
    with TraceWriter.create(directory / TRACE, header) as writer, (directory / TIMING).open("w") as timing:
        if isinstance(runner, ByParameter) and job.steps == 1:
            step, gradients = _measure_step(runner, tokens, loss_mask, timing)
            writer.append(step)
        else:
            # The step is what every other run compiles first too; see harness/studies/forks.py.
            compile_step(runner, tokens, loss_mask, timing)
            for number in range(1, job.steps + 1):
                tokens_of, mask_of = batches["tokens"][number - 1], batches["loss_mask"][number - 1]
                step = _take_step(runner, number, tokens_of, mask_of, timing)
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
            step = _take_step(runner, number, batches["tokens"][number - 1], batches["loss_mask"][number - 1], timing)
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


def note(timing: TextIO, phase: str) -> None:
    """Shows that a run lives between two steps: what it did last, and the most memory that it has had."""
    timing.write(json.dumps({"phase": phase, "peak_mib": round(peak_resident() / MIB)}) + "\n")
    timing.flush()


def tap(
    job: Job,
    plain: Runner | None,
    build: Callable[[], Runner],
    tokens: npt.NDArray[np.int32],
    loss_mask: npt.NDArray[np.uint8],
    gradients: Mapping[str, str],
) -> dict[str, npt.NDArray[Any]]:
    """The places of the step that gave gradients of these digests, as `forward.PLACE` and `backward.PLACE`; writes
    whether tapping changed it, and what it costs beside a plain runner."""
    record, places = TapRecord(missing=OVER_RANKS), dict[str, npt.NDArray[Any]]()
    if job.ranks == 1:
        record, places = _tapped(plain, build(), tokens, loss_mask, gradients)
    write_json(Path(job.directory) / TAPS, record)
    return places


def _tapped(
    plain: Runner | None,
    tapped: Runner,
    tokens: npt.NDArray[np.int32],
    loss_mask: npt.NDArray[np.uint8],
    gradients: Mapping[str, str],
) -> tuple[TapRecord, dict[str, npt.NDArray[Any]]]:
    if not isinstance(tapped, Tapped):
        return TapRecord(missing=f"{type(tapped).__name__} has no method taps"), {}
    try:
        taps = tapped.taps(tokens, loss_mask)
    # Any error: a variant's own cells are wrapped and compiled here and may raise anything. The run itself succeeded
    # and is recorded; the missing taps are stated, and never count as agreement.
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).strip().splitlines() or ["without a message"])[0]
        return TapRecord(missing=f"the tapped step failed: {type(error).__name__}: {reason}"), {}
    given = {f"{GRADIENT}{name}": digest_array(np.asarray(tensor)) for name, tensor in taps.gradients.items()}
    record = TapRecord(
        missing=None,
        differing=tuple(
            name.removeprefix(GRADIENT)
            for name in sorted({*gradients, *given})
            if gradients.get(name) != given.get(name)
        ),
        plain_seconds=_best(lambda: plain.gradients(tokens, loss_mask)) if plain is not None else None,
        tapped_seconds=_best(lambda: tapped.taps(tokens, loss_mask)) if plain is not None else None,
        loss_of_logits=_loss_of_logits(taps.forward.get(HEAD), tokens, loss_mask),
    )
    found = {"forward": taps.forward, "backward": taps.backward}
    return record, {f"{way}.{name}": np.asarray(value) for way, at in found.items() for name, value in at.items()}


def _loss_of_logits(
    logits: npt.NDArray[Any] | None, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]
) -> float | None:
    if logits is None or logits.shape[:2] != loss_mask.shape:
        return None
    return exact_loss(logits, tokens[:, 1:], loss_mask, float(loss_mask.sum()))


def _best(call: Callable[[], object]) -> float:
    """Seconds of the quickest of a few calls."""
    seconds = []
    for _ in range(TIMED_CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return round(min(seconds), 6)


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
            began = time.perf_counter()
            step = _take_step(runner, number, batches["tokens"][number - 1], batches["loss_mask"][number - 1], timing)
            writer.append(step)
            if shown:
                now = datetime.datetime.now()
                print(step_line(step, job.steps, time.perf_counter() - began, now), flush=True)
            if not step.finite:
                break
            if watch is not None:
                watch.after(number)
            if number == half or (number % case.training.checkpoint_every == 0 and number < job.steps):
                _save_checkpoint(runner, watch, directory / CHECKPOINT, number)
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


def compile_step(runner: Runner, tokens: npt.NDArray[Any], loss_mask: npt.NDArray[Any], timing: TextIO) -> None:
    """Compiles the step of a runner that can compile it alone, and writes how long that took."""
    if isinstance(runner, Compiled):
        started = time.perf_counter()
        runner.compile(tokens, loss_mask)
        timing.write(json.dumps({"compile_seconds": round(time.perf_counter() - started, 6)}) + "\n")
        timing.flush()


def _take_step(
    runner: Runner, number: int, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8], timing: TextIO
) -> Step:
    started = time.perf_counter()
    numbers = runner.train_step(tokens, loss_mask)
    return _step(number, numbers, time.perf_counter() - started, tokens, loss_mask, timing)


def _measure_step(
    runner: ByParameter, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8], timing: TextIO
) -> tuple[Step, Tensors]:
    """The first step without its update, and its gradients."""
    started = time.perf_counter()
    numbers, gradients = runner.measured(tokens, loss_mask)
    return _step(1, numbers, time.perf_counter() - started, tokens, loss_mask, timing), gradients


def _step(
    number: int,
    numbers: Numbers,
    seconds: float,
    tokens: npt.NDArray[np.int32],
    loss_mask: npt.NDArray[np.uint8],
    timing: TextIO,
) -> Step:
    timing.write(json.dumps({"step": number, "seconds": round(seconds, 6)}) + "\n")
    timing.flush()
    return Step(
        step=number,
        loss=numbers.loss,
        grad_norm=numbers.grad_norm,
        learning_rate=numbers.learning_rate,
        tokens=numbers.tokens,
        batch=digest_tensors({"tokens": tokens, "loss_mask": loss_mask}),
    )


def _save_checkpoint(runner: Runner, watch: Watch | None, directory: Path, step: int) -> None:
    """Writes a checkpoint next to the last one, and only then names it the newest."""
    runner.save(directory / str(step))
    if watch is not None:
        watch.save(directory / str(step))
    files = plain_files(directory / str(step))
    for name in files:
        with (directory / str(step) / name).open("rb") as file:
            os.fsync(file.fileno())
    unfinished = directory / f"{CHECKPOINT_STEP}.part"
    with unfinished.open("wb") as file:
        file.write(encode_json({"step": step, "files": list_files(directory / str(step), files)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, directory / CHECKPOINT_STEP)


def resume_step(directory: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none, or where it is not as it was written: then the run
    begins again."""
    try:
        newest = read_json(directory / CHECKPOINT_STEP)
        step, files = int(newest["step"]), dict(newest["files"])
        check_list(directory / str(step), files, plain_files(directory / str(step)))
    except (CertifyError, OSError, LookupError, TypeError, ValueError):
        return 0
    return step


if __name__ == "__main__":
    if not main(sys.argv[1], int(sys.argv[2]), resume=sys.argv[3:] == ["resume"]):
        # The rest is done by a process that has nothing but the checkpoint.
        os.execv(sys.executable, [sys.executable, "-m", "harness.runners.worker", *sys.argv[1:3], "resume"])
