"""`certify upgrade`: what is wrong with a set of versions is stated before the first run."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.cli import upgrade as command
from tests.support.command_line import Call, caller


@pytest.fixture
def upgrade(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    def none(*_: object, **__: object) -> None:
        pytest.fail("a run began")

    monkeypatch.setattr(command, "run_shown", none)
    monkeypatch.chdir(tmp_path)
    Path("now.txt").write_text("mindspore==2.9.0\n")
    return caller(capsys, monkeypatch, "upgrade")


def test_constraints_that_are_not_there_are_named_before_the_first_run(upgrade: Call, tmp_path: Path) -> None:
    done = upgrade("--from", "now.txt", "--to", "next.txt")
    assert done.code == 2 and "The constraints next.txt cannot be read: No such file or directory." in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["now.txt"]


def test_a_set_that_cannot_be_installed_is_named_before_the_first_run(
    upgrade: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interpreter(versions: Mapping[str, str]) -> Path:
        if versions["mindspore"] != "2.9.0":
            raise InputError(f"uv finds no mindspore {versions['mindspore']}.")
        return Path("python")

    monkeypatch.setattr(command, "interpreter_of", interpreter)
    Path("next.txt").write_text("mindspore==9.9.9\n")
    done = upgrade("--from", "now.txt", "--to", "next.txt")
    assert done.code == 2 and "uv finds no mindspore 9.9.9." in done.err
