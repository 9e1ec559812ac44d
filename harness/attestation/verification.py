"""Which statements are valid at a moment, by a trust file, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeGuard

from securesystemslib.exceptions import UnverifiedSignatureError

from harness.attestation.envelope import Unverified, read, untrusted
from harness.attestation.statements import Claim, Recording, S, Statement, Waiver, Withdrawal, day_of, time_text
from harness.attestation.trust import Trust, TrustedKey
from harness.base.digest import digest_bytes
from harness.base.errors import AttestationError


@dataclass(frozen=True, kw_only=True)
class Signed(Generic[S]):
    """A verified statement: who signed it with which key, and the SHA-256 of its envelope's file."""

    statement: S
    person: str
    key_id: str
    digest: str


Attestation = Signed[Claim]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An envelope that is not valid, by the SHA-256 of its file, and why."""

    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """A statement that was valid until it was withdrawn, and its withdrawal."""

    signed: Signed[Claim | Recording | Waiver]
    by: Signed[Withdrawal]


@dataclass(frozen=True, kw_only=True)
class VerifiedStatements:
    """A set of envelopes, verified at a moment; each distinct file is in one of these, once."""

    attestations: tuple[Attestation, ...]
    waivers: tuple[Signed[Waiver], ...]
    withdrawn: tuple[Withdrawn, ...]
    refused: tuple[Refused, ...]
    recordings: tuple[Signed[Recording], ...] = ()


def _objection(unverified: Unverified, key: TrustedKey, trust: Trust, at: datetime) -> str | None:
    """Why a statement with a good signature does not count at a moment."""
    statement = unverified.statement
    withdrawn = trust.withdrawal_of(unverified.key_id)
    if withdrawn and withdrawn.date <= day_of(at):
        return f"{key.person}'s key was withdrawn on {withdrawn.date} ({withdrawn.reason}); sign again with another key"
    if not isinstance(statement, Withdrawal) and statement.role not in key.roles:
        return f"{key.person} signed as {statement.role}, but the key has only: {', '.join(key.roles)}"
    stated = day_of(statement.stated_at)
    if not key.valid_from <= stated <= key.valid_until:
        return (
            f"it is stated on {stated}, but {key.person}'s key is valid from {key.valid_from} to {key.valid_until}; "
            "sign again with a valid key"
        )
    if statement.stated_at > at:
        return f"it is stated at {time_text(statement.stated_at)}, after {time_text(at)}; check the signer's clock"
    if isinstance(statement, Waiver) and statement.until < day_of(at):
        return (
            f"the waiver of {statement.criterion} ended on {statement.until}; meet the criterion, or sign a new waiver"
        )
    return None


def _verify(data: bytes, trust: Trust, at: datetime) -> Signed[Statement]:
    unverified = read(data)
    key = trust.find(unverified.key_id)
    if key is None:
        raise untrusted(
            unverified.digest,
            f"the trust file has no key {unverified.key_id}; add it if you know its owner",
        )
    try:
        unverified.envelope.verify([key.public_key], threshold=1)
    except UnverifiedSignatureError:
        raise untrusted(unverified.digest, f"its signature does not match {key.person}'s key: it was edited") from None
    if objection := _objection(unverified, key, trust, at):
        raise untrusted(unverified.digest, objection)
    return Signed(statement=unverified.statement, person=key.person, key_id=unverified.key_id, digest=unverified.digest)


def _is(signed: Signed[Any], kind: type[S]) -> TypeGuard[Signed[S]]:
    return isinstance(signed.statement, kind)


def verify(data: bytes, trust: Trust, at: datetime) -> Attestation:
    """The attestation of an envelope's file, verified at a moment (with time zone).

    A trusted key with the claimed role signed it; the key was valid on the stated day and is not withdrawn on the day
    of `at`; it is stated neither before the run started nor after `at`. It stays valid after the key expires, since
    keys rotate; a level has its own expiry. An earlier `at` gives the result of that moment. `verify_all` also applies
    withdrawals.

    Raises:
        AttestationError: it is not valid, and why.
    """
    signed = _verify(data, trust, at)
    if not _is(signed, Claim):
        raise untrusted(signed.digest, f"it is a {type(signed.statement).__name__.lower()}, not an attestation")
    return signed


def verify_all(envelopes: Sequence[bytes], trust: Trust, at: datetime) -> VerifiedStatements:
    """The statements of these envelope files, verified at a moment (with time zone).

    Each is verified as by `verify`; a waiver is valid only until its end. A withdrawal counts from its stated moment
    on. It is rejected if it names no valid statement here, or if its signer may not withdraw that statement. A file
    that is given twice counts once.
    """
    verified: dict[str, Signed[Statement]] = {}
    refused: dict[str, str] = {}
    for data in envelopes:
        try:
            signed = _verify(data, trust, at)
        except AttestationError as error:
            refused[digest_bytes(data)] = str(error)
        else:
            verified[signed.digest] = signed
    targets: dict[str, Signed[Claim | Recording | Waiver]] = {
        digest: signed
        for digest, signed in verified.items()
        if _is(signed, Claim) or _is(signed, Recording) or _is(signed, Waiver)
    }
    withdrawn = []
    for withdrawal in [signed for signed in verified.values() if _is(signed, Withdrawal)]:
        target = targets.get(withdrawal.statement.withdraws)
        if target is not None and _may_withdraw(withdrawal, target, trust):
            withdrawn.append(Withdrawn(signed=target, by=withdrawal))
            continue
        why = "it withdraws no valid statement here"
        if target is not None:
            why = f"{withdrawal.person} is not {target.person} and does not have the role {target.statement.role}"
        refused[withdrawal.digest] = str(untrusted(withdrawal.digest, why))
    gone = {entry.signed.digest for entry in withdrawn}
    left = [signed for digest, signed in verified.items() if digest not in gone]
    return VerifiedStatements(
        attestations=tuple(signed for signed in left if _is(signed, Claim)),
        waivers=tuple(signed for signed in left if _is(signed, Waiver)),
        recordings=tuple(signed for signed in left if _is(signed, Recording)),
        withdrawn=tuple(withdrawn),
        refused=tuple(Refused(digest=digest, reason=reason) for digest, reason in refused.items()),
    )


def _may_withdraw(withdrawal: Signed[Withdrawal], target: Signed[Claim | Recording | Waiver], trust: Trust) -> bool:
    key = trust.find(withdrawal.key_id)
    return withdrawal.person == target.person or (key is not None and target.statement.role in key.roles)
