"""Locks: one process at a time holds a directory, and the lock ends with that process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.base.locks import locked

HOLD = """
import sys
from pathlib import Path
from harness.base.locks import locked
with locked(Path(sys.argv[1]), user="run", option="--out"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds a path until its input ends."""
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / ".lock"


def test_a_second_process_is_refused_with_what_where_who_and_the_next_step(path: Path) -> None:
    with holder(path) as other, pytest.raises(InputError) as refused, locked(path, user="run", option="--out"):
        raise AssertionError("two processes hold it")
    assert str(refused.value).startswith(f"Another run is using {path.parent} (process {other.pid} on ")
    assert str(refused.value).endswith("Wait until it ends, or use another directory: --out DIR")


def test_a_second_hold_in_one_process_is_refused_too(path: Path) -> None:
    first, second = (locked(path, user="run", option="--out") for _ in range(2))
    with first, pytest.raises(InputError, match=f"process {os.getpid()}"), second:
        raise AssertionError("held twice")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_the_process_that_held_it(path: Path, number: signal.Signals) -> None:
    with holder(path) as other:
        other.send_signal(number)
        other.wait()
        with locked(path, user="run", option="--out"):
            assert f"process {os.getpid()} " in path.read_text()


def test_an_error_inside_gives_the_lock_back(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(path, user="run", option="--out"):
        _ = 1 / 0
    with locked(path, user="run", option="--out"):
        pass


def test_who_waits_goes_on_when_the_other_process_ends(path: Path) -> None:
    with holder(path) as other:
        threading.Timer(0.5, other.kill).start()
        with locked(path, user="session", option="--certify-out", wait=True):
            assert other.wait() == -signal.SIGKILL


def count_up(path: Path) -> None:
    """Adds one to a number in a file, in two steps that another process would disturb."""
    for _ in range(20):
        with locked(path, user="session", option="--certify-out", wait=True):
            counter = path.parent.parent / "counter"
            number = int(counter.read_text())
            counter.write_text(str(number + 1))


def test_of_many_that_wait_one_at_a_time_goes_on_though_each_removes_the_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    processes = [multiprocessing.get_context("fork").Process(target=count_up, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "counter").read_text() == "80" and not path.exists()


def test_a_directory_that_another_process_removes_at_the_same_time_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mkdir` finds the directory; when it looks what that is, the process that held it has removed it."""
    path.parent.mkdir()
    is_dir = Path.is_dir

    def removed_before(directory: Path) -> bool:
        monkeypatch.setattr(Path, "is_dir", is_dir)
        directory.rmdir()
        return directory.is_dir()

    monkeypatch.setattr(Path, "is_dir", removed_before)
    with locked(path, user="run", option="--out"):
        assert path.is_file()


def test_nothing_is_left_but_what_came_while_it_was_held(path: Path) -> None:
    with locked(path, user="run", option="--out"):
        assert path.is_file()
    assert not path.parent.exists()
    with locked(path, user="run", option="--out"):
        (path.parent / "result").touch()
    assert [one.name for one in path.parent.iterdir()] == ["result"]
    (path.parent / "result").unlink()
    with locked(path, user="run", option="--out"):
        pass
    assert path.parent.is_dir(), "it was there before"


def test_a_directory_that_cannot_be_made_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    where = tmp_path / "file" / "runs"
    with pytest.raises(InputError) as refused, locked(where / ".lock", user="run", option="--out"):
        raise AssertionError("a file holds no directory")
    assert str(refused.value).startswith(f"{where} cannot be written: Not a directory.")
