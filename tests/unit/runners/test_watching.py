"""A watched run leaves the gradients and updates that its steps used, also where it was resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.runners.watching import Watch
from harness.runs.sketches import Directions, inner, sketch, sketched
from harness.runs.watched import CHANGED, MOMENTS, PARAMETERS, gradients_at, updates_at
from tests.support.examples import small_case

STEPS, EXAMINED, RATE = 8, (1, 5), 0.01


class Momentum:
    """Steps by a first moment of gradients that are known."""

    def __init__(self, *, moments: bool = True) -> None:
        self.values = {"m": np.ones((40, 20), np.float32), "v": np.ones(7, np.float32)}
        self.held = {name: np.zeros(tensor.shape) for name, tensor in self.values.items()}
        if moments:
            self.moments = lambda: self.held

    def gradient(self, step: int, name: str) -> np.ndarray:
        return np.random.RandomState(step).standard_normal(self.values[name].shape)

    def step(self, number: int) -> None:
        for name in self.values:
            self.held[name] = 0.9 * self.held[name] + 0.1 * self.gradient(number, name)
            self.values[name] = self.values[name] - np.float32(RATE) * self.held[name].astype(np.float32)

    def parameters(self) -> dict[str, np.ndarray]:
        return self.values


def watched(runner: Any, through: tuple[int, int] = (1, STEPS), begun: Path | None = None) -> Watch:
    case = small_case()
    training = {**case.training.model_dump(), "examined_steps": EXAMINED}
    case = case.with_changes(training=training, optimizer={"betas": (0.9, 0.95)})
    watch = Watch(case, runner)
    watch.load(begun) if begun else watch.begin()
    for step in range(through[0], through[1] + 1):
        watch.before(step)
        runner.step(step)
        watch.after(step)
    return watch


def test_the_gradient_of_each_step_follows_from_its_moments() -> None:
    runner = Momentum()
    left = watched(runner).left
    for name in ("m", "v"):
        held = left[f"{MOMENTS}{name}"]
        shown = (held[1:] - 0.9 * held[:-1]) / 0.1
        along = Directions()
        assert shown == pytest.approx([along.along(name, runner.gradient(step, name)) for step in range(1, STEPS + 1)])
        for step in EXAMINED:
            found, full = sketched(left, f"{gradients_at(step)}{name}"), f"{gradients_at(step)}{name}"
            assert found is not None and np.allclose(found.buckets, sketch(full, runner.gradient(step, name)).buckets)
        assert f"{gradients_at(2)}{name}#sketch" not in left


def test_the_update_of_an_examined_step_is_the_difference_of_its_parameters() -> None:
    runner = Momentum()
    left = watched(runner).left
    found = sketched(left, f"{updates_at(1)}m")
    expected = sketch(f"{updates_at(1)}m", -RATE * 0.1 * runner.gradient(1, "m"))
    assert found is not None and np.allclose(found.buckets, expected.buckets, atol=1e-6)
    assert len(left[f"{PARAMETERS}m"]) == STEPS + 1


def test_the_change_of_the_whole_run_is_from_the_initial_weights() -> None:
    runner, start = Momentum(), {name: np.ones_like(tensor) for name, tensor in Momentum().values.items()}
    watch = watched(runner)
    watch.end(start)
    change = runner.values["m"].astype(np.float64) - 1
    found = sketched(watch.left, f"{CHANGED}m")
    assert found is not None and found.squares == pytest.approx(float(np.square(change).sum()))
    assert watch.left[f"{CHANGED}m#along"] == pytest.approx([inner(change, start["m"]), 800.0, 800.0])


def test_a_run_that_is_resumed_leaves_the_same(tmp_path: Path) -> None:
    whole, runner = watched(Momentum()).left, Momentum()
    watched(runner, (1, 4)).save(tmp_path)
    parts = watched(runner, (5, STEPS), begun=tmp_path).left
    assert set(parts) == set(whole) and all(np.array_equal(parts[name], tensor) for name, tensor in whole.items())


def test_a_runner_without_moments_is_watched_by_its_parameters() -> None:
    left = watched(Momentum(moments=False)).left
    assert any(name.startswith(PARAMETERS) for name in left)
    assert not any(name.startswith((MOMENTS, gradients_at(5))) for name in left)
