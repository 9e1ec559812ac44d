"""Damaged and hostile files, for every loader: read, or refused with an error of this project, never a traceback."""

from pathlib import Path

import pytest

from tests.support.full import full
from tests.support.fuzzing import fuzz

QUICK, WHOLE = 250, 10_000


def test_no_damaged_file_is_a_traceback(tmp_path: Path) -> None:
    assert fuzz(tmp_path, QUICK) == []


@pytest.mark.parametrize("seed", range(1, 11))
@full(held_by="tests/unit/base/test_damaged_files.py::test_no_damaged_file_is_a_traceback")
def test_none_of_ten_thousand_damaged_files_is_a_traceback(tmp_path: Path, seed: int) -> None:
    assert fuzz(tmp_path, WHOLE // 10, seed) == []
