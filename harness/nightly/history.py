"""Where nights are kept: a directory for each, with its record and the directories of its cells."""

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from harness.base.records import read_record
from harness.evidence.bundle_files import MANIFEST
from harness.nightly import NIGHT_FORMAT, Night

NIGHTS, NIGHT, CELLS, BUNDLE, LOCK = "nights", "night.json", "cells", "bundle", ".lock"

KEPT_IN_ANY_EVENT = 2
GIB = 2**30


def nights(history: Path) -> list[tuple[Path, Night]]:
    """The nights of a history, the oldest first.

    Raises:
        EvidenceError: the record of one was edited.
    """
    found = sorted(path.parent for path in (history / NIGHTS).glob(f"*/{NIGHT}"))
    return [(path, read_record(Night, path / NIGHT, NIGHT_FORMAT)) for path in found]


def new_place(history: Path) -> Path:
    """The directory of a night that starts now, named by its second so that names sort by time. If another night has
    that name, the next second is waited for."""
    while (place := history / NIGHTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}").exists():
        time.sleep(0.05)
    return place


def bundles(history: Path) -> list[Path]:
    """Every bundle that a history still has."""
    return sorted(path.parent for path in (history / NIGHTS).glob(f"*/{CELLS}/*/{BUNDLE}/{MANIFEST}"))


def prune(history: Path, keep: int, keep_gib: float | None = None) -> None:
    """Deletes the bundles of old nights; their results stay. Those of so many nights are kept and, with a limit, as
    many of the newest as take so many GiB together; those of the last two in any event, since they are compared."""
    every = [place for place, _ in nights(history)]
    for place in every[:-keep]:
        shutil.rmtree(place / CELLS, ignore_errors=True)
    if keep_gib is None:
        return
    sizes = {place: _bytes(place / CELLS) for place in every}
    for place in every[:-KEPT_IN_ANY_EVENT]:
        if sum(sizes.values()) <= keep_gib * GIB:
            return
        shutil.rmtree(place / CELLS, ignore_errors=True)
        sizes[place] = 0


def _bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def moment() -> str:
    """Now, as a night states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
