"""Laws of what is left in place of logits: it gives their numbers, exactly where nothing differs."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.comparison import outputs
from harness.comparison.distance import tensor_difference
from harness.runs import predictions
from harness.runs.predictions import LIKELIEST, SketchedLogits, recorded, sketched_logits
from harness.runs.sketches import BUCKETS

Array = npt.NDArray[Any]
VOCABULARY = 5000
SHAPES = st.integers(1, 4).map(lambda positions: (positions, VOCABULARY))


def logits(seed: int, shape: tuple[int, ...], spread: float = 3.0) -> Array:
    return spread * np.random.default_rng(seed).standard_normal(shape)


def left_of(logits: Array) -> SketchedLogits:
    found = sketched_logits(recorded("logits.0", logits), "logits.0")
    assert found is not None
    return found


@given(st.integers(0, 2**32), SHAPES, st.floats(1e-7, 1e-2), st.floats(0.5, 6.0))
def test_they_give_the_error_and_the_divergence_of_the_logits(
    seed: int, shape: tuple[int, ...], size: float, spread: float
) -> None:
    exact = logits(seed, shape, spread)
    found = exact + size * logits(seed + 1, shape)
    a, b = left_of(exact), left_of(found)
    # five standard deviations of an estimate by so many buckets, and what is left out of the second order
    within = 5 * math.sqrt(2 / BUCKETS) + size
    assert predictions.relative_error(a, b) == pytest.approx(tensor_difference(exact, found)[0], rel=within)
    assert predictions.divergence(a, b) == pytest.approx(outputs.divergence(exact, found), rel=2 * within)


@given(st.integers(0, 2**32), SHAPES)
def test_the_same_logits_are_no_distance_apart(seed: int, shape: tuple[int, ...]) -> None:
    a, b = (left_of(logits(seed, shape)) for _ in range(2))
    assert predictions.relative_error(a, b) == predictions.divergence(a, b) == predictions.regret(a, b) == 0.0
    assert predictions.agreement(a, b) == 1.0


@given(st.integers(0, 2**32), SHAPES, st.floats(1e-6, 0.3))
def test_regret_and_agreement_are_those_of_the_logits(seed: int, shape: tuple[int, ...], size: float) -> None:
    exact = logits(seed, shape).astype(np.float32)
    found = (exact + size * logits(seed + 1, shape)).astype(np.float32)
    a, b = left_of(exact), left_of(found)
    assert predictions.regret(a, b) == outputs.largest_regret(exact, found)
    assert predictions.agreement(a, b) == np.mean(exact.argmax(-1) == found.argmax(-1))


def test_of_a_token_that_is_not_among_the_likeliest_the_logit_is_at_most_the_last_that_is_left() -> None:
    exact = np.arange(VOCABULARY, dtype=np.float32)[None]
    found = exact.copy()
    found[0, 7] = 2 * VOCABULARY
    assert predictions.regret(left_of(exact), left_of(found)) == LIKELIEST - 1
    assert predictions.logit_of(left_of(exact), 0, VOCABULARY - 2) == VOCABULARY - 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_near_nothing(bad: float) -> None:
    exact, found = logits(0, (2, VOCABULARY)), logits(0, (2, VOCABULARY))
    found[1, 2] = bad
    with np.errstate(invalid="ignore"):
        a, b = left_of(exact), left_of(found)
        assert not predictions.relative_error(a, b) <= 1e9 and not predictions.regret(a, b) <= 1e9
        if bad != -math.inf:  # a token without any chance is a prediction
            assert not predictions.divergence(a, b) <= 1e9


def test_other_positions_or_parts_that_are_missing_do_not_fit() -> None:
    whole = recorded("logits.0", logits(0, (3, VOCABULARY)))
    a, b = left_of(logits(0, (3, VOCABULARY))), left_of(logits(0, (2, VOCABULARY)))
    for number in (predictions.relative_error, predictions.divergence, predictions.regret, predictions.agreement):
        assert math.isnan(number(a, b))
    for name in whole:
        assert sketched_logits({key: part for key, part in whole.items() if key != name}, "logits.0") is None
        assert sketched_logits({**whole, name: whole[name][:2]}, "logits.0") is None


def test_they_do_not_grow_with_the_vocabulary() -> None:
    sizes = [sum(part.nbytes for part in recorded("a", logits(0, (2, size))).values()) for size in (5000, 50_000)]
    assert sizes[0] == sizes[1] < 2 * 6000
