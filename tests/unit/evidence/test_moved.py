"""Three planted upgrades, each named by what it is: an operator with a bias, another default, a slower kernel."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.comparison.measurement import Comparison, Measurement
from harness.evidence.bundle import Bundle
from harness.evidence.diff import DifferenceKind, diff_bundles
from harness.evidence.timing import Timing
from harness.runs.operators import MEASURED
from harness.runs.trace import Step, TraceHeader
from tests.support.bundles import write_example

OPERATORS = ("exp", "log_softmax", "matmul")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_operators(write_example(tmp_path_factory.mktemp("old") / "bundle"))


def with_operators(bundle: Bundle, **bias: float) -> Bundle:
    """The bundle with probed operators, each with an error of a rounding and the bias that is named."""
    measured = {
        f"subject.operators.{what}": Measurement(
            name=f"subject.operators.{what}",
            places=OPERATORS,
            values=tuple(bias.get(name, 0.0) if what == "bias" else 2.0**-25 for name in OPERATORS),
        )
        for what in MEASURED
    }
    return dataclasses.replace(
        bundle, comparison=Comparison(measurements={**bundle.comparison.measurements, **measured})
    )


def steps_taking(bundle: Bundle, seconds: float) -> Bundle:
    timing = Timing(steps=tuple((number, seconds + number * 1e-6) for number in range(1, 9)))
    return dataclasses.replace(bundle, timings={**bundle.timings, "subject-1": timing, "reference-1": TIMED})


TIMED = Timing(steps=((1, 1.0), (2, 0.01), (3, 0.01)))


def other_loss(run: str, step: Any) -> Any:
    """The same subject from step 7 on with a loss that lies a rounding higher."""
    if run.startswith("subject") and isinstance(step, Step) and step.step >= 7:
        return dataclasses.replace(step, loss=step.loss * (1 + 2.0**-24))
    return step


def test_an_operator_with_a_bias_is_named(old: Bundle) -> None:
    found = diff_bundles(old, dataclasses.replace(with_operators(old, exp=-1e-6), digest="b" * 64)).where
    assert found[0] == (
        "Operators of the framework with other results, the most changed first: exp (bias +0 -> -1e-06)"
    )


def test_another_default_is_named(old: Bundle, tmp_path: Path) -> None:
    def other(header: TraceHeader) -> TraceHeader:
        if header.side != "subject":
            return header
        return dataclasses.replace(header, alignment={**header.alignment, "optimizer.eps": 1e-6})

    new = write_example(tmp_path / "new", header=other)
    found = diff_bundles(old, new)
    assert found.kind is DifferenceKind.REGRESSION
    assert found.where[0] == "Another setting was built: optimizer.eps 1e-08 -> 1e-06"


def test_a_slower_kernel_is_named(old: Bundle) -> None:
    before, after = (dataclasses.replace(steps_taking(old, seconds), digest="b" * 64) for seconds in (0.02, 0.06))
    assert diff_bundles(dataclasses.replace(before, digest="a" * 64), after).where[-1] == (
        "The fastest step takes 3.00 times as long (0.02 s -> 0.06 s); the reference's 1.00 times"
    )
    as_fast = dataclasses.replace(steps_taking(old, 0.025), digest="c" * 64)
    assert not any("as long" in one for one in diff_bundles(before, as_fast).where)


def test_the_first_step_that_differs_is_named(old: Bundle, tmp_path: Path) -> None:
    new = with_operators(write_example(tmp_path / "new", change=other_loss))
    found = diff_bundles(old, new).where
    assert any(one.startswith("The steps differ from step 7 on: loss ") for one in found)
    assert "The gradients of the first batch have the same bits" in found
    assert f"The {len(OPERATORS)} operators of the framework that were probed have the same errors" in found


def test_of_the_gradients_that_differ_the_first_of_the_backward_pass_is_named(old: Bundle) -> None:
    run = old.runs["subject-probe"]
    assert run.trace is not None and run.trace.footer is not None
    left = run.trace.footer.parameters
    other = {name: "0" * 64 for name in left if "norm" in name or "q_proj" in name}
    footer = dataclasses.replace(run.trace.footer, parameters={**left, **other})
    changed = dataclasses.replace(run, trace=dataclasses.replace(run.trace, footer=footer))
    new = dataclasses.replace(old, digest="b" * 64, runs={**old.runs, "subject-probe": changed})
    names = sorted(name.removeprefix("gradient.") for name in other if name.startswith("gradient."))
    (found,) = [one for one in diff_bundles(old, new).where if one.startswith("The gradients")]
    assert names and found.endswith(f"in the order of the backward pass first in {names[-1]}"), (names, found)
