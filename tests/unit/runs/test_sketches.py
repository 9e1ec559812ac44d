"""Sketches: linear, the same for any division into parts, and as near to the norm as they are said to be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runs import sketches
from harness.runs.sketches import Sketch, distance, projections, signs, sketch
from qwen3_model.parallel_config import Part

SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24)).map(lambda n: (2 * n[0], 2 * n[1]))


def drawn(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def near(one: Sketch, other: Sketch) -> bool:
    return one.squares == pytest.approx(other.squares) and bool(np.allclose(one.buckets, other.buckets, atol=1e-9))


@given(st.integers(0, 5000), st.integers(0, 700))
def test_signs_do_not_depend_on_where_reading_begins(begin: int, count: int) -> None:
    assert np.array_equal(signs("a", begin, count), signs("a", 0, begin + count)[begin:])


def test_signs_are_fair_and_differ_by_name() -> None:
    one, other = signs("a", 0, 1 << 16), signs("b", 0, 1 << 16)
    assert abs(one.mean()) < 0.02 and abs((one * other).mean()) < 0.02 and set(one) == {-1.0, 1.0}


@given(SHAPES, st.integers(1, 40), st.floats(-3, 3))
def test_the_sketch_of_a_sum_is_the_sum_of_the_sketches(shape: tuple[int, int], buckets: int, factor: float) -> None:
    a, b = drawn(shape).astype(np.float64), drawn(shape, 1).astype(np.float64)
    whole = sketch("x", a + factor * b, buckets).buckets
    assert np.allclose(whole, sketch("x", a, buckets).buckets + factor * sketch("x", b, buckets).buckets, atol=1e-9)


@given(SHAPES, st.integers(1, 40), st.integers(0, 1), st.integers(1, 200))
def test_the_parts_of_all_ranks_add_up_to_the_whole(
    shape: tuple[int, int], buckets: int, axis: int, piece: int
) -> None:
    tensor = drawn(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "PIECE", piece)
        halves = [Part(axis=axis, index=index, of=2) for index in (0, 1)]
        first, second = (sketch("x", half.take(tensor), buckets, shape, half) for half in halves)
    assert near(first + second, sketch("x", tensor, buckets))


@given(st.integers(1, 300), st.integers(0, 3))
def test_a_tensor_of_no_more_elements_than_buckets_is_measured_exactly(size: int, more: int) -> None:
    a, b = drawn((size,)), drawn((size,), 1)
    of_a, of_b = (sketch("x", x, size + more) for x in (a, b))
    assert distance(of_a, of_b) == pytest.approx(float(np.linalg.norm(a.astype(np.float64) - b)))


@pytest.mark.parametrize("kind", ["everywhere", "one row", "one column", "one element"])
def test_the_norm_of_a_difference_is_estimated_within_the_stated_deviation(kind: str) -> None:
    """Over 200 names: unbiased, and with the standard deviation of 256 buckets or less."""
    shape = (320, 320)
    error = np.zeros(shape)
    where = {"everywhere": np.s_[:], "one row": np.s_[17], "one column": np.s_[:, 17], "one element": np.s_[17, 3]}[
        kind
    ]
    error[where] = drawn(shape, 2)[where]
    exact = float(np.square(error).sum())
    ratios = np.array([float(np.square(sketch(f"name {n}", error).buckets).sum()) / exact for n in range(200)])
    deviation = {"one element": 0.0}.get(kind, math.sqrt(2 / sketches.BUCKETS))
    assert ratios.std() <= 1.3 * deviation + 1e-12
    assert abs(ratios.mean() - 1) < 4 * max(ratios.std(), 1e-9) / math.sqrt(len(ratios))


def test_the_norm_is_exact() -> None:
    tensor = drawn((100, 300))
    assert sketch("x", tensor).norm == pytest.approx(float(np.linalg.norm(tensor.astype(np.float64))), rel=1e-12)


def test_sketches_of_other_shapes_have_no_distance() -> None:
    assert math.isnan(distance(sketch("x", drawn((3,))), sketch("x", drawn((4,)))))


@given(SHAPES, st.integers(1, 200))
def test_a_projection_names_the_row_and_the_column_that_differ(shape: tuple[int, int], piece: int) -> None:
    matrix, row, column = drawn(shape), shape[0] // 2, shape[1] // 2
    changed = matrix.copy()
    changed[row, column] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "PIECE", piece)
        pairs = list(zip(projections("x", matrix), projections("x", changed), strict=True))
    differing = [np.flatnonzero(np.abs(one - other) > 0.5).tolist() for one, other in pairs]
    assert differing == [[row], [column]]
