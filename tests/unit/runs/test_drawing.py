"""Drawn tensors: the same bits on every machine, of the stated distribution, and any part alone."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runs import drawing
from harness.runs.drawing import normal, spread, words

# Another digest means that NumPy or the rule changed, and every recorded trace with it.
FROZEN = {
    "words": "0a7ae93b7f29feb633321aeba74134c4753dd577b55ad1931b46120666125247",
    "normal": "d6477025e4b4ccdc688b186b39c992ad60ea3c9815cf11a352df986f7e169686",
    "spread": "bf0b634b23b8deda8c7897104d0dc83bfa2f3b5703bc4b6ebe02405b223704c0",
}


def test_the_same_bits_are_drawn_on_every_machine() -> None:
    drawn = {
        "words": words("model.norm.weight", 5, 4096).astype("<u8"),
        "normal": normal("model.norm.weight", (64, 64), 0.02).astype("<f4"),
        "spread": spread("model.norm.weight", (64, 64)).astype("<f4"),
    }
    assert {name: hashlib.sha256(some.tobytes()).hexdigest() for name, some in drawn.items()} == FROZEN


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
    drawn = normal("a", (1 << 18,), 0.02, mean=1.0).astype(np.float64) - 1.0
    assert abs(drawn.mean()) < 5 * 0.02 / math.sqrt(drawn.size)
    assert drawn.std() == pytest.approx(0.02, rel=0.01)
    assert (drawn**4).mean() / drawn.var() ** 2 == pytest.approx(2.85, abs=0.05)
    assert np.abs(drawn).max() < 4.9 * 0.02


def test_spread_numbers_have_both_signs_and_six_decades() -> None:
    drawn = spread("a", (1 << 16,))
    sizes = np.abs(drawn)
    assert abs(np.sign(drawn).mean()) < 0.02 and drawn.all()
    assert sizes.max() < 1 and np.quantile(sizes, 0.05) < 2e-6 and np.quantile(sizes, 0.95) > 0.1


def test_every_name_has_a_sequence_of_its_own() -> None:
    assert not np.array_equal(normal("a", (64,), 1.0), normal("b", (64,), 1.0))
