"""What Released requires of a second run: the test team's own, made independently, with the same numbers."""

from collections.abc import Sequence
from datetime import datetime

from harness.attestation import Role
from harness.base.text import listed
from harness.cases.runs_of_a_case import SUBJECT
from harness.evidence.agreement import differences
from harness.evidence.bundle import Bundle
from harness.evidence.floor import common_floor
from harness.levels.certificate import Level, Requirement
from harness.levels.requirements_of_a_bundle import age, all_pass, committed, counted, measured, official, runners
from harness.levels.scope import scope
from harness.levels.second_run import not_a_later_run, same_run
from harness.levels.submission import Submission, valid_attestations


def independent_run(submission: Submission, others: Sequence[Submission], at: datetime) -> Requirement:
    """The test team's own run: made on another occasion, signed by people with no part in the first run, and equal.

    No file can show that a run is independent: whoever controls a machine can write every file. What is checked here
    refuses a copy and a mistake; the rest is the word of the person who signed.
    """
    reasons = [_why_not_second(submission, other, at) for other in others]
    met = None in reasons
    agreeing = [other for other, reason in zip(others, reasons, strict=True) if reason is None]
    detail = "; ".join(
        f"{_agreement(submission.bundle, other.bundle)[1]}; that it is independent is the word of "
        f"{listed(sorted(_own_signers(submission, other)))}"
        for other in agreeing
    )
    return Requirement(
        level=Level.RELEASED,
        text="The test team's own independent run agrees",
        met=met,
        detail=detail if met else "; ".join(filter(None, reasons)) or "there is no second run of this case",
        measured=False,
    )


def _why_not_second(first: Submission, second: Submission, at: datetime) -> str | None:
    a, b = first.bundle, second.bundle
    name = b.path.name
    if same_run(a, b):
        return f"{name} is the same run"
    if (scope(a), a.case.digest()) != (scope(b), b.case.digest()):
        return f"{name} is a run of another case"
    if runners(a, "subject") != runners(b, "subject"):
        return f"{name} is a run of another implementation"
    if _standards(a) != _standards(b):
        return f"{name} was judged by other standards"
    if why := not_a_later_run(a, b):
        return f"{name} {why}"
    own = (
        official(Level.UNTESTED, b),
        age(second, at),
        all_pass(counted(b.findings), {}),
        committed(b),
        measured(b),
    )
    if not all(requirement.met for requirement in own):
        return f"{name} does not meet the criteria on its own"
    involved = _involved(first)
    makers = {signed.person for signed in valid_attestations(second, Role.DEVELOPER)[0]}
    if makers & involved:
        return f"{name} was made by {', '.join(sorted(makers & involved))}, who has a part in the first run"
    if not _own_signers(first, second):
        return f"{name} is not signed by a test team that has no part in the first run"
    agrees, words = _agreement(a, b)
    return None if agrees else words


def _standards(bundle: Bundle) -> dict[str, str]:
    return {standard.name: standard.digest() for standard in bundle.standards}


def _involved(submission: Submission) -> set[str]:
    """The people who made a run, or accepted it for the development team."""
    return {s.person for role in (Role.DEVELOPER, Role.DEV_TEAM) for s in valid_attestations(submission, role)[0]}


def _own_signers(first: Submission, second: Submission) -> set[str]:
    """The people of the test team who signed a second run and have no part in the first."""
    return {signed.person for signed in valid_attestations(second, Role.TEST_TEAM)[0]} - _involved(first)


def _agreement(a: Bundle, b: Bundle) -> tuple[bool, str]:
    """Whether two runs of the subject have the same bits, or differ by no more than their floor; and this as text."""
    worst = differences(a, b, SUBJECT)
    if not worst:
        return False, f"{b.path.name}: a trace of the subject is missing"
    if all(value == 0 for value in worst.values()):
        return True, f"{b.path.name}: the same bits in every number"
    floor = common_floor(a, b)
    words = ", ".join(f"{number} {value:.2g}" for number, value in worst.items())
    if floor is None:
        return False, f"{b.path.name}: differs ({words}), and no floor was measured in both"
    within = all(value <= floor[number] for number, value in worst.items())
    return within, f"{b.path.name}: {'within' if within else 'beyond'} the floor ({words})"
