"""The marker of tests that `tox run` leaves to `tox run -e full`, because a quicker test holds the same law.

Each names that test, and the session fails where it is not there: a law cannot be lost by renaming what holds it.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

NAME = "full"


def full(*, held_by: str) -> pytest.MarkDecorator:
    """The marker.

    Args:
        held_by: the quicker test, as `path/of/file.py::name`; several are separated by commas. It may be the marked
            test itself with other parameters.
    """
    return getattr(pytest.mark, NAME)(held_by=held_by)


def faults(items: Iterable[pytest.Item], root: Path) -> list[str]:
    """What is wrong with the markers of these tests: one names no quicker test, or one that does not exist."""
    found: dict[str, None] = {}
    for item in items:
        for marker in item.iter_markers(NAME):
            names = str(marker.kwargs.get("held_by", "")).split(",")
            found |= dict.fromkeys(
                f"{item.nodeid} is marked {NAME}: there is no test {name.strip()!r} that holds its law"
                for name in names
                if not _exists(name.strip(), root)
            )
    return list(found)


def _exists(name: str, root: Path) -> bool:
    path, _, function = name.partition("::")
    file = root / path
    return bool(function) and file.is_file() and f"def {function}(" in file.read_text(encoding="utf-8")
