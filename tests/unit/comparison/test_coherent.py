"""Errors that all point one way are seen far below the rounding of single elements."""

from typing import Any

import numpy as np
import pytest

from harness.cases.runs_of_a_case import ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE
from harness.comparison.coherent import coherent
from harness.comparison.measurement import Measurement
from harness.runs.files import GRADIENT, UPDATED
from harness.runs.sketches import BUCKETS, recorded
from tests.unit.comparison.test_training_comparison import make_run

SHAPE, ROUNDING = (200, 300), 1e-7
PROBES = (ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE)
RUNS = {name: make_run(name) for name in PROBES}


def random(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(SHAPE)


WEIGHTS = {"w": random(0).astype(np.float32)}


def measured(more: np.ndarray | float, *, sketches: bool) -> dict[str, Measurement]:
    """Of a subject whose gradient and update are off by `more` besides its roundings."""
    exact = random(1)
    left: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(PROBES):
        found = exact + (ROUNDING * random(10 + number) if number else 0.0) + (more if name == SUBJECT_PROBE else 0.0)
        tensors = {f"{GRADIENT}w": found, f"{UPDATED}w": found + WEIGHTS["w"]}
        if sketches:
            left[name] = {
                **recorded(f"{GRADIENT}w", found, BUCKETS, weights=WEIGHTS["w"]),
                **recorded(f"{UPDATED}w", tensors[f"{UPDATED}w"], BUCKETS, start=WEIGHTS["w"], weights=WEIGHTS["w"]),
            }
        else:
            left[name] = tensors
    measurements = coherent(RUNS, left, {} if sketches else WEIGHTS, why_no_change="the case examines no steps")
    return {one.name: one for one in measurements}


@pytest.mark.parametrize("sketches", [False, True])
def test_roundings_leave_about_one_standard_deviation(sketches: bool) -> None:
    found = measured(0.0, sketches=sketches)
    for what in ("gradients", "updates"):
        for side in ("reference", "subject"):
            assert found[f"oracle.{what}.along.{side}"].values[0] < 4
            assert found[f"oracle.{what}.length.{side}"].values[0] < ROUNDING


@pytest.mark.parametrize("sketches", [False, True])
def test_a_fifth_of_a_rounding_in_every_element_shows_if_it_is_a_multiple_of_the_weights(sketches: bool) -> None:
    found = measured(ROUNDING / 5 * WEIGHTS["w"].astype(np.float64), sketches=sketches)
    assert found["oracle.gradients.along.subject"].values[0] > 30
    assert found["oracle.updates.along.subject"].values[0] > 30
    assert found["oracle.gradients.along.reference"].values[0] < 4


@pytest.mark.parametrize("sketches", [False, True])
def test_a_gradient_that_was_scaled_shows_by_its_length(sketches: bool) -> None:
    found = measured(ROUNDING / 5 * random(1), sketches=sketches)
    assert found["oracle.gradients.length.subject"].values[0] == pytest.approx(ROUNDING / 5, rel=0.1)


def test_what_no_run_recorded_is_missing() -> None:
    left = {name: recorded(f"{GRADIENT}w", random(1)) for name in PROBES}
    found = {one.name: one for one in coherent(RUNS, left, {}, why_no_change="the case examines no steps")}
    assert found["oracle.gradients.along.subject"].missing == "no part along the weights was recorded"
    assert found["oracle.change.along.subject"].missing == "the case examines no steps"
