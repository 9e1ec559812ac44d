"""The rule of the levels as code: a pure function of a bundle.

Takes a bundle's findings and the state of its sources, gives the level with every requirement and its state.
A level holds for one device, layout and precision; nothing here carries it to another.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.evidence import Bundle, Source
from harness.judge import Finding, Outcome
from harness.standards import Standard, load_standard, shipped_standards


class Level(StrEnum):
    """MindSpore Transformers' levels, highest first. `NONE`: not even shown to work."""

    RELEASED = "Released"
    VALIDATED = "Validated"
    PRELIMINARY = "Preliminary"
    UNTESTED = "Untested"
    COMMUNITY = "Community"
    NONE = "none"


OFFICIAL = "official"
# What "complete and usable, trains and converges normally" asks for, by criterion.
WORKS = ("runs-complete", "runs-finite")
TRAINS = ("inputs-same", "batches-same", "converges")
COMPUTED = (Level.RELEASED, Level.VALIDATED, Level.PRELIMINARY, Level.UNTESTED)


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One thing that a level asks for, whether it is met, and what was found."""

    level: Level
    text: str
    met: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The level with its reasons. `standards` names what it was judged against, `scope` what it holds for."""

    level: Level
    standards: tuple[str, ...]
    scope: str
    requirements: tuple[Requirement, ...]

    @property
    def next_level(self) -> Level | None:
        """The lowest computed level that is not reached."""
        unmet = {requirement.level for requirement in self.requirements if not requirement.met}
        return next((level for level in reversed(COMPUTED) if level in unmet), None)

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """What the next level still asks for."""
        return tuple(r for r in self.requirements if r.level is self.next_level and not r.met)

    def reaches(self, asked: Level) -> bool:
        """Whether this level is the asked one or a higher one."""
        order = list(Level)
        return order.index(self.level) <= order.index(asked)


def certify(bundle: Bundle) -> Certificate:
    """The level that a bundle carries."""
    requirements = (_official(bundle.standards), *_requirements(bundle.findings, bundle.source))
    reached = Level.NONE
    for level in reversed(COMPUTED):
        if not all(r.met for r in requirements if r.level is level):
            break
        reached = level
    return Certificate(
        level=reached,
        standards=tuple(map(_named, bundle.standards)),
        scope=f"{bundle.environment['device']}, one process, {bundle.case.precision.compute_dtype}",
        requirements=requirements,
    )


@functools.cache
def _shipped_digest(name: str) -> str | None:
    return load_standard(name).digest() if name in shipped_standards() else None


def _as_shipped(standard: Standard) -> bool:
    return standard.digest() == _shipped_digest(standard.name)


def _named(standard: Standard) -> str:
    """Its name, and the digest of one that is not what its name says: a looser standard must show."""
    changed = standard.name in shipped_standards() and not _as_shipped(standard)
    return f"{standard.name} (changed, {standard.digest()[:12]})" if changed else standard.name


def _official(standards: Sequence[Standard]) -> Requirement:
    """The published rule and ceilings are always enforced: no level comes from criteria that only bear their names."""
    found = [standard for standard in standards if standard.name == OFFICIAL]
    return Requirement(
        level=Level.UNTESTED,
        text="Judged against the official standard as it is shipped",
        met=any(map(_as_shipped, found)),
        detail=", ".join(map(_named, found)) or "the official standard is not in this bundle",
    )


def _requirements(findings: Sequence[Finding], source: Source) -> Iterable[Requirement]:
    for criterion in WORKS:
        yield _criterion(Level.UNTESTED, criterion, findings)
    for criterion in TRAINS:
        yield _criterion(Level.PRELIMINARY, criterion, findings)
    refused = [f for f in findings if f.outcome in (Outcome.FAIL, Outcome.ERROR)]
    yield Requirement(
        level=Level.PRELIMINARY,
        text="No criterion is shown to be broken",
        met=bool(findings) and not refused,
        detail=", ".join(f"{f.criterion} {f.outcome}" for f in refused) or f"none of {len(findings)}",
    )
    open_ = [f for f in findings if f.outcome is not Outcome.PASS]
    yield Requirement(
        level=Level.VALIDATED,
        text="Every criterion passes",
        met=bool(findings) and not open_,
        detail=", ".join(f"{f.criterion} {f.outcome}" for f in open_) or f"{len(findings)} of {len(findings)}",
    )
    state = f"{source.revision[:12]}{', with uncommitted changes' * source.dirty}" if source.revision else "no checkout"
    yield Requirement(
        level=Level.VALIDATED,
        text="Run from a committed source revision",
        met=source.revision is not None and not source.dirty,
        detail=state,
    )
    for level, team in ((Level.VALIDATED, "development team"), (Level.RELEASED, "test team")):
        yield Requirement(
            level=level,
            text=f"Signed by the {team}",
            met=False,
            detail="signatures are not supported by this version, so nothing above Preliminary is shown",
        )
    yield Requirement(
        level=Level.RELEASED,
        text="The test team's own independent run agrees",
        met=False,
        detail="no second run: one bundle was judged",
    )


def _criterion(level: Level, criterion: str, findings: Sequence[Finding]) -> Requirement:
    found = [finding for finding in findings if finding.criterion == criterion]
    if not found:
        return Requirement(level=level, text=criterion, met=False, detail="no standard in this bundle asks for it")
    met = all(finding.outcome is Outcome.PASS for finding in found)
    return Requirement(level=level, text=found[0].title, met=met, detail=found[0].message)
