"""A file that one process holds at a time. The lock ends with the process, however that ends."""

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import InputError

LONGEST_HOLDER = 1000  # bytes
ATTEMPTS = 100  # to make a directory that others remove at the same time


@contextlib.contextmanager
def locked(path: Path, *, user: str, option: str, wait: bool = False) -> Iterator[None]:
    """Holds a directory against other processes by a file in it, while the block runs.

    The file names the process that holds it. It is gone afterwards, and so is a directory that was made for it and
    into which nothing else came. After a kill the file stays, and holds nothing.

    Args:
        path: the file.
        user: what holds the directory, in the words of the error, such as `nightly`.
        option: the option of the command that names another directory.
        wait: wait for the process that holds it, in place of the error.

    Raises:
        InputError: another process holds the directory, or it cannot be written.
    """
    advice = f"use another directory: {option} DIR"
    try:
        absent = [parent for parent in path.parents if not parent.exists()]
        descriptor = _acquire(path, wait)
    except BlockingIOError:
        message = f"Another {user} is using {path.parent}{_holder(path)}. Wait until it ends, or {advice}"
        raise InputError(message) from None
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written: {error.strerror}. Or {advice}") from None
    try:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {now}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        remove_empty(absent)


def _acquire(path: Path, wait: bool) -> int:
    """The descriptor of the file, held.

    Raises:
        BlockingIOError: another process holds it, and `wait` is not set.
        OSError: it cannot be made.
    """
    while True:
        _make_directory(path.parent)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # who held it before has just removed the directory
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _make_directory(path: Path) -> None:
    """Makes a directory. The process that held it before may remove it between two system calls of `mkdir`.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            path.mkdir(parents=True, exist_ok=True)
            return
    path.mkdir(parents=True, exist_ok=True)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a file still has its name. Who held it before has removed it, and others may hold a new one."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    """The process that a file names, in brackets."""
    try:
        holder = path.read_bytes()[:LONGEST_HOLDER].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    return f" ({holder})" if holder else ""


def remove_empty(directories: list[Path]) -> None:
    """Removes directories that hold nothing, the innermost first."""
    with contextlib.suppress(OSError):  # one that holds something, and those that it lies in
        for directory in directories:
            directory.rmdir()
