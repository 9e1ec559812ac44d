"""A baseline with the statements signed about it: who vouches for the recording, and on what it was made.

Takes the directory of a baseline, or a bundle that was judged by one, with a trust file and a moment. A signature over
a baseline is a statement like those over a bundle: the same envelope, in `attestations/` beside it. It goes with the
baseline into each bundle that is judged by it. Rejects a statement that is not about this baseline.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.attestation import Recording, Role, Signed, Trust, VerifiedStatements, Withdrawal, read, verify_all
from harness.base.digest import digest_file
from harness.base.errors import AttestationError, EvidenceError
from harness.cases.runs_of_a_case import REFERENCE
from harness.evidence.bundle import Bundle, read_run
from harness.evidence.provenance import BASELINE, ENVIRONMENT, Baseline, read_baseline
from harness.levels.submission import NOTHING_SIGNED, Submission, envelopes_of
from harness.runs.trace import Run

TEAM = (Role.DEVELOPER, Role.DEV_TEAM, Role.TEST_TEAM)


@dataclass(frozen=True, kw_only=True)
class SignedBaseline:
    """A baseline, every byte checked, and the statements about it that are valid at a moment.

    `digest` is the SHA-256 of its baseline.json, `on` the device in words, `files` the number of its signed statements.
    `trusted`: whether signatures were checked.
    """

    path: Path
    baseline: Baseline
    digest: str
    on: str
    files: int
    trusted: bool
    statements: VerifiedStatements = NOTHING_SIGNED

    @property
    def valid(self) -> tuple[Signed[Recording], ...]:
        """The signatures that vouch for this baseline."""
        return tuple(one for one in self.statements.recordings if self.objection(one.statement) is None)

    @property
    def rejected(self) -> tuple[str, ...]:
        """The statements that do not count, each with the reason."""
        others: list[Signed[Any]] = [*self.statements.attestations, *self.statements.waivers]
        found = [one.reason for one in self.statements.refused]
        found += [f"{one.person}'s statement {one.digest[:12]} is about a bundle, not a baseline" for one in others]
        found += [
            f"{one.person}'s statement {one.digest[:12]} {why}"
            for one in self.statements.recordings
            if (why := self.objection(one.statement))
        ]
        return tuple(found)

    def objection(self, recording: Recording) -> str | None:
        """How a statement contradicts this baseline, or None."""
        return contradiction(recording, self.baseline, self.digest, self.on)

    @property
    def by(self) -> str:
        """Who signed it, in words."""
        return signers(self.valid, self.files, trusted=self.trusted)


def is_baseline(directory: Path) -> bool:
    """Whether a directory is a baseline, and no bundle that was judged by one."""
    return (directory / BASELINE).is_file() and not (directory / ENVIRONMENT).exists()


def read_signed_baseline(directory: Path, trust: Trust | None, at: datetime) -> SignedBaseline:
    """A baseline with its statements; without a trust file no signature is checked.

    Raises:
        EvidenceError: it is no baseline, or it was changed.
    """
    baseline = read_baseline(directory)
    envelopes = envelopes_of(directory)
    return SignedBaseline(
        path=directory,
        baseline=baseline,
        digest=digest_file(directory / BASELINE),
        on=recorded_on(baseline, read_run(directory / "runs" / REFERENCE)),
        files=len(envelopes),
        trusted=trust is not None,
        statements=verify_all(envelopes, trust, at) if trust else NOTHING_SIGNED,
    )


def check_about(found: SignedBaseline) -> None:
    """Rejects a baseline with a statement that is not about it, whoever signed it.

    Raises:
        EvidenceError: and which statement.
        AttestationError: a file of `attestations/` is no signed statement.
    """
    for data in envelopes_of(found.path):
        unverified = read(data)
        statement = unverified.statement
        if isinstance(statement, Withdrawal):
            continue
        why = found.objection(statement) if isinstance(statement, Recording) else "is about a bundle, not a baseline"
        if why:
            raise EvidenceError(f"The signed statement {unverified.digest[:12]} of {found.path} {why}.")


def recording_of(found: SignedBaseline, role: Role, stated_at: datetime) -> Recording:
    """The only statement that a role can sign about a baseline: what it states itself."""
    return _recording(found.baseline, found.digest, found.on, role, stated_at)


def _recording(baseline: Baseline, digest: str, on: str, role: Role, stated_at: datetime) -> Recording:
    return Recording(
        baseline_digest=digest,
        case_name=baseline.case,
        case_digest=baseline.case_digest,
        author=baseline.author,
        recorded=baseline.recorded,
        recorded_on=on,
        role=role,
        stated_at=stated_at,
    )


def contradiction(recording: Recording, baseline: Baseline, digest: str, on: str) -> str | None:
    """How a statement contradicts a baseline, or None."""
    if recording.baseline_digest != digest:
        return "is about another baseline"
    if recording != _recording(baseline, digest, on, recording.role, recording.stated_at):
        return "does not match what the baseline states"
    return None


def baseline_objection(recording: Recording, bundle: Bundle) -> str | None:
    """Why a statement about a baseline does not count in a bundle, or None."""
    if bundle.baseline is None:
        return "is about a baseline, and this bundle has none"
    return contradiction(recording, bundle.baseline, digest_file(bundle.path / BASELINE), recorded_where(bundle) or "")


def valid_recordings(submission: Submission) -> tuple[Signed[Recording], ...]:
    """The signatures that vouch for the baseline of a bundle."""
    return tuple(
        one for one in submission.statements.recordings if baseline_objection(one.statement, submission.bundle) is None
    )


def vouched_for(submission: Submission) -> str:
    """Who signed the baseline of a bundle, in words."""
    about = [one for one in map(_read_or_none, envelopes_of(submission.bundle.path)) if isinstance(one, Recording)]
    return signers(valid_recordings(submission), len(about), trusted=submission.trust is not None)


def _read_or_none(data: bytes) -> object:
    """The statement of an envelope, not verified; None where it is none."""
    try:
        return read(data).statement
    except AttestationError:
        return None


def signers(valid: Sequence[Signed[Recording]], files: int, *, trusted: bool) -> str:
    """Who signed a baseline, in words."""
    if valid:
        return "signed by " + ", ".join(
            f"{one.person} as {one.statement.role} on {one.statement.stated_at:%Y-%m-%d}" for one in valid
        )
    if files and not trusted:
        return "signed, and no signature was checked: no trust file was given"
    return "signed by no one who is trusted" if files else "not signed"


def by_team(valid: Iterable[Signed[Recording]]) -> list[str]:
    """The people of a team among those who signed a baseline."""
    return sorted({one.person for one in valid if one.statement.role in TEAM})


def recorded_words(baseline: Baseline, on: str | None) -> str:
    """Who recorded a baseline, when and on what, in words."""
    return f"recorded {baseline.recorded} by {baseline.author} on {on or 'a device that was not stated'}"


def recorded_where(bundle: Bundle) -> str | None:
    """The device that the baseline of a bundle was recorded on, in words; None where it has no baseline."""
    if bundle.baseline is None or (run := bundle.runs.get(REFERENCE)) is None:
        return None
    return recorded_on(bundle.baseline, run)


def recorded_on(baseline: Baseline, reference: Run) -> str:
    """The device that a baseline was recorded on, in words: `CPU (AMD EPYC), 1 process, torch 2.13.0+cpu`."""
    stated: Mapping[str, Any] = reference.trace.header.provenance if reference.trace else {}
    environment = baseline.environment
    device = environment.machine.get("reference_device", "CPU")
    chip = stated.get("gpu") or stated.get("npu") or environment.machine.get("processor")
    processes = environment.machine.get("reference_processes", 1)
    torch = environment.packages.get("torch")
    words = [
        f"{device} ({chip})" if chip else f"{device}",
        f"{processes} process{'es' * (processes != 1)}",
        *([f"torch {torch}"] if torch else []),
    ]
    return ", ".join(words)
