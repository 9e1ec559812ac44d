"""Collected runs with invented numbers, in the real files: for tests of everything that judges them."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.cases.alignment import expected_alignment
from harness.cases.case import DEFAULT_CASE, Case, load_case
from harness.collect.collector import Collector
from harness.corpus.draw import draw_inputs
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors, read_weights
from harness.runs.trace import Step
from tests.support.bundles import example_step
from tests.support.examples import shorter

Array = npt.NDArray[Any]
STEPS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """The inputs of the small case: weights by name, tokens [steps, B, S+1] and masks [steps, B, S]."""

    case: Case
    weights: Mapping[str, Array]
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
        draw_inputs(case, directory)
        weights = dict(read_weights(directory / WEIGHTS).items())
        batches = read_tensors(directory / BATCHES)
    return Drawn(case=case, weights=weights, tokens=batches["tokens"], mask=batches["loss_mask"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """A trainer that takes its numbers from a table. Every field is a way to be wrong."""

    run: str = "subject-1"
    trainer: str = "example"
    steps: int = STEPS
    arm: str = "train"
    ranks: int = 1
    change: Callable[[Step], Step | None] = lambda step: step
    tokens: Callable[[int, Array], Array] = lambda step, tokens: tokens
    weights: Callable[[dict[str, Array]], dict[str, Array]] = lambda weights: weights
    alignment: Callable[[dict[str, Any]], dict[str, Any]] = lambda alignment: alignment
    omitted: tuple[str, ...] = ()
    ends: bool = True
    final: bool = True


def train(directory: Path, how: Trainer | None = None) -> Path:
    """Collects one run, of all its ranks in turn, each with its rows."""
    how = how or Trainer()
    for rank in range(how.ranks):
        _train(directory, how, rank)
    return directory


def _train(directory: Path, how: Trainer, rank: int) -> None:
    inputs = drawn()
    collector = Collector(
        directory,
        steps=how.steps,
        trainer=how.trainer,
        arm=how.arm,
        rank=rank,
        ranks=how.ranks,
        reporting=how.ranks - 1,
    )
    alignment = how.alignment(dict(expected_alignment(inputs.case)))
    weights = how.weights(dict(inputs.weights))
    collector.begin(weights, alignment=alignment, provenance={"mode": "GRAPH"}, omitted=how.omitted)
    for number in range(1, how.steps + 1):
        shares = np.array_split(np.arange(len(inputs.tokens[number - 1])), how.ranks)
        tokens = how.tokens(number, inputs.tokens[number - 1].copy())[shares[rank]]
        taken = how.change(example_step(how.run, number, how.steps))
        if taken is None:
            return
        if "batches" not in how.omitted:
            collector.micro_batch(tokens, inputs.mask[number - 1][shares[rank]])
        norm = None if "grad_norm" in how.omitted else taken.grad_norm
        collector.step(loss=taken.loss, grad_norm=norm, learning_rate=taken.learning_rate)
    if how.ends:
        collector.end(weights if how.final else None)
    assert collector.failed is None
