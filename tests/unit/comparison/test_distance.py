"""How far two numbers, tensors or curves are apart: definitions, symmetry, and not-a-number that never goes away."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from harness.comparison.distance import (
    HALF_ULP,
    absolute,
    bits_differ,
    error_ratio,
    fall,
    relative,
    signed,
    spike,
    tensor_difference,
    trend,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
CURVES = st.lists(st.floats(0.1, 10), min_size=2, max_size=40)


@given(FINITE, FINITE)
def test_absolute_is_symmetric_and_zero_only_where_equal(a: float, b: float) -> None:
    assert absolute(a, b) == absolute(b, a) >= 0
    assert (absolute(a, b) == 0) == (a == b)


@given(FINITE, FINITE)
def test_signed_changes_its_sign_with_both_numbers(a: float, b: float) -> None:
    assert signed(-a, -b) == -signed(a, b)
    assert relative(a, b) == relative(-a, -b) == abs(signed(a, b)) >= 0


@given(st.floats(1e-3, 1e3), st.floats(-0.5, 0.5))
def test_relative_is_measured_in_the_reference(a: float, part: float) -> None:
    assert signed(a, a * (1 + part)) == pytest.approx(part, abs=1e-14)
    assert signed(-a, -a * (1 + part)) == pytest.approx(-part, abs=1e-14)
    assert absolute(a, a * (1 + part)) == pytest.approx(abs(part) * a, abs=1e-12)


@given(FINITE.filter(bool))
def test_a_difference_from_zero_is_infinite(b: float) -> None:
    assert relative(0.0, b) == math.inf and signed(0.0, b) == math.copysign(math.inf, b)


@pytest.mark.parametrize("measured", [absolute, relative, signed])
@given(FINITE | NOT_FINITE, NOT_FINITE)
def test_not_a_number_in_is_not_a_number_out(measured: Callable[[float, float], float], a: float, b: float) -> None:
    assert math.isnan(measured(a, b)) and math.isnan(measured(b, a))


@given(st.floats(), st.floats())
def test_bits_are_the_same_only_where_they_are(a: float, b: float) -> None:
    assert bits_differ(a, b) == bits_differ(b, a)
    assert bits_differ(a, a) == float(math.isnan(a))
    if a != b or math.isnan(a):
        assert bits_differ(a, b) == 1.0


def test_zero_and_minus_zero_are_other_bits() -> None:
    assert bits_differ(0.0, -0.0) == 1.0 and relative(0.0, -0.0) == 0.0


def test_tensor_difference_by_hand() -> None:
    rel, largest = tensor_difference(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
    assert rel == pytest.approx(0.1) and largest == pytest.approx(0.5 / math.sqrt(12.5))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.zeros(3), np.zeros(3), 0.0),
        (np.zeros(3), np.ones(3), math.inf),
        (np.ones(3), np.ones(4), math.nan),
        (np.ones((2, 3)), np.ones((3, 2)), math.nan),
        (np.array([1.0, math.nan]), np.array([1.0, math.nan]), math.nan),
        (np.array([math.inf]), np.array([math.inf]), math.nan),
    ],
)
def test_tensor_difference_at_its_edges(a: np.ndarray, b: np.ndarray, expected: float) -> None:
    assert tensor_difference(a, b) == pytest.approx((expected, expected), nan_ok=True)


def test_a_shuffled_tensor_differs() -> None:
    values = np.arange(1.0, 9.0)
    assert tensor_difference(values, values[::-1])[0] > 0.5


@given(st.lists(st.floats(1, 10), min_size=1, max_size=40))
def test_fall_of_a_curve_is_that_of_its_reverse_turned(losses: list[float]) -> None:
    assert (1 - fall(losses)) * (1 - fall(losses[::-1])) == pytest.approx(1.0)


def test_fall_by_hand() -> None:
    assert fall([4.0] * 10 + [2.0] * 10) == 0.5
    assert math.isnan(fall([])) and math.isnan(fall([2.0, math.nan, 1.0]))


def test_a_falling_curve_has_a_trend_below_a_flat_or_rising_one() -> None:
    random = np.random.RandomState(0)
    noise = list(0.05 * random.standard_normal(200))
    falling = [5 * math.exp(-step / 100) + n for step, n in enumerate(noise)]
    flat = [5 + n for n in noise]
    assert trend(falling) < -0.8
    assert abs(trend(flat)) < 0.15
    assert trend(falling[::-1]) > 0.8
    assert trend([3.0] * 10) == 0.0


@given(CURVES)
def test_a_trend_changes_its_sign_with_the_direction_and_ignores_scale(losses: list[float]) -> None:
    assert trend(losses[::-1]) == pytest.approx(-trend(losses))
    assert -1 <= trend(losses) <= 1
    assert trend([2 * loss for loss in losses]) == pytest.approx(trend(losses))


@pytest.mark.parametrize("seed", range(50))
def test_a_trend_is_scipys_to_the_last_bit_with_and_without_ties(seed: int) -> None:
    random = np.random.RandomState(seed)
    curves = (random.standard_normal(size) for size in random.randint(2, 400, 20))
    for curve in (*curves, random.standard_normal(3000)):
        falling = curve + np.linspace(random.uniform(0, 9), 0, curve.size)
        for values in (curve, falling, falling.astype(np.float32), falling.round(1), random.randint(0, 9, curve.size)):
            losses = values.astype(np.float64).tolist()
            # recorded findings hold this number; all equal is not a number there and no trend here
            expected = float(kendalltau(range(len(losses)), losses).statistic)
            assert trend(losses) == (0.0 if min(losses) == max(losses) else expected)


def test_a_spike_is_measured_against_the_steps_before_it() -> None:
    assert spike([4.0, 3.0, 2.0, 1.0]) == 0.0
    assert spike([4.0, 4.0, 6.0, 4.0]) == pytest.approx(0.5)
    assert spike([2.0] * 30 + [5.0] + [2.0] * 30) == pytest.approx(1.5)


@given(CURVES, NOT_FINITE, st.data())
def test_what_is_not_finite_never_leaves_a_curve(losses: list[float], bad: float, data: st.DataObject) -> None:
    losses[data.draw(st.integers(0, len(losses) - 1))] = bad
    assert all(math.isnan(curve(losses)) for curve in (fall, trend, spike))


@given(st.floats(0, 1), st.floats(0, 1))
def test_an_error_is_measured_in_the_references_but_never_in_less_than_half_an_ulp(a: float, b: float) -> None:
    assert error_ratio(a, b) == b / max(a, HALF_ULP)


def test_an_error_that_is_not_known_has_no_ratio() -> None:
    assert math.isnan(error_ratio(math.nan, 1e-8)) and math.isnan(error_ratio(1e-8, math.nan))
