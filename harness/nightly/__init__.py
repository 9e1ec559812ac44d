"""The nightly: a matrix of cells, the results of each night, and the comparison with the night before.

Takes the bundles of two nights; nothing here runs anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.base.records import LATER
from harness.certify.prerequisites import Prerequisite
from harness.evidence.bundle import Bundle
from harness.evidence.diff import DifferenceKind, diff_bundles
from harness.levels.certificate import Level

NIGHT_FORMAT = "certify-night/1"


class CellState(StrEnum):
    """How a cell ended: with a level, with failed runs, or without a run."""

    JUDGED = "judged"
    BROKEN = "broken"
    NOT_RUN = "not run"


class CellChange(StrEnum):
    """A cell compared with the night before."""

    SAME = "same"
    DRIFT = "drift"
    REGRESSION = "regression"
    FIXED = "fixed"
    NOT_RUN = "not run"
    NEW = "new"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of a cell in a night. `required` is the level that the matrix requires.

    `cause` classes a failure, and is empty where there is none. `awaits_baseline`: it was not run because its baseline
    was never recorded, which makes no night fail. `bundle` is its directory within the night, None if none was
    finished. `worst` is how much of its limit the closest criterion, `worst_criterion`, uses.
    `protection` is the weakest that a run of the subject had; None where nothing was judged.
    """

    cell: str
    case: str
    device: str
    layout: str
    required: Level
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
    cause: str = ""
    awaits_baseline: bool = False
    protection: str | None = field(default=None, metadata=LATER)

    @property
    def below(self) -> bool:
        """Whether the cell was judged and is below the level that the matrix requires."""
        order = list(Level)
        return self.level is not None and order.index(self.level) > order.index(self.required)


@dataclass(frozen=True, kw_only=True)
class Night:
    """A night: its matrix, code and machine, and every finished cell. `ended` is None while it runs. `part` is
    `K/N` for the share of one machine, whose `total` is that of the share; None for all cells. `gathered` gives for
    each part that came which night of which host it was."""

    format: str
    name: str
    matrix: str  # digest
    revision: str | None  # of the code, as text; with a digest of the files if they differ from it
    started: str
    ended: str | None
    host: str
    prerequisites: Mapping[str, tuple[Prerequisite, ...]]
    cells: tuple[CellResult, ...]
    total: int
    part: str | None = field(default=None, metadata=LATER)
    gathered: Mapping[str, str] | None = field(default=None, metadata=LATER)


def compared(before: Bundle, after: Bundle, required: Level, levels: tuple[Level, Level]) -> tuple[CellChange, str]:
    """The change of a cell between two of its bundles and their levels, the earlier one first, with the reason."""
    found = diff_bundles(before, after)
    order = list(Level)
    was, is_ = (order.index(level) for level in levels)
    met_before, met_now = was <= order.index(required), is_ <= order.index(required)
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
