"""What a run leaves in its directory: made harmless when the run has ended, and compared with its job.

A run can write whatever it likes there. What is no plain file, what has a name that cannot be shown, files of holes and
directories without end are removed before anything reads or digests them. A trace of another job is none of this run.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import EvidenceError
from harness.base.records import LARGEST_BYTES
from harness.runners.job import Job
from harness.runs.collected import PROVENANCE
from harness.runs.files import LOG, OUTCOME, TIMING, TRACE
from harness.runs.trace import Trace, read_trace

JOB = "job.json"  # for the process; it names paths of this machine, so it is gone when the process is
DEEPEST = 32  # directories in one another; honest runs have three
HOLES = 16  # a file has holes if it states so many times the size that it takes on disk
READ_WHOLE = (TRACE, TIMING, OUTCOME, JOB)
FILES = (*READ_WHOLE, LOG, f"{OUTCOME}.part", f"{JOB}.part")  # what a launcher writes and reads there
MOST_PIECES = 10_000
BLOCK = 512  # bytes of a block of `st_blocks`, whatever the file system has
OWN = stat.S_IRUSR | stat.S_IWUSR  # of a file


def tidy(directory: Path) -> None:
    """Removes what an ended run may not leave in its directory, and the directory itself if another thing is there."""
    if directory.is_symlink() or not directory.is_dir():
        directory.unlink(missing_ok=True)
        directory.mkdir(parents=True)
    waiting = [(directory, 1)]
    while waiting:
        place, depth = waiting.pop()
        for entry in _allowed(place, directory, depth):
            waiting.append((Path(entry.path), depth + 1))


def _allowed(place: Path, top: Path, depth: int) -> Iterator["os.DirEntry[str]"]:
    """The directories in a place that stay; everything else that may not stay goes."""
    _accessible(place)
    seen = set[str]()
    with os.scandir(place) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        is_directory = entry.is_dir(follow_symlinks=False)
        twice = entry.name.casefold() in seen
        seen.add(entry.name.casefold())
        if not is_directory and (twice or _unfit(entry, place == top)):
            os.unlink(entry.path)
        elif is_directory and (twice or not _fit_name(entry.name) or depth >= DEEPEST or _in_place(entry, place, top)):
            _remove(Path(entry.path), top)
        elif is_directory:
            yield entry


def _accessible(place: Path) -> None:
    """Has a directory be readable and writable by its owner, which only a hostile run changes."""
    mode = stat.S_IMODE(os.lstat(place).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(place, mode | stat.S_IRWXU)


def _fit_name(name: str) -> bool:
    return name.isprintable()  # no line end, no escape of a terminal, no byte that is no character


def _in_place(entry: "os.DirEntry[str]", place: Path, top: Path) -> bool:
    """Whether a directory has the name of a file that a launcher writes or reads."""
    return place == top and entry.name in FILES


def _unfit(entry: "os.DirEntry[str]", at_top: bool) -> bool:
    """Whether an entry that is no directory may not stay."""
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or not _fit_name(entry.name):
        return True
    if status.st_mode & OWN != OWN:
        os.chmod(entry.path, stat.S_IMODE(status.st_mode) | OWN)
    if status.st_size <= LARGEST_BYTES:
        return False
    return (at_top and entry.name in READ_WHOLE) or _of_holes(Path(entry.path), status)


def _of_holes(path: Path, status: os.stat_result) -> bool:
    """Whether a file takes far less than its size. A file system that states no blocks is looked at piece by piece; one
    that knows no holes has one piece."""
    least = status.st_size // HOLES
    if status.st_blocks * BLOCK >= least:
        return False
    data, place = 0, 0
    with path.open("rb") as file, contextlib.suppress(OSError):  # the end of the last piece
        for _ in range(MOST_PIECES):
            begin = os.lseek(file.fileno(), place, os.SEEK_DATA)
            place = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            data += place - begin
    return data < least


def _remove(path: Path, top: Path) -> None:
    """Removes a directory with all in it, however deep: what lies in it is moved up first."""
    waiting, number = [path], 0
    while waiting:
        one = waiting.pop()
        _accessible(one)
        with os.scandir(one) as entries:
            inside = list(entries)
        for entry in inside:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            while os.path.lexists(up := top / f"removed-{number}"):
                number += 1
            os.rename(entry.path, up)
            waiting.append(up)
        os.rmdir(one)


def trace_of(directory: Path, job: Job) -> tuple[Trace | None, str]:
    """The trace of an ended run; None without one, and in words why it is none, if there is a file. Such a file is
    removed: nothing reads it again."""
    path = directory / TRACE
    try:
        trace = read_trace(path)
    except EvidenceError as error:
        there = path.is_file()
        path.unlink(missing_ok=True)
        return None, f"its trace cannot be read: {error}" if there else ""
    if why := foreign(trace, job):
        path.unlink()
        return None, f"its trace is not of its job: {why}"
    return trace, ""


def foreign(trace: Trace, job: Job) -> str:
    """What a trace states that its job does not have; empty if it is of this job."""
    header = trace.header
    both = {
        "run": (header.run, job.run),
        "side": (header.side, job.side),
        "arm": (header.arm, job.arm),
        "case": (header.case, job.case_digest),
        "runner": (header.runner, job.runner),
        "number of steps": (header.steps, job.steps),
    }
    other = [f"the {what} {one!s:.100}, and not {given}" for what, (one, given) in both.items() if one != given]
    if PROVENANCE in header.provenance:
        other.append(f"{PROVENANCE!r} in its provenance, as only a run of a trainer does")
    return "; ".join(other)
