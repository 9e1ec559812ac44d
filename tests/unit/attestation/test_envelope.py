"""Envelopes: what is signed is what is read, and no byte of it changes unseen."""

import base64
import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.attestation import MAX_BYTES, PAYLOAD_TYPE, Claim, Result, Role, Trust, read, sign, verify
from harness.base.digest import canonical_json, digest_bytes
from harness.base.errors import AttestationError
from tests.support.properties import examples
from tests.support.signing import (
    CLAIM,
    NOON,
    WAIVER,
    payload_of,
    refused,
    sealed,
)


def test_an_attestation_comes_back_as_it_was_signed(office: Path, trust: Trust, envelope: bytes) -> None:
    attestation = verify(envelope, trust, NOON)
    assert attestation.statement == CLAIM
    assert attestation.person == "li"
    assert attestation.key_id == read(envelope).key_id
    assert attestation.digest == digest_bytes(envelope)


LINES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
MOMENTS = st.datetimes(
    datetime(2026, 1, 2),
    datetime(2026, 12, 30),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-3, minutes=-30))]),
)


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    criteria = draw(st.lists(LINES, min_size=1, max_size=6, unique=True))
    cuts = sorted(draw(st.tuples(st.integers(0, len(criteria)), st.integers(0, len(criteria)))))
    return Claim(
        manifest_digest=draw(DIGESTS),
        record_digest=draw(DIGESTS),
        case_name=draw(LINES),
        case_digest=draw(DIGESTS),
        standards=draw(st.dictionaries(LINES, DIGESTS, min_size=1, max_size=3)),
        passed=tuple(criteria[: cuts[0]]),
        warned=tuple(criteria[cuts[0] : cuts[1]]),
        failed=tuple(criteria[cuts[1] :]),
        run_started=draw(MOMENTS).astimezone(UTC).replace(year=2025).isoformat(),
        scope=draw(LINES),
        role=Role.DEV_TEAM,
        stated_at=draw(MOMENTS),
    )


@given(claim=claims())
def test_every_claim_comes_back_as_it_was_signed(office: Path, trust: Trust, claim: Claim) -> None:
    envelope = sign(claim, office / "li.key")
    assert verify(envelope, trust, claim.stated_at).statement == claim


def test_the_same_claim_and_key_give_the_same_bytes(office: Path, envelope: bytes) -> None:
    other_order = dataclasses.replace(CLAIM, standards=dict(reversed(CLAIM.standards.items())))
    elsewhere = dataclasses.replace(CLAIM, stated_at=NOON.astimezone(timezone(timedelta(hours=8))))
    assert sign(other_order, office / "li.key") == sign(elsewhere, office / "li.key") == envelope


def test_the_statement_speaks_the_words_of_the_specification(envelope: bytes) -> None:
    def resource(name: str, sign: str) -> dict[str, Any]:
        return {"name": name, "digest": {"sha256": sign * 64}}

    assert payload_of(envelope) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                **resource("manifest.json", "a"),
                "annotations": {
                    "role": "dev-team",
                    "run_started": "2026-06-15T10:00:00+00:00",
                    "scope": "CPU, one process, float32",
                    "stated_at": "2026-06-15T12:00:00+00:00",
                },
            },
            resource("record.json", "b"),
        ],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "WARNED",
            "configuration": [
                resource("case/qwen3-tiny-fp32", "c"),
                resource("standard/official", "d"),
                resource("standard/strict-fp32", "e"),
            ],
            "passedTests": ["official/converges", "official/tokens"],
            "warnedTests": ["strict-fp32/loss"],
            "failedTests": [],
        },
    }
    assert json.loads(envelope)["payloadType"] == "application/vnd.in-toto+json"


