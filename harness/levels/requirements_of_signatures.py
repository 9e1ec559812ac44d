"""What a level requires of the people who sign: their roles, that each is another person, and what they waive."""

from collections.abc import Iterator

from harness.attestation import Role
from harness.levels.certificate import Level, Requirement
from harness.levels.recorded import by_team, recorded_where, recorded_words, valid_recordings, vouched_for
from harness.levels.submission import Submission, contradiction, valid_attestations, waiver_objection

TEAMS = {Role.DEVELOPER: "developer", Role.DEV_TEAM: "development team", Role.TEST_TEAM: "test team"}
BASELINE_SIGNED = "The baseline is signed by a team"
DIFFERENT_PERSON = ("", ", by a second person", ", by a third person")  # by how many roles must be other people's


def community_only(submission: Submission) -> Iterator[Requirement]:
    """Community records who maintains a model, whatever was measured: a community maintainer signed, and no team.

    Otherwise yields nothing. A signature in this role can lower a level and never raises one.
    """
    signed = [one for one in submission.statements.attestations if not contradiction(one.statement, submission.bundle)]
    community = [one for one in signed if one.statement.role is Role.COMMUNITY]
    if community and len(community) == len(signed):
        yield Requirement(
            level=Level.UNTESTED,
            text="Maintained by a team, not only by the community",
            met=False,
            detail=f"{community[0].person} signed for the community, and no team signed",
            measured=False,
        )


def waived(submission: Submission) -> dict[str, str]:
    """The criteria that a waiver which counts accepts as they are, each with the text of the waiver."""
    return {
        signed.statement.criterion: f"{signed.statement.criterion} waived by {signed.person} until "
        f"{signed.statement.until}: {signed.statement.reason}"
        for signed in submission.statements.waivers
        if waiver_objection(signed, submission) is None
    }


def baseline(submission: Submission) -> Iterator[Requirement]:
    """Who ran the subject did not see a reference that was recorded elsewhere: a person of a team vouches for it."""
    used = submission.bundle.baseline
    if used is not None:
        yield Requirement(
            level=Level.VALIDATED,
            text=BASELINE_SIGNED,
            met=bool(by_team(valid_recordings(submission))),
            detail=f"{recorded_words(used, recorded_where(submission.bundle))}; {vouched_for(submission)}",
            measured=False,
        )


def signed(
    level: Level, submission: Submission, role: Role, others: frozenset[Role] | set[Role] = frozenset()
) -> Requirement:
    """Signed in a role by a person who has not signed in one of the other roles: no one accepts their own work."""
    good, objections = valid_attestations(submission, role)
    taken = {signed.person for other in others for signed in valid_attestations(submission, other)[0]}
    free = [signed for signed in good if signed.person not in taken]
    words = f"Signed by the {TEAMS[role]}{DIFFERENT_PERSON[len(others)]}"
    if free:
        detail = f"{free[0].person}, {free[0].statement.stated_at:%Y-%m-%d}"
    elif good:
        detail = f"{good[0].person} also signed in another role: no one accepts their own work"
    else:
        detail = "; ".join([*objections, *_lost(submission, role)]) or "no valid signature"
    return Requirement(level=level, text=words, met=bool(free), detail=detail, measured=False)


def _lost(submission: Submission, role: Role) -> Iterator[str]:
    statements = submission.statements
    for entry in statements.withdrawn:
        if entry.signed.statement.role is role:
            yield f"{entry.signed.person}'s statement was withdrawn by {entry.by.person}: {entry.by.statement.reason}"
    yield from (refused.reason for refused in statements.refused)
