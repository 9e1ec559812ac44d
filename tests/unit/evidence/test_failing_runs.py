"""Runs that went wrong, from what they recorded to the findings and the level: none of it ever passes."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.runs.trace import Step
from tests.support.bundles import certified, example_parameters, write_example
from tests.support.examples import small_case

RUNS = ("reference-1", "reference-2", "reference-lr0", "subject-1", "subject-2", "subject-lr0")
Changed = Callable[[str, Step], Step | None]


def outcomes(bundle: Bundle) -> dict[str, Outcome]:
    return {finding.criterion: finding.outcome for finding in bundle.findings}


def everywhere(runs: tuple[str, ...], steps: range, **values: Any) -> Changed:
    return lambda run, step: dataclasses.replace(step, **values) if run in runs and step.step in steps else step


@pytest.mark.parametrize("runs", [("subject-1",), ("reference-1",), RUNS])
@pytest.mark.parametrize("steps", [range(1, 2), range(3, 4), range(8, 9), range(1, 9)])
@pytest.mark.parametrize("number", ["loss", "grad_norm", "learning_rate"])
def test_not_a_number_is_a_failure(tmp_path: Path, runs: tuple[str, ...], steps: range, number: str) -> None:
    bundle = write_example(tmp_path / "b", case=small_case(), change=everywhere(runs, steps, **{number: math.nan}))
    assert outcomes(bundle)["runs-finite"] is Outcome.FAIL
    assert certified(bundle).level is Level.NONE


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("last", [0, 1, 2])
def test_missing_step_is_a_failure(tmp_path: Path, run: str, last: int) -> None:
    bundle = write_example(
        tmp_path / "b", case=small_case(), change=lambda name, s: None if name == run and s.step > last else s
    )
    assert outcomes(bundle)["runs-complete"] in (Outcome.FAIL, Outcome.ERROR)
    assert certified(bundle).level is Level.NONE


@pytest.mark.parametrize("key", ["case", "weights", "batches"])
def test_a_trace_of_another_case_is_a_failure(tmp_path: Path, key: str) -> None:
    bundle = write_example(
        tmp_path / "b",
        case=small_case(),
        header=lambda one: dataclasses.replace(one, **{key: "f" * 64}) if one.run == "subject-1" else one,
    )
    assert outcomes(bundle)["inputs-same"] is Outcome.FAIL
    assert certified(bundle).level is Level.UNTESTED


@pytest.mark.parametrize(
    ("values", "criterion"),
    [
        ({"learning_rate": 1.01e-5}, "learning-rate"),
        ({"tokens": 255}, "tokens"),
        ({"batch": "other"}, "batches-same"),
        ({"loss": 5.0}, "loss"),
        ({"grad_norm": 2.0}, "grad-norm"),
    ],
)
def test_another_number_in_one_step_is_a_failure(tmp_path: Path, values: dict[str, Any], criterion: str) -> None:
    change = everywhere(("subject-1", "subject-2"), range(2, 3), **values)
    # An older bundle, which has no start; a newer one with another batch is refused (`test_fed.py`).
    bundle = write_example(tmp_path / "b", case=small_case(), change=change, start=None)
    finding = next(one for one in bundle.findings if one.criterion == criterion)
    assert finding.outcome is Outcome.FAIL and "step 2" in finding.message
    assert certified(bundle).level in (Level.UNTESTED, Level.NONE)


@pytest.mark.parametrize("run", ["reference-1", "subject-1"])
@pytest.mark.parametrize("extra", [True, False])
def test_a_missing_or_extra_parameter_is_a_failure(tmp_path: Path, run: str, extra: bool) -> None:
    def parameters(name: str) -> dict[str, np.ndarray]:
        tensors = example_parameters(name)
        if name == run and extra:
            tensors["model.extra.weight"] = np.ones(3, dtype=np.float32)
        elif name == run:
            del tensors["model.norm.weight"]
        return tensors

    bundle = write_example(tmp_path / "b", case=small_case(), parameters=parameters)
    finding = next(one for one in bundle.findings if one.criterion == "final-parameters")
    assert finding.outcome is Outcome.FAIL
    assert finding.judged[0].worst == ("model.extra.weight" if extra else "model.norm.weight")


def test_a_repeat_with_another_last_bit_is_a_failure(tmp_path: Path) -> None:
    def change(run: str, step: Step) -> Step:
        again = run == "subject-2" and step.step == 7
        return dataclasses.replace(step, loss=math.nextafter(step.loss, 9.0)) if again else step

    bundle = write_example(tmp_path / "b", case=small_case(), change=change)
    assert outcomes(bundle)["subject-deterministic"] is Outcome.FAIL
    assert outcomes(bundle)["reference-deterministic"] is Outcome.PASS
