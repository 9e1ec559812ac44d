"""Looks at every step of a training run: see `harness.runs.watched` for what it leaves.

Nothing that it does changes a bit of the run. A runner without `moments` is watched by its parameters alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from harness.cases.case import Case
from harness.runners.protocol import Runner, Tensors, WithMoments
from harness.runs.sketches import BUCKETS_OF_FIRST_GRADIENT, Directions, Sketch, as_left, recorded, sketch
from harness.runs.watched import CHANGED, MOMENTS, PARAMETERS, gradients_at, updates_at

FILE = "watched.safetensors"  # in a checkpoint
Array = npt.NDArray[Any]


class _State(NamedTuple):
    """A tensor of the state of a training: what its parts along a direction, and the sketch of its change in a step,
    are recorded as; and how much of its value before the step stays in it."""

    series: str
    sketched: str
    name: str
    tensor: Array
    stays: float


class Watch:
    """Of one run. Call `begin` before its first step or `load` where it goes on, `before` and `after` around each step,
    and `end` after the last."""

    def __init__(self, case: Case, runner: Runner) -> None:
        self._examined, self._beta = frozenset(case.training.examined_steps), case.optimizer.betas[0]
        self._runner, self._directions = runner, Directions()
        self._steps: dict[str, list[float]] = {}
        self._before: dict[str, Sketch] = {}
        self._left: dict[str, Array] = {}

    @property
    def left(self) -> dict[str, Array]:
        """What there is until now."""
        return {**self._left, **{name: np.array(values) for name, values in self._steps.items()}}

    def begin(self) -> None:
        """The state before the first step: the moments are zero."""
        for name, tensor in self._runner.parameters().items():
            self._steps[f"{PARAMETERS}{name}"] = [self._directions.along(name, tensor)]
            if isinstance(self._runner, WithMoments):
                self._steps[f"{MOMENTS}{name}"] = [0.0]

    def before(self, step: int) -> None:
        """The state before a step, if that is examined."""
        if step in self._examined:
            self._before = {one.sketched: sketch(one.sketched, one.tensor) for one in self._state(step)}

    def after(self, step: int) -> None:
        """The state after a step."""
        for one in self._state(step):
            self._steps[one.series].append(self._directions.along(one.name, one.tensor))
            if (start := self._before.pop(one.sketched, None)) is not None:
                now, scale = sketch(one.sketched, one.tensor), 1.0 / (1.0 - one.stays) if one.stays < 1.0 else 1.0
                self._left |= as_left(one.sketched, now.combined(scale, start, -scale * one.stays))

    def end(self, weights: Tensors) -> None:
        """The change of each parameter from its initial value."""
        for name, tensor in self._runner.parameters().items():
            start = weights[name]
            self._left |= recorded(f"{CHANGED}{name}", tensor, BUCKETS_OF_FIRST_GRADIENT, start=start, weights=start)

    def save(self, directory: Path) -> None:
        """With a checkpoint."""
        save_file(self.left, directory / FILE)

    def load(self, directory: Path) -> None:
        """Goes on after a checkpoint."""
        for name, tensor in load_file(directory / FILE).items():
            if name.startswith((PARAMETERS, MOMENTS)):
                self._steps[name] = tensor.tolist()
            else:
                self._left[name] = tensor

    def _state(self, step: int) -> Iterator[_State]:
        for name, tensor in self._runner.parameters().items():
            yield _State(f"{PARAMETERS}{name}", f"{updates_at(step)}{name}", name, tensor, 1.0)
        if isinstance(self._runner, WithMoments):
            for name, tensor in self._runner.moments().items():
                yield _State(f"{MOMENTS}{name}", f"{gradients_at(step)}{name}", name, tensor, self._beta)
