"""The matrices that are shipped can be run as they are."""

from pathlib import Path

import pytest

from harness.base.code import ROOT
from harness.nightly.matrix import case_of, load_matrix, name_of

MATRICES = sorted((ROOT / "harness" / "nightly").glob("*.yaml"))


@pytest.mark.parametrize("path", MATRICES, ids=lambda path: path.stem)
def test_a_shipped_matrix_is_valid_and_each_cell_is_named_by_its_case(path: Path) -> None:
    for cell in load_matrix(path).cells:
        assert name_of(cell).startswith(f"{cell.case}-")
        assert case_of(cell, path.parent).name.startswith(cell.case)


def test_there_are_shipped_matrices() -> None:
    assert {"ascend", "cpu", "versions"} <= {path.stem for path in MATRICES}
