"""Whole tensors are gathered in groups that fit, and one group at a time is held."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_model.gathered import Array, Gathered, groups_within

SIZES = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 50), min_size=1)


@given(SIZES, st.integers(1, 100))
def test_groups_have_every_name_once_in_order_and_fit_or_are_of_one(sizes: dict[str, int], most: int) -> None:
    groups = groups_within(sizes, most)
    assert [name for group in groups for name in group] == list(sizes)
    assert all(sum(sizes[name] for name in group) <= most or len(group) == 1 for group in groups)


@given(SIZES, st.integers(1, 100))
def test_a_look_at_all_gathers_each_group_once_and_holds_only_the_last(sizes: dict[str, int], most: int) -> None:
    gathered: list[Sequence[str]] = []

    def gather(names: Sequence[str]) -> dict[str, Array]:
        gathered.append(names)
        return {name: np.full(sizes[name], 1.0) for name in names}

    groups = groups_within(sizes, most)
    found = Gathered(groups, gather)
    assert [*found] == [*sizes] and len(found) == len(sizes) and not gathered
    assert {name: len(tensor) for name, tensor in found.items()} == sizes
    assert gathered == groups
    assert found._held.keys() == {*groups[-1]}


def test_a_name_that_no_rank_has_is_not_gathered() -> None:
    with pytest.raises(KeyError):
        Gathered([["one"]], lambda names: {})["other"]
