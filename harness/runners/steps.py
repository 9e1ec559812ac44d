"""One step of a runner: compiled, taken, timed, and as the line that its trace has."""

import json
import time
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_tensors
from harness.runners.processes import peak_resident
from harness.runners.protocol import ByParameter, Compiled, Numbers, Runner, Tensors
from harness.runs.trace import Step

MIB = 1 << 20


def compile_step(runner: Runner, tokens: npt.NDArray[Any], loss_mask: npt.NDArray[Any], timing: TextIO) -> None:
    """Compiles the step of a runner that can compile it alone, and writes how long that took."""
    if isinstance(runner, Compiled):
        started = time.perf_counter()
        runner.compile(tokens, loss_mask)
        timing.write(json.dumps({"compile_seconds": round(time.perf_counter() - started, 6)}) + "\n")
        timing.flush()


def take_step(
    runner: Runner, number: int, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8], timing: TextIO
) -> Step:
    """The next step, on a batch."""
    started = time.perf_counter()
    numbers = runner.train_step(tokens, loss_mask)
    return _step(number, numbers, time.perf_counter() - started, tokens, loss_mask, timing)


def measure_step(
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


def note(timing: TextIO, phase: str) -> None:
    """Shows that a run lives between two steps: what it did last, and the most memory that it has had."""
    timing.write(json.dumps({"phase": phase, "peak_mib": round(peak_resident() / MIB)}) + "\n")
    timing.flush()
