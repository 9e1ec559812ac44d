"""A cell: all runs of one case in one scope, its level at any moment, and every change of that level.

The newest run counts. A level that an earlier run has, because people signed it, is kept only as far as the
measurements of the newest run would carry it: a failing night takes it away, and a passing one need not be signed.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from harness.cases.runs_of_a_case import SUBJECT
from harness.levels.certificate import Certificate, Level, expires
from harness.levels.rule import certify
from harness.levels.scope import Scope, scope
from harness.levels.submission import Submission, started

INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """A change of a cell's level: when, from which level, and the certificate of that moment. The first run of a cell
    changes it from `none`, and only if it reaches a level."""

    at: datetime
    before: Level
    bundle: str
    certificate: Certificate


@dataclass(frozen=True, kw_only=True)
class LevelCell:
    """The runs of one case in one scope, oldest first; there is at least one."""

    scope: Scope
    case_digest: str
    runs: tuple[Submission, ...]

    def certificates(self, at: datetime) -> tuple[tuple[Submission, Certificate], ...]:
        """Each run with its own level at a moment, oldest first."""
        return tuple((one, certify(one, at, [other for other in self.runs if other is not one])) for one in self.runs)

    def current(self, at: datetime) -> tuple[Submission, Certificate]:
        """The run that the cell has its level from, and its certificate: the highest level that the newest run carries,
        and the newest run of several."""
        return _current(self.certificates(at))

    def changes(self, at: datetime) -> tuple[LevelChange, ...]:
        """Every change of the level up to a moment, oldest first: by a run, a signature, or the passing of time.

        What was withdrawn does not count, also not for the time before its withdrawal.
        """
        level, found = Level.NONE, list[LevelChange]()
        for moment in sorted({one for one in self._moments() if one <= at}):
            run, certificate = _current(tuple(self._as_of(moment)))
            if certificate.level is not level:
                found.append(LevelChange(at=moment, before=level, bundle=run.bundle.digest, certificate=certificate))
            level = certificate.level
        return tuple(found)

    def _moments(self) -> Iterator[datetime]:
        first = started(self.runs[0])
        for one in self.runs:
            yield started(one)
            yield expires(started(one)) + INSTANT
            stated = [signed.statement.stated_at for signed in one.statements.attestations]
            stated += [signed.statement.stated_at for signed in one.statements.waivers]
            stated += [signed.statement.stated_at for signed in one.statements.recordings]
            yield from (moment for moment in stated if moment > first)

    def _as_of(self, moment: datetime) -> Iterator[tuple[Submission, Certificate]]:
        """The runs up to a moment, with what was signed about them up to then."""
        there = [_signed_until(one, moment) for one in self.runs if started(one) <= moment]
        # a second run counts only if it is signed, so runs without a signature need not be compared with each other
        signed = [one for one in there if one.statements.attestations]
        for one in there:
            yield one, certify(one, moment, [other for other in signed if other is not one])


def cells(submissions: Sequence[Submission]) -> tuple[LevelCell, ...]:
    """The cells of some bundles, in the order of their first ones."""
    groups: dict[tuple[Scope, str], list[Submission]] = {}
    # What left no trace states no mode and no implementation: it is the run of a cell that it fits.
    for one in sorted(submissions, key=_left_nothing):
        key = scope(one.bundle), one.bundle.case.digest()
        if _left_nothing(one):
            key = next((known for known in groups if _fits(key, known)), key)
        groups.setdefault(key, []).append(one)
    return tuple(
        LevelCell(scope=what, case_digest=case, runs=tuple(sorted(group, key=_age)))
        for (what, case), group in groups.items()
    )


def _left_nothing(one: Submission) -> bool:
    run = one.bundle.runs.get(SUBJECT)
    return run is None or run.trace is None


def _fits(unstated: tuple[Scope, str], known: tuple[Scope, str]) -> bool:
    """Whether a scope without mode and implementation is another one, as far as it goes."""
    (scope_, case), (other, other_case) = unstated, known
    same = dataclasses.replace(
        scope_,
        mode=other.mode,
        implementation=other.implementation,
        mindspore_transformers=other.mindspore_transformers,
    )
    return (same, case) == (other, other_case)


def _age(one: Submission) -> tuple[datetime, str]:
    return started(one), one.bundle.digest


def _current(rated: Sequence[tuple[Submission, Certificate]]) -> tuple[Submission, Certificate]:
    carried, order = rated[-1][1].measured, list(Level)
    standing = [pair for pair in reversed(rated) if carried.reaches(pair[1].level)]
    return min(standing, key=lambda pair: order.index(pair[1].level))


def _signed_until(one: Submission, moment: datetime) -> Submission:
    statements = one.statements
    return dataclasses.replace(
        one,
        statements=dataclasses.replace(
            statements,
            attestations=tuple(s for s in statements.attestations if s.statement.stated_at <= moment),
            waivers=tuple(s for s in statements.waivers if s.statement.stated_at <= moment),
            recordings=tuple(s for s in statements.recordings if s.statement.stated_at <= moment),
        ),
    )
