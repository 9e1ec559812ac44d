"""A drawn fault is really planted: what it changes differs, and no step before it does."""

from pathlib import Path

import numpy as np
import pytest

from harness.defects.draw import KINDS, Kind, draw
from harness.runners.registry import load_runner
from tests.defects.test_catalogue import STEPS, batch, build, small
from tests.support.full import full

QUICK: tuple[Kind, ...] = ("output", "gradient-row", "beta2", "moment")
HERE = "tests/defects/test_drawn.py::test_a_drawn_fault_is_planted_in_its_steps_alone"
CASE = small("qwen3-tiny-fp32")
EARLY = ("decay", "decay-of-tensor", "beta1", "beta2", "clipping")  # they begin with the first step


def number_of(kind: Kind) -> int:
    """The first of a kind; where it can, it begins after the first step, so that there is a step before it."""
    faults = (draw(number, CASE) for number in range(1, 2000))
    return next(one.number for one in faults if one.kind == kind and (kind in EARLY or one.first in (2, 3)))


MARKED = [pytest.param(kind, marks=[] if kind in QUICK else [full(held_by=HERE)]) for kind in KINDS]


@pytest.mark.parametrize("kind", MARKED)
def test_a_drawn_fault_is_planted_in_its_steps_alone(kind: Kind, tmp_path: Path) -> None:
    number = number_of(kind)
    fault, subject = draw(number, CASE), load_runner(f"harness.defects.drawn:Drawn{number}")
    planted, sound = build(CASE, subject), build(CASE)
    same = []
    for step in range(1, STEPS + 1):
        numbers = [one.train_step(*batch(CASE, step)) for one in (planted, sound)]
        states = [{**one.parameters(), **{f"m {k}": v for k, v in one.moments().items()}} for one in (planted, sound)]
        same.append(
            numbers[0] == numbers[1] and all(np.array_equal(states[0][name], states[1][name]) for name in states[1])
        )
    if kind == "restored-moment":
        assert all(same)
        planted.save(tmp_path)
        planted.load(tmp_path)
        held = planted.moments()
        differing = [name for name, moment in sound.moments().items() if not np.array_equal(moment, held[name])]
        assert differing == [fault.place]
        return
    seen_after = 1 if kind == "moment" else 0  # a second moment shows in the next update
    assert same[: fault.first - 1 + seen_after] == [True] * (fault.first - 1 + seen_after), fault
    assert not same[-1], fault


def test_there_is_no_fault_of_another_name() -> None:
    with pytest.raises(AttributeError):
        load_runner("harness.defects.drawn:Drawn0")
