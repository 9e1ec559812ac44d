"""Drawn tensors: the same bits on every machine, of the stated distribution, and any part alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runs import drawing
from harness.runs.drawing import normal, spread, words
from tests.support.frozen_bits import FROZEN, drawn


def test_the_same_bits_are_drawn_on_every_machine() -> None:
    """Another digest means that NumPy or the rule changed, and every recorded trace with it."""
    assert drawn() == FROZEN


@given(st.integers(0, 3000), st.integers(0, 400))
def test_words_do_not_depend_on_where_reading_begins(begin: int, count: int) -> None:
    assert np.array_equal(words("a", begin, count), words("a", 0, begin + count)[begin:])


@given(st.integers(0, 500), st.integers(1, 300), st.integers(1, 64))
def test_any_part_is_drawn_alone_in_pieces_of_any_size(first: int, count: int, piece: int) -> None:
    whole = spread("a", (first + count,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "PIECE", piece)
        assert np.array_equal(spread("a", (count,), first), whole[first:])
        assert np.array_equal(normal("a", (count,), 0.02), normal("a", (first + count,), 0.02)[:count])


def test_normal_numbers_have_the_stated_moments() -> None:
    found = normal("a", (1 << 18,), 0.02, mean=1.0).astype(np.float64) - 1.0
    assert abs(found.mean()) < 5 * 0.02 / math.sqrt(found.size)
    assert found.std() == pytest.approx(0.02, rel=0.01)
    assert (found**4).mean() / found.var() ** 2 == pytest.approx(2.85, abs=0.05)
    assert np.abs(found).max() < 4.9 * 0.02


def test_spread_numbers_have_both_signs_and_six_decades() -> None:
    found = spread("a", (1 << 16,))
    sizes = np.abs(found)
    assert abs(np.sign(found).mean()) < 0.02 and found.all()
    assert sizes.max() < 1 and np.quantile(sizes, 0.05) < 2e-6 and np.quantile(sizes, 0.95) > 0.1


def test_every_name_has_a_sequence_of_its_own() -> None:
    assert not np.array_equal(normal("a", (64,), 1.0), normal("b", (64,), 1.0))
