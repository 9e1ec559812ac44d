"""The level rule as code: a pure function of bundles, of the statements signed about them, and of a day.

Takes a bundle with its valid statements, and other bundles of the same case. Gives the level, with the state of every
requirement. A level holds for one model, device, layout and precision, and for no other.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from harness.attestation import Role
from harness.levels.certificate import Certificate, Level, Requirement, reached
from harness.levels.independent_run import independent_run
from harness.levels.requirements_of_a_bundle import (
    TASK_RULES,
    WORKS,
    age,
    all_pass,
    committed,
    counted,
    criterion,
    limits,
    measured,
    named,
    none_broken,
    official,
)
from harness.levels.requirements_of_signatures import baseline, community_only, signed, waived
from harness.levels.scope import scope
from harness.levels.submission import Submission, started


def certify(submission: Submission, at: datetime, others: Sequence[Submission] = ()) -> Certificate:
    """The level of a bundle at a moment (with time zone); `others` are other bundles of its case."""
    requirements = tuple(_requirements(submission, at, others))
    return Certificate(
        level=reached(requirements),
        standards=tuple(map(named, submission.bundle.standards)),
        scope=scope(submission.bundle),
        started=started(submission),
        at=at,
        requirements=requirements,
    )


def _requirements(submission: Submission, at: datetime, others: Sequence[Submission]) -> Iterator[Requirement]:
    bundle = submission.bundle
    findings = counted(bundle.findings)
    by_community = tuple(community_only(submission))
    lowest = Level.COMMUNITY if by_community else Level.UNTESTED
    yield official(lowest, bundle)
    for name in WORKS:
        yield criterion(lowest, name, findings)
    yield from by_community
    for name in TASK_RULES[bundle.case.task.name].preliminary:
        yield criterion(Level.PRELIMINARY, name, findings)
    yield age(submission, at)
    accepted = waived(submission)
    yield none_broken(findings, accepted)
    yield all_pass(findings, accepted)
    yield committed(bundle)
    yield measured(bundle)
    yield from limits(bundle)
    yield from baseline(submission)
    yield signed(Level.VALIDATED, submission, Role.DEVELOPER)
    yield signed(Level.VALIDATED, submission, Role.DEV_TEAM, {Role.DEVELOPER})
    yield signed(Level.RELEASED, submission, Role.TEST_TEAM, {Role.DEVELOPER, Role.DEV_TEAM})
    yield independent_run(submission, others, at)
    yield Requirement(
        level=Level.RELEASED,
        text="Nothing is waived",
        met=not accepted,
        detail="; ".join(accepted.values()) or "no waiver",
    )
