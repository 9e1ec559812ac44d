"""Keys, statements and levels from the command line: exit codes, messages, and nothing written over."""

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.attestation import Role, Waiver, read, sign
from harness.cli import level as commands
from harness.evidence.bundle import read_bundle
from harness.levels.certificate import Level
from harness.levels.submission import claim_of
from harness.runs.trace import Step
from tests.support.bundles import edit_json, write_example
from tests.support.command_line import Call, caller
from tests.support.examples import small_case

DAY = timedelta(days=1)
STARTED = datetime.now(UTC).replace(microsecond=0) - 2 * DAY
LAST = (STARTED + 100 * DAY).date().isoformat()
OCCASION = {"started": STARTED.isoformat()}
WAIVER = ("--reason", "8 steps are enough here", "--until", LAST)
EXAMINED = small_case(examined_steps=(2, 8), resume_after=5)


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    write_example(root / "bundle", case=EXAMINED, occasion=OCCASION)
    for name in ("dana", "li"):
        commands.make_key(root / name)
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a bundle, the keys of two people, and a trust file; the current one."""
    where = Path(shutil.copytree(made, tmp_path / "here"))
    monkeypatch.chdir(where)
    trust_file()
    return where


def trust_file(**changes: Any) -> None:
    days = {"valid_from": (STARTED - 9 * DAY).date(), "valid_until": (STARTED + 99 * DAY).date()}
    keys = [
        {"person": "Dana", "public_key": "dana.pub", "roles": ["developer"], **days},
        {"person": "Li Wei", "public_key": "li.pub", "roles": ["dev-team"], **days},
    ]
    Path("trust.yaml").write_text(yaml.safe_dump({"keys": keys, **changes}))


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def attested(certify_: Call, role: str = "developer", key: str = "dana") -> Path:
    return Path(
        json.loads(certify_("attest", "bundle", "--role", role, "--key", f"{key}.key", "--json").out)["statement"]
    )


ATTEST = ("attest", "bundle", "--role", "developer", "--key")
WAIVE = ("waive", "bundle", "official-steps", "--role", "dev-team", "--key", "li.key")
BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "level of nothing": (("level", "nowhere"), "There is no finished bundle in nowhere"),
    "level on no day": (("level", "bundle", "--at", "yesterday"), "'yesterday' is not a day or time"),
    "level at a time of no zone": (("level", "bundle", "--at", "2026-01-31T12:00:00"), "is not in UTC"),
    "level that is none": (("level", "bundle", "--level", "Perfect"), "Perfect"),
    "level with a trust file that is not there": (("level", "bundle", "--trust", "no.yaml"), "no.yaml cannot be read"),
    "verify with a trust file that is none": (("verify", "bundle", "--trust", "dana.pub"), "not a valid trust file"),
    "report with a trust file that is none": (("report", "bundle", "--trust", "dana.pub"), "not a valid trust file"),
    "verify of nothing": (("verify", "nowhere"), "nowhere is not a finished bundle"),
    "verify of a file": (("verify", "bundle/manifest.json"), "it is a file. Give its directory: bundle"),
    "verify of a study": (("verify", "dana.key"), "--power dana.key --out site"),
    "report of nothing": (("report", "nowhere"), "nowhere is not a finished bundle"),
    "diff with nothing": (("diff", "bundle", "nowhere"), "nowhere is not a finished bundle"),
    "keygen without a name": (("keygen",), "Missing argument"),
    "keygen over a key": (("keygen", "dana"), "dana.key"),
    "keygen nowhere": (("keygen", "nowhere/dana"), "nowhere"),
    "attest nothing": (("attest", "nowhere", *ATTEST[2:], "dana.key"), "nowhere is not a finished bundle"),
    "attest without a key": (ATTEST[:-1], "--key"),
    "attest with no key": ((*ATTEST, "no.key"), "no.key cannot be read"),
    "attest with a public key": ((*ATTEST, "dana.pub"), "dana.pub"),
    "attest with a trust file": ((*ATTEST, "trust.yaml"), "trust.yaml"),
    "attest in no role": (("attest", "bundle", "--role", "boss", "--key", "dana.key"), "boss"),
    "withdraw nothing": (("withdraw", "bundle", "no.json", "--reason", "x", "--key", "li.key"), "no statement no.json"),
    "withdraw a file of elsewhere": (
        ("withdraw", "bundle", "trust.yaml", "--reason", "x", "--key", "li.key"), "no statement trust.yaml in bundle"),
    "withdraw without a reason": (("withdraw", "bundle", "no.json", "--key", "li.key"), "--reason"),
    "waive what is no criterion": (
        ("waive", "bundle", "everything", *WAIVER, *WAIVE[3:]), "There is no criterion 'everything' in bundle"),
    "waive what passes": (("waive", "bundle", "converges", *WAIVER, *WAIVE[3:]), "there is nothing to waive"),
    "waive until no day": ((*WAIVE, "--reason", "x", "--until", "soon"), "'soon' is not a day"),
    "waive until a day that is gone": ((*WAIVE, "--reason", "x", "--until", "2020-01-31"), "it ends on 2020-01-31"),
    "waive for longer than half a year": (
        (*WAIVE, "--reason", "x", "--until", "9999-12-31"), "more than 180 days after it is stated"),
    "waive as a developer": (
        ("waive", "bundle", "official-steps", *WAIVER, "--role", "developer", "--key", "dana.key"),
        "a developer cannot waive"),
    "waive with a reason of two lines": ((*WAIVE, "--reason", "one\ntwo", "--until", LAST), "reason"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_exit_code_2_and_changes_nothing(certify_: Call, here: Path, name: str) -> None:
    arguments, message = BAD[name]
    before = files(here)
    result = certify_(*arguments)
    assert result.code == 2 and message in result.err
    assert files(here) == before


def test_a_key_that_others_can_read_does_not_sign(certify_: Call, here: Path) -> None:
    (here / "dana.key").chmod(0o644)
    result = certify_(*ATTEST, "dana.key")
    assert result.code == 2 and "chmod 600 dana.key" in result.err
    assert not (here / "bundle" / "attestations").exists()


def test_a_private_key_in_a_trust_file_is_refused_and_not_repeated(certify_: Call, here: Path) -> None:
    trust_file(keys=[{"person": "Dana", "public_key": "dana.key", "roles": ["developer"],
                      "valid_from": "2026-01-01", "valid_until": "2026-12-31"}])  # fmt: skip
    result = certify_("level", "bundle", "--trust", "trust.yaml")
    secret = (here / "dana.key").read_text().splitlines()[1]
    assert result.code == 2 and "this is a private key" in result.err and secret not in result.err


def test_keygen_names_both_files_also_where_a_name_looks_like_markup(certify_: Call, here: Path) -> None:
    result = certify_("keygen", "[red]tess")
    assert result.code == 0 and "Keep [red]tess.key secret; give [red]tess.pub" in result.out
    assert ((here / "[red]tess.key").stat().st_mode & 0o777, (here / "[red]tess.pub").is_file()) == (0o600, True)


def test_keygen_as_json_gives_the_id_that_signs(certify_: Call, here: Path) -> None:
    made = json.loads(certify_("keygen", "tess", "--json").out)
    signed = json.loads(certify_(*ATTEST, "tess.key", "--json").out)
    assert (made["key"], made["public_key"]) == ("tess.key", "tess.pub") and signed["key_id"] == made["key_id"]


def test_half_a_pair_of_keys_is_not_written(certify_: Call, here: Path) -> None:
    (here / "tess.pub").write_text("kept")
    assert certify_("keygen", "tess").code == 2
    assert (here / "tess.pub").read_text() == "kept" and not (here / "tess.key").exists()


def test_a_statement_is_valid_and_is_counted(certify_: Call, here: Path) -> None:
    attested(certify_)
    assert "1 signed statements were not checked" in certify_("verify", "bundle").out
    result = certify_("verify", "bundle", "--trust", "trust.yaml")
    assert result.code == 0 and "valid: WARNED by Dana as developer" in result.out
    assert "Signed by the developer: Dana" in certify_("level", "bundle", "--trust", "trust.yaml").out


def test_the_same_statement_twice_in_a_second_is_one(
    certify_: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_now", lambda: STARTED + DAY)
    path = attested(certify_)
    before = files(here)
    result = certify_(*ATTEST, "dana.key")
    assert result.code == 2 and f"{path} is exactly this statement already." in result.err
    assert files(here) == before


def test_a_bundle_that_was_edited_is_neither_signed_nor_waived(certify_: Call, here: Path) -> None:
    edit_json(here / "bundle" / "findings.json", lambda findings: findings[0].update(outcome="FAIL"))
    before = files(here)
    for command in (
        (*ATTEST, "dana.key"),
        (*WAIVE, *WAIVER),
        ("verify", "bundle"),
        ("level", "."),
        ("report", "bundle"),
    ):
        result = certify_(*command)
        assert result.code == 2 and "changed: findings.json" in result.err, command
    assert files(here) == before


def test_a_run_that_is_yet_to_start_is_not_signed(certify_: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_now", lambda: STARTED - DAY)
    result = certify_(*ATTEST, "dana.key")
    assert result.code == 2 and "before the run started" in result.err


def test_a_withdrawn_statement_counts_no_more_and_stays(certify_: Call, here: Path) -> None:
    path = attested(certify_)
    content = path.read_bytes()
    assert certify_("withdraw", "bundle", path, "--reason", "wrong corpus", "--key", "dana.key").code == 0
    result = certify_("level", "bundle", "--trust", "trust.yaml")
    assert "Dana's statement was withdrawn by Dana: wrong corpus" in result.out
    assert path.read_bytes() == content
    verified = certify_("verify", "bundle", "--trust", "trust.yaml")
    assert verified.code == 0 and "withdrawn: WARNED by Dana as developer" in verified.out


def test_a_withdrawal_cannot_be_withdrawn(certify_: Call, here: Path) -> None:
    path = attested(certify_)
    done = certify_("withdraw", "bundle", path, "--reason", "wrong", "--key", "dana.key", "--json")
    withdrawal = json.loads(done.out)["statement"]
    before = files(here)
    result = certify_("withdraw", "bundle", withdrawal, "--reason", "right after all", "--key", "dana.key")
    assert result.code == 2 and "cannot be withdrawn" in result.err
    assert files(here) == before


def test_a_statement_of_another_bundle_is_not_withdrawn_here(certify_: Call, here: Path) -> None:
    shutil.copytree(here / "bundle", here / "other")
    path = attested(certify_)
    result = certify_("withdraw", "other", path, "--reason", "wrong", "--key", "dana.key")
    assert result.code == 2 and "in other: name a file of other/attestations" in result.err
    assert not (here / "other" / "attestations").exists()


def test_a_withdrawal_by_another_person_is_refused(certify_: Call, here: Path) -> None:
    path = attested(certify_)
    certify_("withdraw", "bundle", path, "--reason", "mine is better", "--key", "li.key")
    result = certify_("verify", "bundle", "--trust", "trust.yaml")
    assert result.code == 2 and "valid: WARNED by Dana" in result.out
    assert "Li Wei is not Dana and does not have the role developer" in result.out


def test_a_waiver_is_shown_and_is_not_released(certify_: Call, here: Path) -> None:
    attested(certify_)
    assert certify_(*WAIVE, *WAIVER).code == 0
    result = certify_("level", "bundle", "--trust", "trust.yaml")
    assert "met     Validated   Every criterion passes: official-steps waived by Li Wei" in result.out
    assert "missing Released    Nothing is waived: official-steps waived by Li Wei" in result.out


def test_a_waiver_of_a_revision_names_the_revision_and_no_bundle(certify_: Call, here: Path) -> None:
    attested(certify_)
    path = Path(json.loads(certify_(*WAIVE, *WAIVER, "--revision", "--json").out)["statement"])
    waiver = read(path.read_bytes()).statement
    assert isinstance(waiver, Waiver)
    assert (waiver.bundle, waiver.revision) == (None, read_bundle(here / "bundle").source.revision)
    assert "waived by Li Wei" in certify_("level", "bundle", "--trust", "trust.yaml").out


def test_a_waiver_that_does_not_count_is_rejected_by_verify(certify_: Call, here: Path) -> None:
    assert certify_(*WAIVE, *WAIVER).code == 0
    result = certify_("verify", "bundle", "--trust", "trust.yaml")
    assert result.code == 2 and "does not count before the developer who ran it has signed" in result.out


@pytest.mark.parametrize("asked", Level)
def test_the_exit_code_of_level_is_1_above_what_is_reached(certify_: Call, here: Path, asked: Level) -> None:
    above = asked in (Level.RELEASED, Level.VALIDATED)
    assert certify_("level", ".", "--level", asked).code == int(above)


def test_level_reports_that_signatures_were_not_checked(certify_: Call, here: Path) -> None:
    attested(certify_)
    assert "Signatures were not checked" in certify_("level", "bundle").out
    assert "Signatures were not checked" not in certify_("level", "bundle", "--trust", "trust.yaml").out


def test_one_broken_bundle_among_others_is_exit_code_2(certify_: Call, here: Path) -> None:
    shutil.copytree(here / "bundle", here / "other")
    (here / "other" / "notes.txt").write_text("hello")
    result = certify_("level", ".")
    assert result.code == 2 and "not valid evidence: other" in result.out and "extra: notes.txt" in result.out
    assert "Preliminary: " in result.out


def test_a_statement_about_another_bundle_is_reported(certify_: Call, here: Path) -> None:
    path = attested(certify_)
    write_example(here / "other", case=small_case(), occasion={**OCCASION, "host": "elsewhere"})
    shutil.copytree(path.parent, here / "other" / "attestations")
    result = certify_("verify", "other", "--trust", "trust.yaml")
    assert result.code == 2 and "is about another bundle" in result.out


def test_a_statement_that_claims_more_than_the_bundle_shows_is_reported(certify_: Call, here: Path) -> None:
    claim = claim_of(read_bundle(here / "bundle"), Role.DEVELOPER, STARTED + DAY)
    (here / "bundle" / "attestations").mkdir(exist_ok=True)
    envelope = sign(dataclasses.replace(claim, warned=()), here / "dana.key")
    (here / "bundle" / "attestations" / "more.json").write_bytes(envelope)
    result = certify_("verify", "bundle", "--trust", "trust.yaml")
    assert result.code == 2 and "does not match what the bundle shows" in result.out


def test_json_is_one_object_and_nothing_else(certify_: Call, here: Path) -> None:
    path = attested(certify_)
    (here / "bundle" / "attestations" / "noise.json").write_text("{}")
    level = json.loads(certify_("level", ".", "--trust", "trust.yaml", "--json").out)["levels"]
    assert [(one["bundle"], one["level"], one["next_level"]) for one in level] == [
        ("bundle", "Preliminary", "Validated")
    ]
    verified = certify_("verify", "bundle", "--trust", "trust.yaml", "--json")
    found = json.loads(verified.out)
    assert (verified.code, found["statements"], len(found["standing"]), len(found["refused"])) == (2, 2, 1, 1)
    reported = json.loads(certify_("report", "bundle", "--trust", "trust.yaml", "--json").out)
    assert reported["level"] == "Preliminary"
    waived = json.loads(certify_(*WAIVE, *WAIVER, "--json").out)
    assert Path(waived["statement"]).is_file()
    done = certify_("withdraw", "bundle", path, "--reason", "wrong", "--key", "dana.key", "--json")
    assert Path(json.loads(done.out)["statement"]).is_file()
    assert json.loads(certify_("diff", "bundle", "bundle", "--json").out)["kind"] == "the same"


def test_an_earlier_or_later_day_gives_another_level(certify_: Call, here: Path) -> None:
    for days, expected in ((-1, "Untested"), (1, "Preliminary"), (181, "Untested")):
        at = (STARTED + days * DAY).date().isoformat()
        assert certify_("level", "bundle", "--at", at).out.startswith(f"{expected}: "), days


def drifting(run: str, step: Step) -> Step:
    return Step(**{**vars(step), "loss": step.loss * 1.01}) if run.startswith("subject") else step


def test_a_regression_and_another_case_are_exit_code_1(certify_: Call, here: Path) -> None:
    write_example(here / "worse", case=EXAMINED, occasion=OCCASION, change=drifting)
    write_example(here / "longer", case=small_case(steps=9), occasion=OCCASION)
    worse, longer = certify_("diff", "bundle", "worse"), certify_("diff", "bundle", "longer")
    assert worse.code == 1 and "regression:" in worse.out
    assert longer.code == 1 and "another case:" in longer.out
    better = certify_("diff", "worse", "bundle")
    assert better.code == 0 and "improvement:" in better.out


def test_report_with_trust_writes_who_signed_and_stays_a_bundle(certify_: Call, here: Path) -> None:
    attested(certify_)
    assert certify_("report", "bundle", "--trust", "trust.yaml").code == 0
    assert "Dana" in (here / "bundle" / "report.html").read_text(encoding="utf-8")
    assert certify_("verify", "bundle", "--trust", "trust.yaml").code == 0


def test_a_failure_beyond_the_rate_that_limits_were_derived_for_is_printed_with_that_remark(
    tmp_path: Path, certify_: Call
) -> None:
    case = small_case()
    case = case.with_changes(lr_schedule={**case.lr_schedule.model_dump(), "learning_rate": 1e-3})
    write_example(tmp_path / "bundle", case=case, change=_off)
    assert "derived for learning rates up to 0.0001" in certify_("report", tmp_path / "bundle").said
    (remark,) = json.loads(certify_("report", tmp_path / "bundle", "--json").out)["remarks"]
    assert "this case goes up to 0.001" in remark


def _off(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=step.loss * 1.01) if run == "subject-1" else step
