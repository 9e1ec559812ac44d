"""Attestations: what is signed is what is read, no byte changes unseen, and only who may speak is believed."""

import base64
import dataclasses
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from harness.attestation import (
    MAX_BYTES,
    PAYLOAD_TYPE,
    Claim,
    Result,
    Role,
    Standing,
    Trust,
    Waiver,
    Withdrawal,
    keygen,
    load_trust,
    read,
    sign,
    standing,
    verify,
)
from harness.digest import canonical_json, digest_bytes
from harness.errors import AttestationError, InputError

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
)


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a key pair for each of the people, and one for a stranger."""
    directory = tmp_path_factory.mktemp("office")
    for name in (*PEOPLE, "stranger"):
        keygen(directory / name)
    return directory


def key_id(office: Path, name: str) -> str:
    return read(sign(CLAIM, office / f"{name}.key")).key_id


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {"person": name, "public_key": f"{name}.pub", "roles": [PEOPLE.get(name, "developer")], **YEAR, **changes}


def trusted(office: Path, keys: Any = None, **more: Any) -> Trust:
    """The trust file with these keys, or with all of the people's."""
    path = office / "trust.yaml"
    path.write_text(yaml.safe_dump({"keys": [entry(name) for name in PEOPLE] if keys is None else keys, **more}))
    return load_trust(path)


@pytest.fixture(scope="session")
def trust(office: Path) -> Trust:
    return trusted(office)


@pytest.fixture(scope="session")
def envelope(office: Path) -> bytes:
    return sign(CLAIM, office / "li.key")


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


# What is signed is what is read


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
    ("field", "value", "told"),
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
def test_an_unsound_claim_is_not_signed(office: Path, field: str, value: Any, told: str) -> None:
    with pytest.raises(AttestationError, match=told):
        sign(dataclasses.replace(CLAIM, **{field: value}), office / "li.key")


def test_a_claim_without_a_criterion_is_not_signed(office: Path) -> None:
    with pytest.raises(AttestationError, match="names no criterion"):
        sign(dataclasses.replace(CLAIM, passed=(), warned=()), office / "li.key")


def test_an_attestation_of_another_bundle_does_not_apply(trust: Trust, envelope: bytes) -> None:
    claim = verify(envelope, trust, NOON).statement
    assert claim.applies_to(manifest_digest="a" * 64, record_digest="b" * 64)
    assert not claim.applies_to(manifest_digest="f" * 64, record_digest="b" * 64)
    assert not claim.applies_to(manifest_digest="a" * 64, record_digest="f" * 64)


# No byte changes unseen


def edits(data: bytes, index: int) -> list[bytes]:
    """Two flips of the byte at a place, its removal, a double of it and a foreign byte before it."""
    head, byte, tail = data[:index], data[index], data[index + 1 :]
    flips = [head + bytes([byte ^ bit]) + tail for bit in (1, 32)]
    return [*flips, head + tail, head + bytes([byte, byte]) + tail, head + b"A" + data[index:]]


def test_no_byte_of_an_envelope_can_change_go_or_come(trust: Trust, envelope: bytes) -> None:
    for index in range(len(envelope)):
        for edited in edits(envelope, index):
            assert edited != envelope and refused(edited, trust), f"at byte {index}"


@settings(max_examples=500)
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
    # what is still a claim says exactly what its payload says
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
        assert "edited or re-formatted" in refused(envelope.replace(sig.encode(), other.encode()), trust)


def test_a_message_cannot_steer_a_terminal(trust: Trust, envelope: bytes) -> None:
    content = json.loads(envelope) | {"\x1b[2J\nlevel: Released\u202e": 1, "long" * 1000: 2}
    told = refused((canonical_json(content) + "\n").encode(), trust)
    assert told.isprintable() and len(told) < 1200


def test_a_long_file_is_not_even_parsed(trust: Trust) -> None:
    assert f"more than the {MAX_BYTES}" in refused(b"[" * (MAX_BYTES + 1), trust)


