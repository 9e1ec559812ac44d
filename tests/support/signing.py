"""People with keys, a claim and a waiver, and envelopes made by other tools: for tests of what is signed."""

import base64
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from harness.attestation import PAYLOAD_TYPE, Claim, Role, Trust, Waiver, load_trust, read, sign, verify
from harness.base.digest import canonical_json
from harness.base.errors import AttestationError

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
YEAR = {"valid_from": date(2026, 1, 1), "valid_until": date(2026, 12, 31)}
PEOPLE = {"li": "dev-team", "chen": "dev-team", "wu": "test-team", "dev": "developer"}

CLAIM = Claim(
    manifest_digest="a" * 64,
    record_digest="b" * 64,
    case_name="qwen3-tiny-fp32",
    case_digest="c" * 64,
    standards={"strict-fp32": "e" * 64, "official": "d" * 64},
    passed=("official/converges", "official/tokens"),
    warned=("strict-fp32/loss",),
    failed=(),
    run_started="2026-06-15T10:00:00+00:00",
    scope="CPU, one process, float32",
    role=Role.DEV_TEAM,
    stated_at=NOON,
)
WAIVER = Waiver(
    criterion="strict-fp32/loss",
    case_digest="c" * 64,
    reason="the kernel is replaced in the next release",
    until=date(2026, 7, 15),
    role=Role.TEST_TEAM,
    stated_at=NOON,
    scope="CPU, one process, float32",
    bundle="a" * 64,
)


def key_id(office: Path, name: str) -> str:
    return read(sign(CLAIM, office / f"{name}.key")).key_id


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {"person": name, "public_key": f"{name}.pub", "roles": [PEOPLE.get(name, "developer")], **YEAR, **changes}


def trusted(office: Path, keys: Any = None, **more: Any) -> Trust:
    """The trust file with these keys, or with all of the people's."""
    path = office / "trust.yaml"
    path.write_text(yaml.safe_dump({"keys": [entry(name) for name in PEOPLE] if keys is None else keys, **more}))
    return load_trust(path)


def signer(office: Path, name: str) -> CryptoSigner:
    return CryptoSigner(load_pem_private_key((office / f"{name}.key").read_bytes(), None))


def sealed(office: Path, payload: bytes, payload_type: str = PAYLOAD_TYPE, names: tuple[str, ...] = ("li",)) -> bytes:
    """Any payload in a well-signed envelope, as someone with a key but another tool could make it."""
    envelope = Envelope(payload, payload_type, {})
    for name in names:
        envelope.sign(signer(office, name))
    return (canonical_json(envelope.to_dict()) + "\n").encode()


def payload_of(envelope: bytes) -> dict[str, Any]:
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


def refused(envelope: bytes, trust: Trust, at: datetime = NOON) -> str:
    with pytest.raises(AttestationError) as error:
        verify(envelope, trust, at)
    return str(error.value)