@pytest.mark.parametrize(
    ("warned", "failed", "result"),
    [((), (), Result.PASSED), (("w",), (), Result.WARNED), (("w",), ("f",), Result.FAILED), ((), ("f",), "FAILED")],
)
def test_the_result_is_that_of_the_worst_criterion(warned: tuple[str], failed: tuple[str], result: str) -> None:
    assert dataclasses.replace(CLAIM, warned=warned, failed=failed).result == result


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("manifest_digest", "a" * 63, "manifest_digest"),
        ("record_digest", "B" * 64, "record_digest"),
        ("case_name", "", "case_name"),
        ("standards", {}, "standards"),
        ("standards", {"official": "d"}, "standards.official"),
        ("passed", ("strict-fp32/loss",), "twice: strict-fp32/loss"),
        ("scope", "CPU\nlevel: Released", "scope"),
        ("scope", "\x1b[2J", "scope"),
        ("scope", "CPU\u202e", "scope"),
        ("scope", " CPU", "scope"),
        ("role", "boss", "role"),
        ("run_started", "2026-06-15T10:00:00", "run_started"),
        ("run_started", "2026-06-15T10:00:00+08:00", "run_started"),
        ("run_started", "yesterday", "run_started"),
        ("run_started", "2026-06-15T12:00:01+00:00", "before the run started"),
        ("stated_at", datetime(2026, 6, 15, 12), "stated_at"),
        ("passed", tuple(map(str, range(MAX_BYTES))), "more than"),
    ],
)
def test_an_unsound_claim_is_not_signed(office: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(AttestationError, match=message):
        sign(dataclasses.replace(CLAIM, **{field: value}), office / "li.key")


def test_a_claim_without_a_criterion_is_not_signed(office: Path) -> None:
    with pytest.raises(AttestationError, match="names no criterion"):
        sign(dataclasses.replace(CLAIM, passed=(), warned=()), office / "li.key")


def test_an_attestation_of_another_bundle_does_not_apply(trust: Trust, envelope: bytes) -> None:
    claim = verify(envelope, trust, NOON).statement
    assert claim.applies_to(manifest_digest="a" * 64, record_digest="b" * 64)
    assert not claim.applies_to(manifest_digest="f" * 64, record_digest="b" * 64)
    assert not claim.applies_to(manifest_digest="a" * 64, record_digest="f" * 64)


def edits(data: bytes, index: int) -> list[bytes]:
    """Two flips of the byte at a place, its removal, a double of it and a foreign byte before it."""
    head, byte, tail = data[:index], data[index], data[index + 1 :]
    flips = [head + bytes([byte ^ bit]) + tail for bit in (1, 32)]
    return [*flips, head + tail, head + bytes([byte, byte]) + tail, head + b"A" + data[index:]]


def test_no_byte_of_an_envelope_can_change_go_or_come(trust: Trust, envelope: bytes) -> None:
    for index in range(len(envelope)):
        for edited in edits(envelope, index):
            assert edited != envelope and refused(edited, trust), f"at byte {index}"


@settings(max_examples=examples(500))
@given(data=st.data())
def test_no_other_byte_fits_anywhere(trust: Trust, envelope: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(envelope)))
    end = data.draw(st.integers(start, min(start + 4, len(envelope))))
    edited = envelope[:start] + data.draw(st.binary(max_size=4)) + envelope[end:]
    if edited != envelope:
        assert refused(edited, trust)


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_is_no_envelope_is_refused_in_words(data: bytes) -> None:
    with pytest.raises(AttestationError, match="does not count"):
        read(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(data=st.data())
def test_no_value_of_a_payload_can_be_another(office: Path, trust: Trust, envelope: bytes, data: st.DataObject) -> None:
    payload = payload_of(envelope)
    place: Any = payload
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    edited = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        signed = sealed(office, edited.encode())
    except UnicodeEncodeError:
        return
    try:
        statement = verify(signed, trust, NOON).statement
    except AttestationError:
        return
    # what is still a claim has exactly the content of its payload
    assert sign(statement, office / "li.key") == signed


def add(*path: Any) -> Callable[[dict[str, Any]], None]:
    def edit(payload: dict[str, Any]) -> None:
        place: Any = payload
        for key in path:
            place = place[key]
        place.append("more") if isinstance(place, list) else place.update(more=1)

    return edit


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def edit(payload: dict[str, Any]) -> None:
        place: Any = payload
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return edit


PLACES: list[tuple[Any, ...]] = [
    (), ("subject", 0), ("subject", 0, "digest"), ("subject", 0, "annotations"), ("subject", 1), ("predicate",),
    ("predicate", "configuration", 0), ("predicate", "configuration", 0, "digest"), ("predicate", "configuration", 1),
]  # fmt: skip
FIELDS: list[tuple[Any, ...]] = [
    ("_type",), ("subject",), ("predicateType",), ("predicate",), ("subject", 0), ("subject", 1),
    ("subject", 0, "name"), ("subject", 0, "digest"), ("subject", 0, "annotations"), ("subject", 1, "name"),
    *(("subject", 0, "annotations", key) for key in ("role", "run_started", "scope", "stated_at")),
    *(("predicate", key) for key in ("result", "configuration", "passedTests", "warnedTests", "failedTests")),
    ("predicate", "configuration", 0), ("predicate", "configuration", 0, "name"),
]  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        *(pytest.param(add(*path), id=f"more in {'.'.join(map(str, path)) or 'payload'}") for path in PLACES),
        *(pytest.param(drop(*path), id=f"without {'.'.join(map(str, path))}") for path in FIELDS),
        pytest.param(lambda p: p["subject"].append(p["subject"][0]), id="three subjects"),
        pytest.param(lambda p: p["subject"].reverse(), id="subjects exchanged"),
        pytest.param(lambda p: p["predicate"]["configuration"].reverse(), id="configuration reordered"),
        pytest.param(lambda p: p["predicate"].update(result="PASSED"), id="result better than the criteria"),
        pytest.param(lambda p: p.update(_type="https://in-toto.io/Statement/v0.1"), id="older statement"),
    ],
)
def test_a_well_signed_payload_of_another_form_is_refused(
    office: Path, trust: Trust, envelope: bytes, edit: Callable[[dict[str, Any]], None]
) -> None:
    payload = payload_of(envelope)
    edit(payload)
    assert "payload" in refused(sealed(office, canonical_json(payload).encode()), trust)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda text: text.replace('"result":', '"result":"PASSED","result":'), id="key twice"),
        pytest.param(lambda text: text.replace(":", ": "), id="white space"),
        pytest.param(lambda text: text + "\n", id="newline"),
        pytest.param(lambda text: text.replace('"WARNED"', "NaN"), id="not a number"),
        pytest.param(lambda text: text.replace("CPU", "\\u0043PU"), id="escaped letter"),
        pytest.param(lambda text: text.replace("CPU", "\\ud800"), id="half of a letter"),
        pytest.param(lambda text: text.replace("12:00:00+00:00", "12:00:00Z"), id="time written otherwise"),
        pytest.param(lambda text: text.replace("12:00:00+00:00", "20:00:00+08:00"), id="time of another zone"),
        pytest.param(lambda text: text.replace("2026-06-15T12:00:00+00:00", "0001-01-01T00:00:00+14:00"), id="year 0"),
        pytest.param(lambda text: "[" * 20_000, id="deep"),
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "[]", id="list"),
        pytest.param(lambda text: '{"predicateType":[]}', id="list as kind"),
    ],
)
def test_a_well_signed_payload_in_another_writing_is_refused(
    office: Path, trust: Trust, envelope: bytes, edit: Callable[[str], str]
) -> None:
    text = canonical_json(payload_of(envelope))
    assert edit(text) != text
    assert "payload" in refused(sealed(office, edit(text).encode()), trust)


