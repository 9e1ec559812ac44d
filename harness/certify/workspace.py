"""The directory a run is made in: claimed, locked against a second run, found again to resume."""

import contextlib
import datetime
import fcntl
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import InputError
from harness.base.records import read_json
from harness.evidence.bundle_files import INPUTS, MANIFEST
from harness.runs.files import OUTCOME
from harness.runs.trace import ENDED


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds a directory against a second `certify run` in it; the lock ends with the process.

    Raises:
        InputError: another process runs in it.
    """
    directory = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"Another certify run is at work in {out}. Wait for it, or choose another --out.") from None
    finally:
        os.close(directory)


def claim(out: Path, resume: bool) -> None:
    """Makes the output directory, and never takes one that holds something.

    Raises:
        InputError: it cannot be made or written, is not empty, or on resume is finished.
    """
    try:
        if (out / MANIFEST).exists() and not (resume and unfinished(out)):
            command = shlex.join(["certify", "report", str(out)])
            raise InputError(f"{out} holds a finished bundle. Choose another --out, or show this one: {command}")
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not resume:
            raise InputError(f"{out} is not empty. Choose another --out, or go on with what is there: --resume.")
        if any(out.iterdir()) and not (out / INPUTS).is_file():
            raise InputError(f"{out} holds no run that can go on (no {INPUTS}). Choose another --out.")
        probe = out / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"The output directory {out} cannot be written: {error.strerror}. Choose another --out."
        ) from None


def unfinished(out: Path) -> bool:
    """Whether a directory is of a run that did not come to its end, or holds a run that did not."""
    outcomes = [read_json(path) for path in out.glob(f"runs/*/{OUTCOME}")]
    broken = any(outcome["status"] not in ENDED for outcome in outcomes)
    return broken or not (out / MANIFEST).exists()


def find_unfinished(base: Path, case_name: str) -> Path:
    """The newest directory of a case under `base` that holds no finished bundle.

    Raises:
        InputError: there is none.
    """
    candidates = sorted(base.glob(f"{case_name}-*")) if base.is_dir() else []
    found = [path for path in candidates if path.is_dir() and unfinished(path)]
    if not found:
        raise InputError(f"There is no unfinished run of {case_name} under {base}. Begin one without --resume.")
    return found[-1]


def new_directory(base: Path, case_name: str) -> Path:
    """A directory name that no earlier run has: case and time to the second, and a number where that is taken."""
    stem = f"{case_name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return base / next(name for name in names if not os.path.lexists(base / name))