# Only who may speak is believed


def test_a_key_that_is_not_trusted_signs_nothing(office: Path, trust: Trust) -> None:
    assert "no key" in refused(sign(CLAIM, office / "stranger.key"), trust)


def test_a_signature_does_not_pass_for_another_persons(office: Path, trust: Trust) -> None:
    chen, stranger = key_id(office, "chen"), key_id(office, "stranger")
    forged = sign(CLAIM, office / "stranger.key").replace(stranger.encode(), chen.encode())
    assert "not one of chen's key" in refused(forged, trust)


@pytest.mark.parametrize("name", ["wu", "dev"])
def test_a_role_that_the_key_does_not_hold_is_refused(office: Path, trust: Trust, name: str) -> None:
    assert f"signed as dev-team, but the key holds only: {PEOPLE[name]}" in refused(
        sign(CLAIM, office / f"{name}.key"), trust
    )


def test_a_key_may_hold_several_roles(office: Path, envelope: bytes) -> None:
    assert verify(envelope, trusted(office, [entry("li", roles=["test-team", "dev-team"])]), NOON).person == "li"


@pytest.mark.parametrize(
    ("first", "last", "good"),
    [("06-15", "06-15", True), ("06-16", "12-31", False), ("01-01", "06-14", False), ("01-01", "06-15", True)],
)
def test_a_key_speaks_on_its_days_only(office: Path, envelope: bytes, first: str, last: str, good: bool) -> None:
    trust = trusted(office, [entry("li", valid_from=f"2026-{first}", valid_until=f"2026-{last}")])
    if good:
        assert verify(envelope, trust, NOON).person == "li"
    else:
        assert f"valid from 2026-{first} to 2026-{last}" in refused(envelope, trust)


def test_a_statement_outlives_its_key(office: Path, envelope: bytes) -> None:
    trust = trusted(office, [entry("li", valid_until="2026-06-15")])
    assert verify(envelope, trust, NOON + timedelta(days=1000)).person == "li"


def test_the_day_of_a_statement_is_counted_in_utc(office: Path) -> None:
    late = datetime(2026, 6, 16, 1, tzinfo=timezone(timedelta(hours=8)))  # still the 15th in UTC
    trust = trusted(office, [entry("li", valid_until="2026-06-15")])
    assert verify(sign(dataclasses.replace(CLAIM, stated_at=late), office / "li.key"), trust, late)


def test_a_statement_from_the_future_is_refused(trust: Trust, envelope: bytes) -> None:
    assert "after 2026-06-15T11:59:59+00:00" in refused(envelope, trust, NOON - timedelta(seconds=1))


def test_nothing_counts_that_a_withdrawn_key_ever_signed(office: Path, envelope: bytes) -> None:
    entries = [{"key": key_id(office, "li"), "date": "2026-06-20", "reason": "laptop stolen"}]
    trust = trusted(office, withdrawn=entries)
    assert verify(envelope, trust, NOON).person == "li"
    assert verify(envelope, trust, datetime(2026, 6, 19, 23, 59, 59, tzinfo=UTC)).person == "li"
    assert verify(envelope, trust, datetime(2026, 6, 20, 7, 59, tzinfo=timezone(timedelta(hours=8)))).person == "li"
    for at in (datetime(2026, 6, 20, tzinfo=UTC), NOON + timedelta(days=300)):
        assert "withdrawn on 2026-06-20 (laptop stolen)" in refused(envelope, trust, at)


def test_a_new_key_of_the_same_person_is_not_withdrawn_with_the_old(office: Path) -> None:
    trust = trusted(
        office,
        [entry("li"), entry("chen", person="li")],
        withdrawn=[{"key": key_id(office, "li"), "date": "2026-06-01", "reason": "laptop stolen"}],
    )
    assert verify(sign(CLAIM, office / "chen.key"), trust, NOON).person == "li"


# What stands


