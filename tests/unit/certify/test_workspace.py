"""The directory of a run: claimed by one run at a time, and gone again where nothing came of the run."""

from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.certify.workspace import LOCK, claimed
from harness.evidence.bundle_files import INPUTS


def test_a_second_run_in_a_directory_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claimed(out, resume=False):
        (out / INPUTS).touch()
        second = claimed(out, resume=True)
        with pytest.raises(InputError, match=r"Another run is using .*Wait until it ends"), second:
            raise AssertionError("two runs share a directory")
    assert [one.name for one in out.iterdir()] == [INPUTS]


@pytest.mark.parametrize("made", [False, True], ids=["new", "made before"])
@pytest.mark.parametrize("error", [InputError("no such corpus"), KeyboardInterrupt()], ids=["refused", "interrupted"])
def test_what_was_written_before_the_inputs_were_recorded_goes_with_the_run(
    tmp_path: Path, made: bool, error: BaseException
) -> None:
    out = tmp_path / "runs" / "out"
    if made:
        out.mkdir(parents=True)
    with pytest.raises(type(error)), claimed(out, resume=False):
        (out / "inputs").mkdir()
        (out / "inputs" / "weights.safetensors").touch()
        (out / "case.json").touch()
        raise error
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == (["runs", "runs/out"] if made else [])


def test_a_run_that_can_be_resumed_stays_when_it_is_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "out", resume=False):
        (tmp_path / "out" / INPUTS).touch()
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="--resume"), claimed(tmp_path / "out", resume=False):
        raise AssertionError("what another run left is no new directory")
    with claimed(tmp_path / "out", resume=True):
        pass


def test_the_lock_that_a_killed_run_left_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 1 on a machine that is gone")
    with claimed(tmp_path, resume=False):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_something_else_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(InputError, match="Choose another --out"), claimed(tmp_path, resume=resume):
            raise AssertionError("it was taken")
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.tex"]
