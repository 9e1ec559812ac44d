"""Drawn faults: the same for the same number, evenly over sizes and kinds, and described as they are."""

from collections import Counter

import numpy as np
import pytest

from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.defects import AREAS
from harness.defects.draw import KINDS, LARGEST, PLACED, SMALLEST, draw, drawn_defects
from qwen3_model.configuration_qwen3 import parameter_shapes

CASE = load_case("qwen3-tiny-fp32")
FAULTS = [draw(number, CASE) for number in range(1, 601)]


def test_a_number_is_one_fault() -> None:
    assert [draw(number, CASE) for number in range(1, 601)] == FAULTS
    assert len({(one.kind, one.place, one.size, one.first) for one in FAULTS}) == len(FAULTS)


def test_sizes_are_spread_evenly_over_their_decades_in_both_directions() -> None:
    sizes = np.log10([abs(one.size) for one in FAULTS])
    assert sizes.min() >= np.log10(SMALLEST) and sizes.max() <= np.log10(LARGEST)
    assert abs(np.mean(sizes < -2) - 0.5) < 0.07 and abs(np.mean([one.size > 0 for one in FAULTS]) - 0.5) < 0.07


def test_every_kind_is_drawn_and_none_is_most() -> None:
    counts = Counter(one.kind for one in FAULTS)
    assert set(counts) == set(KINDS) and max(counts.values()) < 3 * 600 / len(KINDS)


def test_a_place_is_in_the_model_and_a_step_in_the_run() -> None:
    shapes = dict(parameter_shapes(CASE.model))
    for one in FAULTS:
        assert (one.place is not None) == (one.kind in PLACED)
        assert 1 <= one.first < CASE.training.steps and (one.last is None or one.last == one.first)
        if one.kind == "gradient-row":
            assert one.place is not None and one.row < shapes[one.place][0] and len(shapes[one.place]) == 2
        elif one.kind == "output":
            assert f"{one.place}.weight" in shapes or any(name.startswith(f"{one.place}.") for name in shapes)
        elif one.place is not None:
            assert one.place in shapes


def test_each_is_described_by_what_it_is() -> None:
    for defect, fault in zip(drawn_defects(600, CASE), FAULTS, strict=True):
        assert defect.id == f"drawn-{fault.number}" and defect.runner.endswith(f":Drawn{fault.number}")
        assert defect.area in AREAS and defect.size == abs(fault.size) and defect.what.endswith(".")
        assert (defect.place is None) == (defect.direction is None)
        assert fault.place is None or fault.place in defect.what


@pytest.mark.parametrize("case", ["qwen3-tiny-dp2", "qwen3-tiny-inference"])
def test_a_case_in_which_nothing_would_be_planted_is_refused(case: str) -> None:
    """Over ranks another trainer trains: the subject would be sound, and count as a fault that was missed."""
    with pytest.raises(InputError, match="training in one process"):
        list(drawn_defects(3, load_case(case)))