def by(office: Path, name: str, target: bytes, days: int = 1) -> bytes:
    statement = Withdrawal(
        withdraws=digest_bytes(target), reason="judged the wrong file", stated_at=NOON + timedelta(days=days)
    )
    return sign(statement, office / f"{name}.key")


def summary(standing: Standing) -> tuple[int, int, int, int]:
    return len(standing.attestations), len(standing.waivers), len(standing.withdrawn), len(standing.refused)


@pytest.mark.parametrize(("name", "good"), [("li", True), ("chen", True), ("wu", False), ("dev", False)])
def test_a_statement_is_withdrawn_by_its_person_or_its_role(
    office: Path, trust: Trust, envelope: bytes, name: str, good: bool
) -> None:
    withdrawal = by(office, name, envelope)
    found = standing([withdrawal, envelope], trust, NOON + timedelta(days=2))
    if good:
        assert summary(found) == (0, 0, 1, 0)
        assert found.withdrawn[0].signed.statement == CLAIM
        assert (found.withdrawn[0].by.person, found.withdrawn[0].by.statement.reason) == (name, "judged the wrong file")
    else:
        assert summary(found) == (1, 0, 0, 1)
        assert f"{name} is not li and does not hold the role dev-team" in found.refused[0].reason
        assert found.refused[0].digest == digest_bytes(withdrawal)


def test_a_person_withdraws_with_any_of_its_keys(office: Path, envelope: bytes) -> None:
    trust = trusted(office, [entry("li"), entry("dev", person="li")])
    found = standing([envelope, by(office, "dev", envelope)], trust, NOON + timedelta(days=2))
    assert summary(found) == (0, 0, 1, 0)


def test_a_withdrawal_counts_from_its_own_day_on(office: Path, trust: Trust, envelope: bytes) -> None:
    files = [envelope, by(office, "li", envelope, days=10)]
    assert summary(standing(files, trust, NOON + timedelta(days=9))) == (1, 0, 0, 1)
    assert summary(standing(files, trust, NOON + timedelta(days=10))) == (0, 0, 1, 0)


def test_a_thief_cannot_withdraw(office: Path, envelope: bytes) -> None:
    trust = trusted(office, withdrawn=[{"key": key_id(office, "chen"), "date": "2026-06-01", "reason": "stolen"}])
    assert summary(standing([envelope, by(office, "chen", envelope)], trust, NOON + timedelta(days=2))) == (1, 0, 0, 1)


def test_a_withdrawal_cannot_be_withdrawn(office: Path, trust: Trust, envelope: bytes) -> None:
    first = by(office, "li", envelope)
    second = by(office, "li", first)
    found = standing([second, first, envelope], trust, NOON + timedelta(days=2))
    assert summary(found) == (0, 0, 1, 1)
    assert "withdraws nothing that stands here" in found.refused[0].reason


def test_a_waiver_stands_until_the_end_of_its_day(office: Path, trust: Trust) -> None:
    waiver = sign(WAIVER, office / "wu.key")
    found = standing([waiver], trust, datetime(2026, 7, 15, 23, 59, 59, tzinfo=UTC))
    assert [signed.statement for signed in found.waivers] == [WAIVER]
    found = standing([waiver], trust, datetime(2026, 7, 16, tzinfo=UTC))
    assert summary(found) == (0, 0, 0, 1)
    assert "ended on 2026-07-15" in found.refused[0].reason


def test_a_waiver_can_be_withdrawn(office: Path, trust: Trust) -> None:
    waiver = sign(WAIVER, office / "wu.key")
    files = [waiver, by(office, "wu", waiver)]
    assert summary(standing(files, trust, NOON + timedelta(days=2))) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("role", Role.DEVELOPER, "a developer cannot waive"),
        ("until", date(2026, 6, 14), "before it is stated"),
        ("reason", "", "reason"),
        ("criterion", "a\nb", "criterion"),
        ("case_digest", "c", "case_digest"),
    ],
)
def test_an_unsound_waiver_is_not_signed(office: Path, field: str, value: Any, told: str) -> None:
    with pytest.raises(AttestationError, match=told):
        sign(dataclasses.replace(WAIVER, **{field: value}), office / "wu.key")


