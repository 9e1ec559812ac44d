"""The nightly: a matrix of cells, what each night found, and how it compares with the night before.

Takes the bundles of two nights; nothing here runs anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.certify.prerequisites import Prerequisite
from harness.evidence.bundle import Bundle
from harness.evidence.diff import DifferenceKind, diff_bundles
from harness.levels.rule import Level

NIGHT_FORMAT = "certify-night/1"


class CellState(StrEnum):
    """How a cell ended: a level came out, the runs broke, or nothing was run."""

    JUDGED = "judged"
    BROKEN = "broken"
    NOT_RUN = "not run"


class CellChange(StrEnum):
    """A cell beside the night before."""

    SAME = "same"
    DRIFT = "drift"
    REGRESSION = "regression"
    FIXED = "fixed"
    NOT_RUN = "not run"
    NEW = "new"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What a night found of a cell.

    `bundle` is its directory within the night, None where none was finished. `worst` is how much of its limit the
    closest criterion uses, by `worst_criterion`.
    """

    cell: str
    case: str
    device: str
    layout: str
    asked: Level
    state: CellState
    reason: str
    seconds: float
    bundle: str | None = None
    digest: str | None = None
    level: Level | None = None
    worst: float | None = None
    worst_criterion: str | None = None
    failing: tuple[str, ...] = ()
    change: CellChange = CellChange.NEW
    against: str | None = None
    why: str = ""

    @property
    def below(self) -> bool:
        """Whether the cell was judged and is below the level that the matrix asks for."""
        order = list(Level)
        return self.level is not None and order.index(self.level) > order.index(self.asked)


@dataclass(frozen=True, kw_only=True)
class Night:
    """A night: what was asked, on what, and every cell that is concluded. `ended` is None while it goes on."""

    format: str
    name: str
    matrix: str  # digest
    revision: str | None  # of the code, in words; where that is not all of it with a digest of the files
    started: str
    ended: str | None
    host: str
    prerequisites: Mapping[str, tuple[Prerequisite, ...]]
    cells: tuple[CellResult, ...]
    total: int


def compared(before: Bundle, after: Bundle, asked: Level, levels: tuple[Level, Level]) -> tuple[CellChange, str]:
    """What became of a cell: two bundles of it and their levels, the earlier one first."""
    found = diff_bundles(before, after)
    order = list(Level)
    was, is_ = (order.index(level) for level in levels)
    met_before, met_now = was <= order.index(asked), is_ <= order.index(asked)
    if met_before and not met_now:
        return CellChange.REGRESSION, f"{levels[0]} before, {levels[1]} now: {found.reason}"
    if found.kind is DifferenceKind.REGRESSION:
        return CellChange.REGRESSION, found.reason
    if not met_before and met_now:
        return CellChange.FIXED, f"{levels[0]} before, {levels[1]} now: {found.reason}"
    if found.kind is DifferenceKind.IMPROVEMENT:
        return CellChange.FIXED, found.reason
    if found.kind is DifferenceKind.ANOTHER_CASE:
        return CellChange.NEW, found.reason
    versions = [f"{one.name} {one.before} -> {one.after}" for one in found.changes if one.section == "environment"]
    if found.kind is DifferenceKind.TOOLCHAIN_DRIFT:
        return CellChange.DRIFT, "; ".join([found.reason, *versions])
    return CellChange.SAME, found.reason
