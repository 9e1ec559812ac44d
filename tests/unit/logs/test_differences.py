"""Two runs with printed digits: a difference that the digits can hide is INCONCLUSIVE, neither `differs` nor `same`."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.logs import ImportedRun, LoggedStep, Printed
from harness.logs.differences import LogDifference, differences
from harness.logs.printed import printed

LOSSES = st.lists(st.floats(0.1, 20), min_size=1, max_size=40)


def run(*steps: LoggedStep) -> ImportedRun:
    return ImportedRun(source="megatron", files={}, origin="log", steps=steps)


def curve(losses: list[float], resolution: float = 0.0) -> ImportedRun:
    return run(*(LoggedStep(step=n, loss=Printed(loss, resolution)) for n, loss in enumerate(losses, 1)))


def loss(reference: ImportedRun, subject: ImportedRun) -> LogDifference:
    return differences(reference, subject)[0]


@given(LOSSES)
def test_equal_bits_are_the_same_and_equal_digits_are_not(losses: list[float]) -> None:
    assert loss(curve(losses), curve(losses)).result == "same"
    assert loss(curve(losses, 1e-6), curve(losses)).result == "INCONCLUSIVE"


@given(LOSSES, st.sampled_from(["%.2f", "%.6f", "%.3E", "%.6E"]))
def test_a_run_never_differs_from_its_own_print(losses: list[float], form: str) -> None:
    numbers = [printed(form % one) for one in losses]
    log = run(*(LoggedStep(step=n, loss=number) for n, number in enumerate(numbers, 1)))
    found = loss(curve(losses), log)
    assert found.result == "INCONCLUSIVE" and found.first is None and found.compared == len(losses)


@given(LOSSES, st.data())
def test_a_difference_beyond_the_digits_is_found_at_its_step(losses: list[float], data: st.DataObject) -> None:
    step = data.draw(st.integers(1, len(losses)))
    other = [one + 3e-6 * (n == step) for n, one in enumerate(losses, 1)]
    assert loss(curve(losses, 1e-6), curve(other, 1e-6)).first == step


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.0, 1.0))
def test_means_are_compared_with_the_mean_of_the_same_steps(over: int, groups: int, off: float) -> None:
    losses = [6.0 - 0.1 * n for n in range(over * groups)]
    means = [sum(losses[n * over : (n + 1) * over]) / over + off * (n == groups - 1) for n in range(groups)]
    log = run(*(LoggedStep(step=(n + 1) * over, over=over, loss=Printed(m, 1e-6)) for n, m in enumerate(means)))
    found = loss(curve(losses), log)
    assert found.compared == groups and found.alone == 0
    assert found.first == (over * groups if off > 2e-6 else None) or 1e-6 < off < 5e-6


def test_steps_that_only_one_side_has_are_counted_and_never_the_same() -> None:
    whole, part = curve([3.0, 2.0, 1.0]), run(LoggedStep(step=2, loss=Printed(2.0)))
    found = loss(whole, part)
    assert (found.compared, found.alone, found.result) == (1, 2, "INCONCLUSIVE")
    nothing = loss(whole, run(LoggedStep(step=9, loss=Printed(1.0))))
    assert nothing.compared == 0 and nothing.result == "INCONCLUSIVE" and math.isnan(nothing.maximum)


def test_a_mean_with_a_missing_step_is_not_compared() -> None:
    log = run(LoggedStep(step=4, over=4, loss=Printed(1.0)), LoggedStep(step=8, over=4, loss=Printed(2.0)))
    other = run(*(LoggedStep(step=n, loss=Printed(2.0)) for n in (1, 2, 4, 5, 6, 7, 8)))
    found = loss(log, other)
    assert found.compared == 1 and found.first is None and found.alone == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_always_differs(value: float) -> None:
    assert loss(curve([1.0, value]), curve([1.0, value])).first == 2
    assert loss(curve([1.0, value], 1e-3), curve([1.0, 1.0])).first == 2


def test_a_number_that_is_in_no_line_is_inconclusive() -> None:
    assert [one.result for one in differences(curve([1.0]), curve([1.0]))] == ["same", "INCONCLUSIVE", "INCONCLUSIVE"]