def test_a_developer_cannot_waive_with_another_tool(office: Path, trust: Trust) -> None:
    payload = payload_of(sign(WAIVER, office / "wu.key"))
    payload["predicate"]["role"] = "developer"
    found = standing([sealed(office, canonical_json(payload).encode(), names=("dev",))], trust, NOON)
    assert "a developer cannot waive" in found.refused[0].reason


def test_each_file_counts_once_and_none_is_lost(office: Path, trust: Trust, envelope: bytes) -> None:
    waiver, other = sign(WAIVER, office / "wu.key"), sign(CLAIM, office / "chen.key")
    files = [envelope, other, waiver, b"{}", envelope, b"{}", sign(CLAIM, office / "stranger.key")]
    found = standing(files, trust, NOON)
    assert summary(found) == (2, 1, 0, 2)
    assert {signed.person for signed in found.attestations} == {"li", "chen"}
    assert {entry.digest for entry in found.refused} == {digest_bytes(b"{}"), digest_bytes(files[-1])}


@given(order=st.permutations(range(5)))
def test_the_order_of_the_files_does_not_matter(office: Path, trust: Trust, envelope: bytes, order: list[int]) -> None:
    waiver = sign(WAIVER, office / "wu.key")
    files = [
        envelope,
        waiver,
        by(office, "chen", envelope),
        by(office, "wu", envelope),
        sign(CLAIM, office / "chen.key"),
    ]
    found = standing([files[index] for index in order], trust, NOON + timedelta(days=2))
    assert summary(found) == (1, 1, 1, 1)
    assert found.attestations[0].person == "chen"


# Keys


def test_a_private_key_is_its_owners_only_and_a_key_id_is_the_librarys(tmp_path: Path) -> None:
    made = keygen(tmp_path / "li")
    assert stat.S_IMODE((tmp_path / "li.key").stat().st_mode) == 0o600
    assert made == signer(tmp_path, "li").public_key.keyid
    assert (tmp_path / "li.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert (tmp_path / "li.key").read_text().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("there", ["li.key", "li.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError, match="never overwritten"):
        keygen(tmp_path / "li")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "li.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="never overwritten"):
        keygen(tmp_path / "li")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["nowhere/li", "file/li"])
def test_a_directory_that_cannot_hold_keys_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"li\.key cannot be written"):
        keygen(tmp_path / name)


