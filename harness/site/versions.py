"""The page of versions: which sets of versions belong together as stated, and what was certified with each.

A cell stands in the row of a stated set if its run recorded that MindSpore and, where it is of MindSpore Transformers'
own model, that MindSpore Transformers. A MindSpore that no row states has a row of its own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.levels.scope import MINDFORMERS, Scope
from harness.levels.stated import StatedVersions
from harness.site.rows import TableRow

MODES = ("GRAPH", "PYNATIVE")


@dataclass(frozen=True, kw_only=True)
class CertifiedWith:
    """The cells with a computed level of one implementation in one mode, under one set of versions."""

    implementation: str
    mode: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, kw_only=True)
class VersionsRow:
    """A set of versions; `stated` is None where only runs of this site have that MindSpore."""

    mindspore: str
    stated: StatedVersions | None
    certified: tuple[CertifiedWith, ...]


def versions_rows(stated: Sequence[StatedVersions], rows: Sequence[TableRow]) -> tuple[VersionsRow, ...]:
    """The stated sets in their order, then the other versions of MindSpore that were certified."""
    named = {one.mindspore for one in stated}
    others = sorted({scope.mindspore for _, scope in _computed(rows) if scope.mindspore} - named, key=_numbers)
    return (
        *(_row(one.mindspore, one, rows) for one in stated),
        *(_row(version, None, rows) for version in reversed(others)),
    )


def _row(mindspore: str, stated: StatedVersions | None, rows: Sequence[TableRow]) -> VersionsRow:
    own = implementations(rows)
    return VersionsRow(
        mindspore=mindspore,
        stated=stated,
        certified=tuple(
            CertifiedWith(
                implementation=implementation,
                mode=mode,
                rows=tuple(
                    row
                    for row, scope in _computed(rows)
                    if (scope.mindspore, scope.implementation, scope.mode) == (mindspore, implementation, mode)
                    and (stated is None or scope.mindspore_transformers in (None, stated.mindspore_transformers))
                ),
            )
            for implementation in own
            for mode in MODES
        ),
    )


def implementations(rows: Sequence[TableRow]) -> tuple[str, ...]:
    """The implementations that have a column: those of the cells, and MindSpore Transformers' own in any case."""
    found = dict.fromkeys(scope.implementation for _, scope in _computed(rows))
    return (*(name for name in found if name != MINDFORMERS), MINDFORMERS)


def _computed(rows: Sequence[TableRow]) -> Iterator[tuple[TableRow, Scope]]:
    for row in rows:
        if row.computed is not None:
            yield row, row.computed.scope


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if re.fullmatch(r"\d{1,9}", part))