def test_a_statement_of_another_kind_is_refused(office: Path, trust: Trust, envelope: bytes) -> None:
    payload = payload_of(envelope) | {"predicateType": "https://slsa.dev/provenance/v1"}
    assert "unknown kind 'https://slsa.dev" in refused(sealed(office, canonical_json(payload).encode()), trust)
    payload = payload_of(envelope) | {"predicateType": payload_of(sign(WAIVER, office / "wu.key"))["predicateType"]}
    assert refused(sealed(office, canonical_json(payload).encode()), trust)
    assert "is a waiver, not an attestation" in refused(sign(WAIVER, office / "wu.key"), trust)


def test_a_signature_over_another_payload_type_is_refused(office: Path, trust: Trust, envelope: bytes) -> None:
    payload = base64.b64decode(json.loads(envelope)["payload"])
    other = sealed(office, payload, "text/plain")
    assert "payload type is 'text/plain'" in refused(other, trust)
    relabelled = other.replace(b"text/plain", PAYLOAD_TYPE.encode())
    assert "signature" in refused(relabelled, trust)


def test_there_is_one_signature(office: Path, trust: Trust, envelope: bytes) -> None:
    payload = base64.b64decode(json.loads(envelope)["payload"])
    assert "signatures" in refused(sealed(office, payload, names=("li", "wu")), trust)
    assert "signatures" in refused(sealed(office, payload, names=("wu", "li")), trust)
    content = json.loads(envelope)
    for signatures in ([], content["signatures"] * 2):
        assert "signatures" in refused((canonical_json(content | {"signatures": signatures}) + "\n").encode(), trust)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda c: c.update(more=1), id="field of the envelope"),
        pytest.param(lambda c: c["signatures"][0].update(cert="x"), id="field of the signature"),
        pytest.param(lambda c: c["signatures"][0].pop("keyid"), id="no key id"),
        pytest.param(lambda c: c["signatures"][0].update(sig=""), id="no signature"),
        pytest.param(lambda c: c["signatures"][0].update(sig="A"), id="not base64"),
        pytest.param(lambda c: c.update(payload=c["payload"].replace("+", "-").replace("/", "_") + "_-__"), id="url"),
        pytest.param(lambda c: c.pop("payloadType"), id="no payload type"),
    ],
)
def test_an_envelope_of_another_form_is_refused(
    trust: Trust, envelope: bytes, edit: Callable[[dict[str, Any]], None]
) -> None:
    content = json.loads(envelope)
    edit(content)
    assert refused((canonical_json(content) + "\n").encode(), trust)


def test_slack_bits_of_base64_are_not_free(trust: Trust, envelope: bytes) -> None:
    sig = json.loads(envelope)["signatures"][0]["sig"]
    raw = base64.b64decode(sig)
    same = [
        sig[:-3] + letter + "=="
        for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        if base64.b64decode(sig[:-3] + letter + "==") == raw and sig[-3] != letter
    ]
    assert len(same) == 15
    for other in same:
        assert "edited or reformatted" in refused(envelope.replace(sig.encode(), other.encode()), trust)


def test_a_message_cannot_steer_a_terminal(trust: Trust, envelope: bytes) -> None:
    content = json.loads(envelope) | {"\x1b[2J\nlevel: Released\u202e": 1, "long" * 1000: 2}
    message = refused((canonical_json(content) + "\n").encode(), trust)
    assert message.isprintable() and len(message) < 1200


def test_a_long_file_is_not_even_parsed(trust: Trust) -> None:
    assert f"more than the {MAX_BYTES}" in refused(b"[" * (MAX_BYTES + 1), trust)