def pem(key: Any, encryption: Any = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def unusable(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError) as error:
        sign(CLAIM, path)
    return str(error.value)


def test_a_key_file_that_cannot_sign_says_why(office: Path, tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    key = tmp_path / "li.key"
    good = load_pem_private_key((office / "li.key").read_bytes(), None)
    assert "holds no private key" in unusable(key, b"")
    assert "holds no private key" in unusable(key, os.urandom(200))
    assert "holds no private key" in unusable(key, (office / "li.key").read_bytes()[:60])
    assert "holds a public key" in unusable(key, (office / "li.pub").read_bytes())
    assert "another algorithm than ed25519" in unusable(key, pem(rsa_key))
    assert "is encrypted" in unusable(key, pem(good, BestAvailableEncryption(b"secret")))


def test_a_key_file_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"li\.key cannot be read: No such file"):
        sign(CLAIM, tmp_path / "li.key")
    with pytest.raises(InputError, match="is not a file"):
        sign(CLAIM, tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_touch_does_not_sign(tmp_path: Path, mode: int) -> None:
    keygen(tmp_path / "li")
    (tmp_path / "li.key").chmod(mode)
    with pytest.raises(InputError, match=rf"permissions {mode:o}\).*chmod 600"):
        sign(CLAIM, tmp_path / "li.key")


# The trust file


def untrusted(office: Path, keys: Any, **more: Any) -> str:
    with pytest.raises(InputError) as error:
        trusted(office, keys, **more)
    return str(error.value)


def test_a_public_key_stands_in_the_trust_file_or_beside_it(office: Path, envelope: bytes) -> None:
    inline = (office / "li.pub").read_text()
    for value in ("li.pub", str(office / "li.pub"), inline):
        assert verify(envelope, trusted(office, [entry("li", public_key=value)]), NOON).person == "li"


def test_all_errors_of_a_trust_file_come_at_once(office: Path) -> None:
    told = untrusted(
        office,
        [
            entry("li", roles=["boss"], valid_until="soon"),
            entry("chen", valid_from=20260101, vaild_until="2027-01-01"),
            entry("wu", valid_from="2027-01-01"),
            {"person": ""},
        ],
        withdrawn=[{"key": "x", "date": "2026-01-01"}],
        revoked=[],
    )
    for place in (
        "keys.0.roles.0", "keys.0.valid_until: expected a day such as", "keys.1.valid_from: expected a day",
        "keys.1.vaild_until", "keys.2: valid_until 2026-12-31 is before valid_from 2027-01-01", "keys.3.person",
        "keys.3.public_key", "keys.3.roles", "withdrawn.0.key", "withdrawn.0.reason", "revoked",
    ):  # fmt: skip
        assert place in told, place
    assert len(told.splitlines()) == 1 + 13


def test_keys_and_their_withdrawals_stand_once(office: Path) -> None:
    li = key_id(office, "li")
    gone = {"key": li, "date": "2026-06-01", "reason": "lost"}
    told = untrusted(
        office, [entry("li"), entry("wu", public_key="li.pub")], withdrawn=[gone, gone, {**gone, "key": "f" * 64}]
    )
    assert f"key {li} stands twice: li, wu" in told
    assert f"key {li} is withdrawn twice" in told
    assert f"withdrawn key {'f' * 64} is none of the keys" in told


def test_a_public_key_that_is_none_says_why(office: Path, tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    other = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    private = (office / "li.key").read_text()
    for value, why in (
        (private, "this is a private key"),
        ("li.key", "this is a private key"),
        (other, "this key is of another algorithm than ed25519"),
        ("nobody.pub", "neither a public key in PEM nor a file"),
        ("a\0b", "neither a public key in PEM nor a file"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "this is no public key in PEM"),
        (7, "expected a public key in PEM"),
    ):
        told = untrusted(office, [entry("li", public_key=value)])
        assert f"keys.0.public_key: {why}" in told
        assert private.splitlines()[1] not in told, "a private key must not get into a message"


def test_a_second_list_of_withdrawn_keys_does_not_undo_the_first(office: Path) -> None:
    path = office / "twice.yaml"
    gone = [{"key": key_id(office, "li"), "date": "2026-06-01", "reason": "lost"}]
    path.write_text(yaml.safe_dump({"keys": [entry("li")], "withdrawn": gone}) + "withdrawn: []\n")
    with pytest.raises(InputError, match="the key 'withdrawn' stands twice"):
        load_trust(path)


@pytest.mark.parametrize(
    "content", [b"[" * 5000, b"? [a]\n: b", b"", b"[]", b"keys: []", b"keys: 3", b"\xff", b"a: [", b"- \x00"]
)
def test_a_file_that_is_no_trust_file_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trust.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"trust\.yaml"):
        load_trust(tmp_path / "trust.yaml")


def test_a_missing_trust_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_trust(tmp_path / "trust.yaml")


OFFLINE = """
import sys
from datetime import datetime
from pathlib import Path

def no_network(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(no_network)
from harness.attestation import load_trust, verify

directory = Path(sys.argv[1])
at = datetime.fromisoformat("2026-06-15T12:00:00+00:00")
print(verify((directory / "envelope").read_bytes(), load_trust(directory / "trust.yaml"), at).person)
"""


def test_verifying_needs_no_network_and_no_other_program(office: Path, envelope: bytes) -> None:
    (office / "envelope").write_bytes(envelope)
    trusted(office)
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(office)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "li\n", "")
