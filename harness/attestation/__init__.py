"""Signed statements of a role over an evidence bundle, and which of them stand on a day.

Takes digests, a private key and a trust file; gives DSSE envelopes that hold in-toto statements, signed with ed25519,
and refuses whatever cannot be believed: another form than the one written here, a key that is not trusted, a role that
the key does not hold, a date at which it did not hold it. Nothing here reads a bundle or decides a level.

Times are UTC. A day given as a date counts in full, from 00:00:00 UTC to the end of it. A statement can be taken away
from a directory without a trace, a withdrawal too: what must not be forgotten belongs into the trust file.
"""

from harness.attestation.envelope import MAX_BYTES, PAYLOAD_TYPE, Unverified, read, sign
from harness.attestation.keys import keygen
from harness.attestation.statements import Claim, Result, Role, Statement, Waiver, Withdrawal
from harness.attestation.trust import Trust, TrustedKey, WithdrawnKey, load_trust
from harness.attestation.verification import Attestation, Refused, Signed, Standing, Withdrawn, standing, verify

__all__ = [
    "MAX_BYTES",
    "PAYLOAD_TYPE",
    "Attestation",
    "Claim",
    "Refused",
    "Result",
    "Role",
    "Signed",
    "Standing",
    "Statement",
    "Trust",
    "TrustedKey",
    "Unverified",
    "Waiver",
    "Withdrawal",
    "Withdrawn",
    "WithdrawnKey",
    "keygen",
    "load_trust",
    "read",
    "sign",
    "standing",
    "verify",
]
