"""Signed statements of a role over an evidence bundle or a baseline, and which of them are valid on a day.

Takes digests, a private key and a trust file. Writes in-toto statements in DSSE envelopes, signed with ed25519. Rejects
a statement in another form than the one written here, by a key that is not trusted, in a role that the key does not
have, or on a day on which the key was not valid. Nothing here reads a bundle or decides a level.

Times are UTC. A date covers the whole day, from 00:00:00 UTC. A statement, also a withdrawal, can be deleted from a
directory without a trace: record in the trust file what must not be lost.
"""

from harness.attestation.envelope import MAX_BYTES, PAYLOAD_TYPE, Unverified, read, sign
from harness.attestation.keys import keygen
from harness.attestation.statements import Claim, Recording, Result, Role, Statement, Waiver, Withdrawal
from harness.attestation.trust import Trust, TrustedKey, WithdrawnKey, load_trust
from harness.attestation.verification import (
    Attestation,
    Refused,
    Signed,
    VerifiedStatements,
    Withdrawn,
    verify,
    verify_all,
)

__all__ = [
    "MAX_BYTES",
    "PAYLOAD_TYPE",
    "Attestation",
    "Claim",
    "Recording",
    "Refused",
    "Result",
    "Role",
    "Signed",
    "Statement",
    "Trust",
    "TrustedKey",
    "Unverified",
    "VerifiedStatements",
    "Waiver",
    "Withdrawal",
    "Withdrawn",
    "WithdrawnKey",
    "keygen",
    "load_trust",
    "read",
    "sign",
    "verify",
    "verify_all",
]
