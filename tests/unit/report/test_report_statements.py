"""Who signed: which statements are valid, which are not, and no content of one that was not verified."""

import dataclasses
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
import yaml

from harness.attestation import Claim, Role, Statement, Waiver, Withdrawal, keygen, load_trust, read, sign
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import ATTESTATIONS
from harness.levels.rule import certify
from harness.levels.scope import scope
from harness.levels.submission import Submission, claim_of, read_submission
from harness.report import render_report
from harness.report.statements import Statements, build_statements
from tests.support.bundles import AT, write_example
from tests.support.examples import small_case

PEOPLE = {"li": Role.DEVELOPER, "wu": Role.DEV_TEAM, "chen": Role.TEST_TEAM}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key for each of the people, and one of a stranger whom the trust file does not know."""
    directory = tmp_path_factory.mktemp("office")
    for name in (*PEOPLE, "stranger"):
        keygen(directory / name)
    keys = [
        {"person": name, "public_key": f"{name}.pub", "roles": [role.value], "valid_from": "2026-01-01",
         "valid_until": "2026-12-31"}
        for name, role in PEOPLE.items()
    ]  # fmt: skip
    (directory / "trust.yaml").write_text(yaml.safe_dump({"keys": keys}), encoding="utf-8")
    return directory


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_example(tmp_path)


def claim(bundle: Bundle, role: Role = Role.DEVELOPER, **changes: str) -> Claim:
    return dataclasses.replace(claim_of(bundle, role, AT), **changes)


def waiver(bundle: Bundle, /, **changes: str) -> Waiver:
    until = date(2026, 6, 30)
    asked = {"criterion": "official-steps", "case_digest": bundle.case.digest(), "reason": "It is a short case.",
             "scope": scope(bundle).line, "bundle": bundle.digest}  # fmt: skip
    return Waiver(**{**asked, **changes}, until=until, role=Role.DEV_TEAM, stated_at=AT)


def submitted(
    office: Path, bundle: Bundle, signed: Sequence[tuple[str, Statement]], trusted: bool = True
) -> Submission:
    (bundle.path / ATTESTATIONS).mkdir()
    for number, (name, statement) in enumerate(signed):
        (bundle.path / ATTESTATIONS / f"{number}.json").write_bytes(sign(statement, office / f"{name}.key"))
    return read_submission(bundle.path, load_trust(office / "trust.yaml") if trusted else None, AT)


def rows(statements: Statements) -> list[tuple[str, str, str]]:
    return [(row.person, row.mark.word, row.detail) for row in statements.rows]


def test_a_valid_statement_is_shown_with_person_role_and_date(office: Path, bundle: Bundle) -> None:
    (row,) = build_statements(submitted(office, bundle, [("li", claim(bundle))])).rows
    assert (row.mark.word, row.person, row.role, row.date) == ("valid", "li", "developer", "2026-02-01")
    assert row.what == "WARNED: 64 criteria passed; 1 inconclusive"


def test_a_waiver_is_shown_with_its_end_and_reason(office: Path, bundle: Bundle) -> None:
    _, row = build_statements(submitted(office, bundle, [("li", claim(bundle)), ("wu", waiver(bundle))])).rows
    assert (row.mark.word, row.person) == ("valid", "wu")
    assert (row.what, row.detail) == ("official-steps waived until 2026-06-30", "It is a short case.")


def test_a_statement_that_counts_for_no_level_is_not_shown_as_valid(office: Path, bundle: Bundle) -> None:
    signed = [
        ("li", claim(bundle, manifest_digest="a" * 64)),
        ("li", claim(bundle, scope="Qwen3 on everything")),
        ("wu", waiver(bundle, case_digest="b" * 64)),
        ("wu", waiver(bundle, scope="Qwen3 on everything")),
        ("wu", waiver(bundle, bundle="b" * 64)),
        ("wu", waiver(bundle)),
    ]
    assert sorted(rows(build_statements(submitted(office, bundle, signed)))) == [
        ("li", "does not count", "does not match what the bundle shows"),
        ("li", "does not count", "is about another bundle"),
        ("wu", "does not count", "does not count before the developer who ran it has signed"),
        ("wu", "does not count", "is about another bundle or revision"),
        ("wu", "does not count", "is about another case"),
        ("wu", "does not count", "is about another scope"),
    ]


def test_a_statement_about_a_failed_run_is_not_shown_as_valid(office: Path, tmp_path: Path) -> None:
    bundle = write_example(
        tmp_path / "failing",
        case=small_case(),
        change=lambda run, step: dataclasses.replace(step, loss=2 * step.loss) if run.startswith("subject") else step,
    )
    (row,) = rows(build_statements(submitted(office, bundle, [("li", claim(bundle))])))
    assert row == ("li", "does not count", "states that it failed")


def test_a_withdrawn_statement_is_shown_with_person_and_reason(office: Path, bundle: Bundle) -> None:
    stated = claim(bundle)
    digest = read(sign(stated, office / "li.key")).digest
    back = Withdrawal(withdraws=digest, reason="Wrong machine.", stated_at=AT)
    found = build_statements(submitted(office, bundle, [("li", stated), ("li", back)]))
    assert rows(found) == [("li", "withdrawn", "by li on 2026-02-01: Wrong machine.")]


def test_no_content_of_a_rejected_statement_is_shown(office: Path, bundle: Bundle) -> None:
    (row,) = build_statements(submitted(office, bundle, [("stranger", claim(bundle))])).rows
    assert (row.mark.word, row.person, row.role, row.date) == ("rejected", "", "", "")
    assert "the trust file has no key" in row.detail


def test_statements_that_were_not_checked_are_counted_with_the_command(office: Path, bundle: Bundle) -> None:
    submission = submitted(office, bundle, [("li", claim(bundle)), ("stranger", claim(bundle))], trusted=False)
    html = render_report(submission, certify(submission, AT))
    assert "2 signed statements in this bundle were not checked: no trust file was given." in html
    assert "certify report BUNDLE --trust TRUST.yaml" in html and "<h3>Statements</h3>" not in html


def test_a_bundle_about_which_nothing_is_signed_shows_no_statements(bundle: Bundle) -> None:
    assert build_statements(Submission(bundle=bundle)) == Statements(rows=(), unread=None)
    html = render_report(Submission(bundle=bundle), certify(Submission(bundle=bundle), AT))
    assert "<h3>Statements</h3>" not in html and "not checked" not in html
