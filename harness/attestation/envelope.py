"""The envelope of a statement: signed, and read back strictly. Who signed it is not checked here."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from securesystemslib.dsse import Envelope

from harness.attestation.keys import signer_of
from harness.attestation.statements import Sha256, Statement, checked, decode, encode, problems_of
from harness.base.digest import canonical_json, digest_bytes
from harness.base.errors import AttestationError
from harness.base.yaml_records import Record

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 1 << 16  # an attestation of a hundred criteria is about 10 kB


class _Signature(Record):
    keyid: Sha256
    sig: str


class _EnvelopeContent(Record):
    payload: str
    payloadType: str
    signatures: tuple[_Signature]


@dataclass(frozen=True, kw_only=True)
class Unverified:
    """The content of an envelope before its signature is checked. `digest` is the SHA-256 of its file."""

    digest: str
    key_id: str
    statement: Statement
    envelope: Envelope = field(repr=False)


def file_of(envelope: Envelope) -> bytes:
    return (canonical_json(envelope.to_dict()) + "\n").encode()


def untrusted(digest: str, why: str) -> AttestationError:
    # the names of unknown fields come from the file, and the message goes to a terminal
    visible = "".join(sign if sign.isprintable() else "?" for sign in why[:1000])
    return AttestationError(f"The signed statement {digest[:12]} does not count: {visible}.")


def sign(statement: Statement, key_file: Path) -> bytes:
    """The bytes of an envelope's file: canonical JSON with a final newline.

    Source: DSSE 1.0; ed25519 signs its pre-authentication encoding.

    Raises:
        InputError: the key cannot be used.
        AttestationError: the statement breaks a rule, or is too long to be read back.
    """
    try:
        payload = encode(checked(type(statement), vars(statement)))
    except ValueError as error:
        raise AttestationError(f"This cannot be signed: {error}.") from None
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer_of(key_file))
    data = file_of(envelope)
    read(data)
    return data


def read(data: bytes) -> Unverified:
    """The content of an envelope's file. Its signature is not checked: show it, never rely on it.

    Strict: at most `MAX_BYTES`, one signature, and exactly the bytes that `sign` writes for this content, so that no
    changed byte and no added field goes unnoticed.

    Raises:
        AttestationError: the file is anything else.
    """
    digest = digest_bytes(data)
    if len(data) > MAX_BYTES:
        raise untrusted(digest, f"its file has more than the {MAX_BYTES} bytes of a statement")
    try:
        content = _EnvelopeContent.model_validate_json(data)
    except ValidationError as error:
        raise untrusted(
            digest, "its file is not an envelope with one signature: " + "; ".join(problems_of(error))
        ) from None
    if content.payloadType != PAYLOAD_TYPE:
        raise untrusted(digest, f"its payload type is {content.payloadType!r:.100}, not {PAYLOAD_TYPE!r}")
    try:
        envelope = Envelope.from_dict(content.model_dump())
        canonical = file_of(envelope) == data
    except ValueError:
        canonical = False
    if not canonical:
        raise untrusted(digest, "its file is not in the form that this tool writes: it was edited or reformatted")
    try:
        statement = decode(envelope.payload)
    except ValueError as error:
        raise untrusted(digest, f"its payload is not a statement of this tool: {error}") from None
    return Unverified(digest=digest, key_id=content.signatures[0].keyid, statement=statement, envelope=envelope)
