"""One wrong row or column of a large matrix shows, in whatever precision; the rounding of correct sides does not."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.comparison.left import difference
from harness.comparison.lines import line_errors
from harness.comparison.located import located_lines
from harness.runs.sketches import recorded

Array = npt.NDArray[Any]
NAME, ROWS, COLUMNS = "gradient.lm_head.weight", 800, 24
BFLOAT16, FLOAT32 = 2.0**-9, 2.0**-24
LIMIT = 6.0  # of strict-probe-fp32


def sides(seed: int, rounding: float) -> list[Array]:
    """The exact matrix, whose rows are of many sizes, and two correct sides."""
    random = np.random.default_rng(seed)
    exact = random.standard_normal((ROWS, COLUMNS)) * np.exp2(random.integers(-12, 0, (ROWS, 1)))
    return [exact, *(exact * (1 + rounding * random.standard_normal(exact.shape)) for _ in range(2))]


def left(of: list[Array], sketched: bool) -> list[dict[str, Array]]:
    return [recorded(NAME, one, located=True) if sketched else {NAME: one} for one in of]


def furthest(exact: Any, found: Any) -> float:
    both = line_errors(NAME, exact, found)
    assert both is not None
    return float(max(one.max() for one in both))


def ratio(of: list[dict[str, Array]]) -> float:
    exact, reference, subject = of
    return furthest(exact, subject) / furthest(exact, reference)


OF_LINES = ("#rows", "#columns", "#row-sizes", "#column-sizes")

EITHER = pytest.mark.parametrize("sketched", [False, True], ids=["tensors", "sketches"])
ROUNDINGS = st.sampled_from([FLOAT32, BFLOAT16])


@given(seed=st.integers(0, 2**32), rounding=ROUNDINGS, sketched=st.booleans())
def test_correct_sides_are_about_as_far_off(seed: int, rounding: float, sketched: bool) -> None:
    assert 1 / LIMIT * 2 < ratio(left(sides(seed, rounding), sketched)) < LIMIT / 2


@given(seed=st.integers(0, 2**32), row=st.integers(0, ROWS - 1), rounding=ROUNDINGS, sketched=st.booleans())
def test_a_row_of_zeros_shows_whatever_its_size(seed: int, row: int, rounding: float, sketched: bool) -> None:
    every = sides(seed, rounding)
    every[2][row] = 0.0
    found = left(every, sketched)
    assert ratio(found) > LIMIT
    assert located_lines(NAME, *found, beyond=LIMIT) == f"token {row}"


@given(seed=st.integers(0, 2**32), column=st.integers(0, COLUMNS - 1), rounding=ROUNDINGS, sketched=st.booleans())
def test_a_dead_column_shows(seed: int, column: int, rounding: float, sketched: bool) -> None:
    every = sides(seed, rounding)
    every[2][:, column] = 0.0
    found = left(every, sketched)
    assert ratio(found) > LIMIT
    assert located_lines(NAME, *found, beyond=LIMIT) == f"column {column}"


def test_of_a_row_of_bfloat16_the_whole_tensor_shows_nothing() -> None:
    """Which is why lines are measured."""
    every = sides(0, BFLOAT16)
    every[2][np.linalg.norm(every[0], axis=1).argmin()] = 0.0
    exact, reference, subject = left(every, sketched=True)
    errors = [difference(NAME, exact, one)[0] for one in (reference, subject)]
    assert errors[1] < 2 * errors[0] and ratio([exact, reference, subject]) > LIMIT


def _turned(seed: int) -> list[Array]:
    every = sides(seed, BFLOAT16)
    every[2][5] = np.roll(every[2][5], 1)
    return every


@EITHER
def test_a_row_that_is_another_shows_but_for_its_sign(sketched: bool) -> None:
    """By its projection, for its size may be that of the right one. Some dozens to one, the projection is another."""
    seen = [ratio(left(_turned(seed), sketched)) > LIMIT for seed in range(40)]
    assert sum(seen) >= 0.85 * len(seen)


@EITHER
def test_rows_of_zeros_on_all_sides_are_not_off_and_anything_in_one_is(sketched: bool) -> None:
    every = sides(0, FLOAT32)
    for one in every:
        one[3] = 0.0
    assert ratio(left(every, sketched)) < LIMIT / 2
    every[2][3, 0] = 1e-30
    assert np.isinf(ratio(left(every, sketched)))


@EITHER
def test_what_is_not_a_number_is_not_within(sketched: bool) -> None:
    every = sides(0, FLOAT32)
    every[2][3, 0] = np.nan
    with np.errstate(invalid="ignore"):
        found = left(every, sketched)
    assert not furthest(found[0], found[2]) <= 1e9


@EITHER
def test_another_shape_or_a_part_that_is_missing_is_no_comparison(sketched: bool) -> None:
    exact, other, _ = left(sides(0, FLOAT32), sketched)
    assert line_errors(NAME, exact, {}) is None
    for name in other:
        if name == NAME or name.removeprefix(NAME) in OF_LINES:
            assert line_errors(NAME, exact, {**other, name: other[name][:-1]}) is None
            assert line_errors(NAME, exact, {key: part for key, part in other.items() if key != name}) is None
