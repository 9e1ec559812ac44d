"""Verification: only trusted people count, in their roles, and a withdrawn statement is not valid."""

import dataclasses
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.attestation import Role, Trust, VerifiedStatements, Withdrawal, sign, verify, verify_all
from harness.base.digest import canonical_json, digest_bytes
from harness.base.errors import AttestationError
from tests.support.signing import CLAIM, NOON, PEOPLE, WAIVER, entry, key_id, payload_of, refused, sealed, trusted


def test_a_key_that_is_not_trusted_signs_nothing(office: Path, trust: Trust) -> None:
    assert "no key" in refused(sign(CLAIM, office / "stranger.key"), trust)


def test_a_signature_of_another_person_is_not_valid(office: Path, trust: Trust) -> None:
    chen, stranger = key_id(office, "chen"), key_id(office, "stranger")
    forged = sign(CLAIM, office / "stranger.key").replace(stranger.encode(), chen.encode())
    assert "does not match chen's key" in refused(forged, trust)


@pytest.mark.parametrize("name", ["wu", "dev"])
def test_a_role_that_the_key_does_not_hold_is_refused(office: Path, trust: Trust, name: str) -> None:
    assert f"signed as dev-team, but the key has only: {PEOPLE[name]}" in refused(
        sign(CLAIM, office / f"{name}.key"), trust
    )


def test_a_key_may_hold_several_roles(office: Path, envelope: bytes) -> None:
    assert verify(envelope, trusted(office, [entry("li", roles=["test-team", "dev-team"])]), NOON).person == "li"


@pytest.mark.parametrize(
    ("first", "last", "good"),
    [("06-15", "06-15", True), ("06-16", "12-31", False), ("01-01", "06-14", False), ("01-01", "06-15", True)],
)
def test_a_key_is_valid_only_on_its_days(office: Path, envelope: bytes, first: str, last: str, good: bool) -> None:
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


def by(office: Path, name: str, target: bytes, days: int = 1) -> bytes:
    statement = Withdrawal(
        withdraws=digest_bytes(target), reason="judged the wrong file", stated_at=NOON + timedelta(days=days)
    )
    return sign(statement, office / f"{name}.key")


def summary(statements: VerifiedStatements) -> tuple[int, int, int, int]:
    return len(statements.attestations), len(statements.waivers), len(statements.withdrawn), len(statements.refused)


@pytest.mark.parametrize(("name", "good"), [("li", True), ("chen", True), ("wu", False), ("dev", False)])
def test_a_statement_is_withdrawn_by_its_person_or_its_role(
    office: Path, trust: Trust, envelope: bytes, name: str, good: bool
) -> None:
    withdrawal = by(office, name, envelope)
    found = verify_all([withdrawal, envelope], trust, NOON + timedelta(days=2))
    if good:
        assert summary(found) == (0, 0, 1, 0)
        assert found.withdrawn[0].signed.statement == CLAIM
        assert (found.withdrawn[0].by.person, found.withdrawn[0].by.statement.reason) == (name, "judged the wrong file")
    else:
        assert summary(found) == (1, 0, 0, 1)
        assert f"{name} is not li and does not have the role dev-team" in found.refused[0].reason
        assert found.refused[0].digest == digest_bytes(withdrawal)


def test_a_person_withdraws_with_any_of_its_keys(office: Path, envelope: bytes) -> None:
    trust = trusted(office, [entry("li"), entry("dev", person="li")])
    found = verify_all([envelope, by(office, "dev", envelope)], trust, NOON + timedelta(days=2))
    assert summary(found) == (0, 0, 1, 0)


def test_a_withdrawal_counts_from_its_own_day_on(office: Path, trust: Trust, envelope: bytes) -> None:
    files = [envelope, by(office, "li", envelope, days=10)]
    assert summary(verify_all(files, trust, NOON + timedelta(days=9))) == (1, 0, 0, 1)
    assert summary(verify_all(files, trust, NOON + timedelta(days=10))) == (0, 0, 1, 0)


def test_a_thief_cannot_withdraw(office: Path, envelope: bytes) -> None:
    trust = trusted(office, withdrawn=[{"key": key_id(office, "chen"), "date": "2026-06-01", "reason": "stolen"}])
    assert summary(verify_all([envelope, by(office, "chen", envelope)], trust, NOON + timedelta(days=2))) == (
        1,
        0,
        0,
        1,
    )


def test_a_withdrawal_cannot_be_withdrawn(office: Path, trust: Trust, envelope: bytes) -> None:
    first = by(office, "li", envelope)
    second = by(office, "li", first)
    found = verify_all([second, first, envelope], trust, NOON + timedelta(days=2))
    assert summary(found) == (0, 0, 1, 1)
    assert "withdraws no valid statement here" in found.refused[0].reason


def test_a_waiver_is_valid_until_the_end_of_its_day(office: Path, trust: Trust) -> None:
    waiver = sign(WAIVER, office / "wu.key")
    found = verify_all([waiver], trust, datetime(2026, 7, 15, 23, 59, 59, tzinfo=UTC))
    assert [signed.statement for signed in found.waivers] == [WAIVER]
    found = verify_all([waiver], trust, datetime(2026, 7, 16, tzinfo=UTC))
    assert summary(found) == (0, 0, 0, 1)
    assert "ended on 2026-07-15" in found.refused[0].reason


def test_a_waiver_can_be_withdrawn(office: Path, trust: Trust) -> None:
    waiver = sign(WAIVER, office / "wu.key")
    files = [waiver, by(office, "wu", waiver)]
    assert summary(verify_all(files, trust, NOON + timedelta(days=2))) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("role", Role.DEVELOPER, "a developer cannot waive"),
        ("until", date(2026, 6, 14), "before it is stated"),
        ("reason", "", "reason"),
        ("criterion", "a\nb", "criterion"),
        ("case_digest", "c", "case_digest"),
        ("until", date(2026, 12, 13), "more than 180 days"),
        ("until", date(9999, 12, 31), "more than 180 days"),
        ("scope", None, "names no scope"),
        ("bundle", None, "neither or both"),
        ("revision", "a" * 40, "neither or both"),
        ("bundle", "a", "bundle"),
    ],
)
def test_an_unsound_waiver_is_not_signed(office: Path, field: str, value: Any, message: str) -> None:
    with pytest.raises(AttestationError, match=message):
        sign(dataclasses.replace(WAIVER, **{field: value}), office / "wu.key")


def test_a_developer_cannot_waive_with_another_tool(office: Path, trust: Trust) -> None:
    payload = payload_of(sign(WAIVER, office / "wu.key"))
    payload["predicate"]["role"] = "developer"
    found = verify_all([sealed(office, canonical_json(payload).encode(), names=("dev",))], trust, NOON)
    assert "a developer cannot waive" in found.refused[0].reason


def test_each_file_counts_once_and_none_is_lost(office: Path, trust: Trust, envelope: bytes) -> None:
    waiver, other = sign(WAIVER, office / "wu.key"), sign(CLAIM, office / "chen.key")
    files = [envelope, other, waiver, b"{}", envelope, b"{}", sign(CLAIM, office / "stranger.key")]
    found = verify_all(files, trust, NOON)
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
    found = verify_all([files[index] for index in order], trust, NOON + timedelta(days=2))
    assert summary(found) == (1, 1, 1, 1)
    assert found.attestations[0].person == "chen"
