"""Where nights are kept: a directory for each, with its record and the directories of its cells."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from harness.base.records import read_record
from harness.evidence.bundle_files import MANIFEST
from harness.nightly import NIGHT_FORMAT, Night

NIGHTS, NIGHT, CELLS, BUNDLE, LOCK = "nights", "night.json", "cells", "bundle", ".lock"


def nights(history: Path) -> list[tuple[Path, Night]]:
    """The nights of a history, the oldest first.

    Raises:
        EvidenceError: the record of one was edited.
    """
    found = sorted(path.parent for path in (history / NIGHTS).glob(f"*/{NIGHT}"))
    return [(path, read_record(Night, path / NIGHT, NIGHT_FORMAT)) for path in found]


def bundles(history: Path) -> list[Path]:
    """Every bundle that a history still has."""
    return sorted(path.parent for path in (history / NIGHTS).glob(f"*/{CELLS}/*/{BUNDLE}/{MANIFEST}"))


def prune(history: Path, keep: int) -> None:
    """Deletes the bundles of old nights; their results stay."""
    for place, _ in nights(history)[:-keep]:
        shutil.rmtree(place / CELLS, ignore_errors=True)


def moment() -> str:
    """Now, as a night states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
