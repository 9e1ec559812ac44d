"""A benchmark changes a shipped case, and what the case demands may have changed since."""

import pytest

from benchmarks import rank_memory


@pytest.mark.parametrize("width", rank_memory.WIDTHS)
def test_the_memory_of_ranks_is_measured_on_a_valid_case(width: int) -> None:
    assert rank_memory.case_of(width, ranks=4, layers=4, vocabulary=32_000).parallel.world_size == 4
