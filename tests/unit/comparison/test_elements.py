"""Small elements that vanish, and values that repeat, are seen though the norm of the gradient is right."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.cases.runs_of_a_case import ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE
from harness.comparison.elements import NOT_RECORDED, of_elements
from harness.comparison.measurement import Measurement
from harness.runs.files import GRADIENT
from harness.runs.sketches import recorded, sketched
from tests.unit.comparison.test_training_comparison import make_run

PROBES = (ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE)
RUNS = {name: make_run(name) for name in PROBES}
Change = Callable[[np.ndarray], np.ndarray]


def gradient() -> np.ndarray:
    """Over six decades, as those of real models are."""
    random = np.random.RandomState(0)
    return random.standard_normal((100, 400)) * 10.0 ** random.uniform(-9, -3, (100, 400))


def measured(change: Change, *, sketches: bool) -> dict[str, Measurement]:
    left: dict[str, dict[str, Any]] = {}
    for seed, name in enumerate(PROBES):
        found = gradient()
        if seed:
            found = (found * (1 + 1e-6 * np.random.RandomState(seed).standard_normal(found.shape))).astype(np.float32)
        if name == SUBJECT_PROBE:
            found = change(found)
        left[name] = recorded(f"{GRADIENT}w", found, located=True) if sketches else {f"{GRADIENT}w": found}
    return {one.name: one for one in of_elements(RUNS, left)}


def same(x: np.ndarray) -> np.ndarray:
    return x


def in_half_precision(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 6e-8, np.float32(0.0), x)


def rounded(x: np.ndarray) -> np.ndarray:
    """To bfloat16."""
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize("sketches", [False, True])
def test_two_correct_sides_are_equally_far_off_in_every_decade(sketches: bool) -> None:
    found = measured(same, sketches=sketches)
    assert found["oracle.decades.ratio"].values[0] < 4
    assert found["train.zeros.relative"].values == found["train.denormals.relative"].values == (0.0,)


@pytest.mark.parametrize("sketches", [False, True])
def test_small_elements_that_vanish_are_seen_in_their_decade_and_counted(sketches: bool) -> None:
    found = measured(in_half_precision, sketches=sketches)
    ratio = found["oracle.decades.ratio"]
    assert ratio.values[0] > 1000 and ratio.within["w"].startswith("elements near 1e-")
    assert found["train.zeros.relative"].values[0] > 0.1


def test_of_the_whole_gradient_the_same_fault_is_not_seen() -> None:
    """Why there is a measurement of its own."""
    found = in_half_precision(gradient().astype(np.float32))
    assert np.linalg.norm(found - gradient()) < 1e-4 * np.linalg.norm(gradient())


@pytest.mark.parametrize("sketches", [False, True])
def test_values_that_repeat_are_counted(sketches: bool) -> None:
    assert measured(rounded, sketches=sketches)["train.values.relative"].values[0] > 0.05
    assert measured(same, sketches=sketches)["train.values.relative"].values[0] < 0.01


def test_evidence_that_does_not_have_it_is_said_to_lack_it() -> None:
    left = {name: recorded(f"{GRADIENT}w", gradient()) for name in PROBES}
    assert sketched(left[ORACLE_PROBE], f"{GRADIENT}w") is not None
    assert {one.missing for one in of_elements(RUNS, left)} == {NOT_RECORDED}


@pytest.mark.parametrize("part", ["#decades", "#values"])
def test_a_record_of_another_shape_is_not_a_number(part: str) -> None:
    left = {name: recorded(f"{GRADIENT}w", gradient(), located=True) for name in PROBES}
    left[SUBJECT_PROBE][f"{GRADIENT}w{part}"] = np.zeros(2)
    found = {one.name: one for one in of_elements(RUNS, left)}
    one = found["oracle.decades.ratio" if part == "#decades" else "train.zeros.relative"]
    assert one.missing == NOT_RECORDED
