"""What a level is: its name and order, the state of its requirements, and how long it holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from harness.levels.scope import Scope

VALID_DAYS = 180
LAST = datetime.max.replace(microsecond=0, tzinfo=UTC)  # of the calendar


class Level(StrEnum):
    """MindSpore Transformers' levels, highest first. `NONE`: not shown to work."""

    RELEASED = "Released"
    VALIDATED = "Validated"
    PRELIMINARY = "Preliminary"
    UNTESTED = "Untested"
    COMMUNITY = "Community"
    NONE = "none"

    def reaches(self, required: "Level") -> bool:
        """Whether this level is the required one or a higher one."""
        order = list(Level)
        return order.index(self) <= order.index(required)


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement of a level, whether it is met, and what was found. `measured`: by the bundle alone, without what
    others signed or ran."""

    level: Level
    text: str
    met: bool
    detail: str
    measured: bool = True


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The level with its reasons: the standards it was judged against, what it holds for, when the run started, and the
    moment `at` for which it was computed."""

    level: Level
    standards: tuple[str, ...]
    scope: Scope
    started: datetime
    at: datetime
    requirements: tuple[Requirement, ...]

    @property
    def until(self) -> datetime | None:
        """When the level expires; None for a level that does not, because it requires no recent run."""
        return expires(self.started) if self.level.reaches(Level.PRELIMINARY) else None

    @property
    def measured(self) -> Level:
        """The level that the bundle would have if everything were signed and repeated."""
        return reached(tuple(r for r in self.requirements if r.measured))

    @property
    def ladder(self) -> tuple[Level, ...]:
        """The levels that have requirements, lowest first."""
        return _ladder(self.requirements)

    @property
    def next_level(self) -> Level | None:
        """The lowest computed level that is not reached."""
        unmet = {requirement.level for requirement in self.requirements if not requirement.met}
        return next((level for level in self.ladder if level in unmet), None)

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """The requirements that are missing for the next level."""
        return tuple(r for r in self.requirements if r.level is self.next_level and not r.met)

    def reaches(self, required: Level) -> bool:
        """Whether this level is the required one or a higher one."""
        return self.level.reaches(required)


def reached(requirements: Sequence[Requirement]) -> Level:
    """The highest level whose requirements are met, with those of every level below it that has any."""
    reached = Level.NONE
    for level in _ladder(requirements):
        if not all(r.met for r in requirements if r.level is level):
            break
        reached = level
    return reached


def _ladder(requirements: Sequence[Requirement]) -> tuple[Level, ...]:
    present = {requirement.level for requirement in requirements}
    return tuple(level for level in reversed(Level) if level in present)


def expires(run: datetime) -> datetime:
    """When a run that started at a moment carries nothing above Untested any more."""
    return run + min(timedelta(days=VALID_DAYS), LAST - run)
