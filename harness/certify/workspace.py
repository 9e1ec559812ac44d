"""The directory of a run: claimed for one run, found again to resume it."""

import contextlib
import datetime
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import InputError
from harness.base.locks import locked
from harness.base.records import read_json
from harness.evidence.bundle_files import INPUTS, MANIFEST
from harness.runs.files import OUTCOME
from harness.runs.trace import ENDED

LOCK = ".lock"


@contextlib.contextmanager
def claimed(out: Path, *, resume: bool) -> Iterator[None]:
    """Makes the output directory of a run, and holds it against a second run in it while the block runs.

    A run can be resumed as soon as its inputs are recorded. Where the block ends with an error before that, all that
    it wrote goes, and so does a directory that was made here.

    Raises:
        InputError: another run is using it; it cannot be made or written, is not empty, or on resume is finished.
    """
    _check_free(out, resume)
    with locked(out / LOCK, user="run", option="--out"):
        _check_free(out, resume)  # another run may have come and gone
        try:
            yield
        except BaseException:
            if not (out / INPUTS).is_file():
                for path in _content(out):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise


def _check_free(out: Path, resume: bool) -> None:
    try:
        if (out / MANIFEST).exists() and not (resume and unfinished(out)):
            command = shlex.join(["certify", "report", str(out)])
            raise InputError(f"{out} holds a finished bundle. Choose another --out, or show this one: {command}")
        content = _content(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}. Choose another --out.") from None
    if content and not resume:
        raise InputError(f"{out} is not empty. Choose another --out, or resume what is there: --resume.")
    if content and not (out / INPUTS).is_file():
        raise InputError(f"{out} holds no run that can be resumed (no {INPUTS}). Choose another --out.")


def _content(out: Path) -> list[Path]:
    """All that lies in a directory but its lock."""
    return [path for path in out.iterdir() if path.name != LOCK] if out.exists() else []


def unfinished(out: Path) -> bool:
    """Whether a directory belongs to a run that did not finish, or holds a run that did not."""
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
        raise InputError(f"There is no unfinished run of {case_name} under {base}. Start one without --resume.")
    return found[-1]


def new_directory(base: Path, case_name: str) -> Path:
    """A directory name that no earlier run has: case and time to the second, and a number where that is taken."""
    stem = f"{case_name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return base / next(name for name in names if not os.path.lexists(base / name))
