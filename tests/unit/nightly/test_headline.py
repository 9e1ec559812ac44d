"""The summary of a night states what was reached, whatever its matrix overlooks."""

import pytest

from harness.levels.rule import Level
from harness.nightly import NIGHT_FORMAT, CellResult, CellState, Night
from harness.nightly.matrix import Matrix
from harness.nightly.results import failing
from harness.nightly.summary import headline, summary


def night(*levels: Level | None) -> Night:
    """A night of one cell for each level; None: the cell broke."""
    cells = tuple(
        CellResult(
            cell=f"cell-{number}",
            case="c",
            device="CPU",
            layout="one rank",
            required=Level.PRELIMINARY,
            state=CellState.JUDGED if level else CellState.BROKEN,
            reason="because",
            seconds=1.0,
            level=level,
            protection="order" if level else None,
        )
        for number, level in enumerate(levels)
    )
    return Night(
        format=NIGHT_FORMAT, name="n", matrix="m", revision="r", started="s", ended="e", host="h", prerequisites={},
        cells=cells, total=len(cells),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ((Level.PRELIMINARY, Level.VALIDATED), "all 2 cells reach their level"),
        ((Level.PRELIMINARY, Level.UNTESTED), "no cell fails by the matrix, and 1 of 2 reach their level"),
        ((None, Level.UNTESTED), "no cell fails by the matrix, and 0 of 2 reach their level"),
    ],
)
def test_a_matrix_that_overlooks_everything_makes_no_cell_reach_its_level(
    levels: tuple[Level | None, ...], words: str
) -> None:
    lenient = Matrix.model_validate({"name": "m", "fail_on": [], "cells": [{"case": "c"}]})
    made = night(*levels)
    assert failing(made, lenient) == [] and headline(made, []) == words


def test_the_summary_states_the_protection_of_each_cell() -> None:
    assert "| order |" in summary(night(Level.PRELIMINARY), [])


def test_a_matrix_that_names_no_protection_is_the_matrix_that_it_was() -> None:
    plain, auto, order = (
        Matrix.model_validate({"name": "m", "cells": [{"case": "c", **more}]})
        for more in ({}, {"protection": "auto"}, {"protection": "order"})
    )
    assert plain.digest() == auto.digest() != order.digest()
