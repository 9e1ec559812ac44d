"""A bundle with the statements signed about it, and which of them match it.

Takes a bundle, a trust file and a moment; gives the valid statements, and for each whether it counts for a level.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.attestation import (
    MAX_BYTES,
    Attestation,
    Claim,
    Result,
    Role,
    Signed,
    Trust,
    VerifiedStatements,
    Waiver,
    verify_all,
)
from harness.base.digest import digest_bytes
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.bundle_files import ATTESTATIONS
from harness.evidence.judge import Outcome
from harness.levels.scope import scope

# What makes two runs ones of the same case. Where one of these fails, the other criteria compare nothing, so no one can
# accept it; `harness.levels.rule` requires the rest of them to pass at Preliminary.
SAME_CASE = (
    "weights-reference", "weights-subject", "alignment-reference", "alignment-subject", "tokens", "learning-rate",
)  # fmt: skip
NOTHING_SIGNED = VerifiedStatements(attestations=(), waivers=(), withdrawn=(), refused=())


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A bundle, and the statements about it that are valid at a moment.

    `trust` is the digest of the trust file (None: no signature was checked), `files` are the digests of the statements'
    files.
    """

    bundle: Bundle
    statements: VerifiedStatements = NOTHING_SIGNED
    trust: str | None = None
    files: tuple[str, ...] = ()

    @property
    def signed(self) -> bool:
        """Whether a statement that was verified states what this bundle shows."""
        return any(contradiction(one.statement, self.bundle) is None for one in self.statements.attestations)


def started(submission: Submission) -> datetime:
    """When the run of a bundle started."""
    return datetime.fromisoformat(submission.bundle.occasion.started)


def read_submission(directory: Path, trust: Trust | None, at: datetime) -> Submission:
    """A bundle with the statements in it that are valid at a moment; without a trust file no signature is checked.

    Raises:
        EvidenceError: the bundle is not what was recorded.
    """
    return submitted(read_bundle(directory), trust, at)


def submitted(bundle: Bundle, trust: Trust | None, at: datetime, only: Collection[str] | None = None) -> Submission:
    """A bundle with the statements in it that are valid at a moment; `only`: of those with these digests."""
    envelopes = envelopes_of(bundle.path)
    if only is not None:
        envelopes = [envelope for envelope in envelopes if digest_bytes(envelope) in only]
    return Submission(
        bundle=bundle,
        statements=verify_all(envelopes, trust, at) if trust else NOTHING_SIGNED,
        trust=trust.digest() if trust else None,
        files=tuple(sorted(map(digest_bytes, envelopes))),
    )


def statement_digests(bundle: Bundle) -> tuple[str, ...]:
    """The digests of the files of the signed statements in a bundle, sorted."""
    return tuple(sorted(map(digest_bytes, envelopes_of(bundle.path))))


def envelopes_of(directory: Path) -> list[bytes]:
    """The signed statements in a bundle or a baseline, in the order of their names."""
    return [_envelope(path) for path in statement_paths(directory)]


def _envelope(path: Path) -> bytes:
    """The file of a statement, or enough of it to be refused as too long."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def statement_paths(directory: Path) -> list[Path]:
    """The files of the signed statements in a bundle or a baseline, in the order of their names."""
    return sorted((directory / ATTESTATIONS).glob("*.json"))


def claim_of(bundle: Bundle, role: Role, stated_at: datetime) -> Claim:
    """The only statement that a role can sign about a bundle: what it shows. What was not measured is a warning."""

    def named(*outcomes: Outcome) -> tuple[str, ...]:
        return tuple(f"{f.standard}/{f.criterion}" for f in bundle.findings if f.outcome in outcomes)

    return Claim(
        manifest_digest=bundle.digest,
        record_digest=bundle.record,
        case_name=bundle.case.name,
        case_digest=bundle.case.digest(),
        standards={standard.name: standard.digest() for standard in bundle.standards},
        passed=named(Outcome.PASS),
        warned=named(Outcome.INCONCLUSIVE),
        failed=named(Outcome.FAIL, Outcome.ERROR),
        run_started=bundle.occasion.started,
        scope=str(scope(bundle)),
        role=role,
        stated_at=stated_at,
    )


def contradiction(claim: Claim, bundle: Bundle) -> str | None:
    """How an attestation contradicts its bundle, or None."""
    if not claim.applies_to(manifest_digest=bundle.digest, record_digest=bundle.record):
        return "is about another bundle"
    if claim != claim_of(bundle, claim.role, claim.stated_at):
        return "does not match what the bundle shows"
    return None


def objection(claim: Claim, bundle: Bundle) -> str | None:
    """Why an attestation counts for no level: it contradicts its bundle, or states that a criterion failed."""
    return contradiction(claim, bundle) or ("states that it failed" if claim.result is Result.FAILED else None)


def valid_attestations(submission: Submission, role: Role) -> tuple[list[Attestation], list[str]]:
    """The attestations of a role that count for a level of this bundle, and why the others do not."""
    good, objections = [], []
    for signed in submission.statements.attestations:
        if signed.statement.role is role:
            why = objection(signed.statement, submission.bundle)
            if why:
                objections.append(f"{signed.person}'s statement {why}")
            else:
                good.append(signed)
    return good, objections


def waiver_objection(signed: Signed[Waiver], submission: Submission) -> str | None:
    """Why a waiver does not count for a bundle, or None.

    It is of this case, of its whole scope, and of this bundle or its committed revision. Its signer has no other part:
    someone else signed as the developer who ran it, and the signer did not sign in another role.
    """
    waiver, bundle = signed.statement, submission.bundle
    if waiver.criterion in SAME_CASE:
        return f"is of {waiver.criterion}, without which two runs are not of one case: no one can accept that"
    if waiver.case_digest != bundle.case.digest():
        return "is about another case"
    if waiver.scope != scope(bundle).line:
        return "is about another scope"
    committed = None if bundle.source.dirty else bundle.source.revision
    if waiver.bundle != bundle.digest and (waiver.revision is None or waiver.revision != committed):
        return "is about another bundle or revision"
    parts = [one for one in submission.statements.attestations if not contradiction(one.statement, bundle)]
    if signed.person in {one.person for one in parts}:
        return "is by a person who has another part in this bundle"
    if not any(one.statement.role is Role.DEVELOPER for one in parts):
        return "does not count before the developer who ran it has signed"
    return None
