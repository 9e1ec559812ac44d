"""Signed baselines: who vouches for a recording is verified before it is used, and stated wherever its numbers are."""

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.attestation import Recording, Role, Trust, keygen, load_trust, read, sign
from harness.base.digest import digest_json
from harness.base.errors import CertifyError, InputError
from harness.base.records import read_json, write_json
from harness.cases.case import Case
from harness.certify import case_options, flow
from harness.certify.baseline import BaselineState, Statement, check_baseline, find_baseline
from harness.evidence.bundle_files import ATTESTATIONS
from harness.evidence.provenance import BASELINE
from harness.levels.recorded import read_signed_baseline, recording_of
from harness.levels.requirements_of_signatures import BASELINE_SIGNED
from harness.levels.rule import certify
from harness.levels.submission import claim_of, read_submission
from harness.report.view import build_view
from harness.runs.trace import Trace
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, TEXT, options, small_case, text_case
from tests.support.pages import facts_without_chinese
from tests.support.properties import examples

pytestmark = pytest.mark.usefixtures("forked_runs")
STATEMENT = Statement(author="A. Writer", reason="first recording", command=("certify", "baseline", "record"))
DAY = timedelta(days=1)
PEOPLE = {"dana": "developer", "li": "dev-team", "coco": "community"}


def unheard(run: str, trace: Trace) -> None:
    """Nobody watches."""


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the keys of some people and of a stranger, and a trust file without the stranger."""
    directory = tmp_path_factory.mktemp("office")
    for name in (*PEOPLE, "stranger"):
        keygen(directory / name)
    days = {"valid_from": (now() - 9 * DAY).date(), "valid_until": (now() + 99 * DAY).date()}
    keys = [
        {"person": name.title(), "public_key": f"{name}.pub", "roles": [role], **days} for name, role in PEOPLE.items()
    ]
    (directory / "trust.yaml").write_text(yaml.safe_dump({"keys": keys}))
    return directory


@pytest.fixture(scope="module")
def trust(office: Path) -> Trust:
    return load_trust(office / "trust.yaml")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return text_case(tmp_path_factory.mktemp("text"), steps=6)


@pytest.fixture(scope="module")
def recorded(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        directory = tmp_path_factory.mktemp("recorded") / "baselines"
        flow.record(case, options(directory), STATEMENT, directory, unheard, replace=False)
    return directory


def add(directory: Path, envelope: bytes) -> Path:
    """Puts a signed statement beside a baseline, as `certify attest` does."""
    path = directory / ATTESTATIONS / f"statement-{read(envelope).digest[:12]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(envelope)
    return path


def statement(directory: Path, role: Role = Role.DEVELOPER) -> Recording:
    return recording_of(read_signed_baseline(directory, None, now()), role, now())


@pytest.fixture
def baselines(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "baselines"))


@pytest.fixture
def signed(baselines: Path, case: Case, office: Path) -> Path:
    directory = baselines / case.name
    add(directory, sign(statement(directory), office / "dana.key"))
    return directory


@pytest.fixture(scope="module")
def judged(case: Case, recorded: Path, office: Path, trust: Trust, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was judged by a signed baseline."""
    root = tmp_path_factory.mktemp("judged")
    directory = Path(shutil.copytree(recorded, root / "baselines")) / case.name
    add(directory, sign(statement(directory), office / "dana.key"))
    standards = case_options.load_standards(case.standards, case)
    asked = options(root / "bundle", baselines=root / "baselines", trust=trust)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        return flow.run(case, standards, asked, unheard)[0].path


def refusal(baselines: Path, case: Case, trust: Trust | None) -> str:
    with pytest.raises(InputError) as error:
        find_baseline(baselines, case, [], trust=trust)
    return str(error.value)


def test_a_signed_baseline_is_used_and_its_signer_is_named(case: Case, signed: Path, trust: Trust) -> None:
    assert find_baseline(signed.parent, case, [], trust=trust).author == "A. Writer"
    found = check_baseline(signed.parent, case.name, case, now(), 365, trust)
    assert found.state is BaselineState.USABLE and f"signed by Dana as developer on {now():%Y-%m-%d}" in found.detail


def test_an_unsigned_baseline_is_refused_by_a_trust_file_alone(case: Case, baselines: Path, trust: Trust) -> None:
    assert "not signed by a person of the trust file. Sign it: certify attest" in refusal(baselines, case, trust)
    assert find_baseline(baselines, case, []).author == "A. Writer"


def test_a_foreign_key_is_refused_also_beside_a_known_one(case: Case, signed: Path, office: Path, trust: Trust) -> None:
    path = add(signed, sign(statement(signed, Role.DEV_TEAM), office / "stranger.key"))
    assert "the trust file has no key" in refusal(signed.parent, case, trust)
    path.unlink()
    assert find_baseline(signed.parent, case, [], trust=trust)


def test_a_role_that_the_key_has_not_is_refused(case: Case, baselines: Path, office: Path, trust: Trust) -> None:
    directory = baselines / case.name
    add(directory, sign(statement(directory, Role.TEST_TEAM), office / "dana.key"))
    assert "signed as test-team, but the key has only: developer" in refusal(baselines, case, trust)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"baseline_digest": "0" * 64}, "is about another baseline"),
        ({"author": "B. Writer"}, "does not match what the baseline states"),
        ({"recorded_on": "CUDA (H200), 8 processes"}, "does not match what the baseline states"),
        ({"case_digest": "0" * 64}, "does not match what the baseline states"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_payload_is_refused_with_and_without_a_trust_file(
    case: Case, baselines: Path, office: Path, trust: Trust, change: dict[str, Any], why: str
) -> None:
    directory = baselines / case.name
    add(directory, sign(dataclasses.replace(statement(directory), **change), office / "dana.key"))
    assert why in refusal(baselines, case, trust)
    assert why in refusal(baselines, case, None)


def test_a_statement_about_a_bundle_vouches_for_no_baseline(
    case: Case, baselines: Path, office: Path, trust: Trust, tmp_path: Path
) -> None:
    bundle = write_example(tmp_path / "bundle")
    add(baselines / case.name, sign(claim_of(bundle, Role.DEVELOPER, now()), office / "dana.key"))
    assert "is about a bundle, not a baseline" in refusal(baselines, case, None)
    assert "is about a bundle, not a baseline" in refusal(baselines, case, trust)


def test_a_recording_that_was_edited_and_sealed_again_loses_its_signature(
    case: Case, signed: Path, trust: Trust
) -> None:
    fields = {key: value for key, value in read_json(signed / BASELINE).items() if key != "seal"} | {"reason": "mine"}
    write_json(signed / BASELINE, {**fields, "seal": digest_json(fields)})
    assert "is about another baseline" in refusal(signed.parent, case, trust)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_of_a_statement_is_refused(
    case: Case, recorded: Path, office: Path, trust: Trust, data: st.DataObject
) -> None:
    directory = recorded / case.name
    path = add(directory, sign(statement(directory), office / "dana.key"))
    try:
        whole = path.read_bytes()
        place = data.draw(st.integers(0, len(whole) - 1))
        other = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
        path.write_bytes(whole[:place] + other + whole[place + 1 :])
        with pytest.raises(CertifyError):
            find_baseline(recorded, case, [], trust=trust)
    finally:
        shutil.rmtree(directory / ATTESTATIONS)


@pytest.mark.parametrize("name", ["statement.txt", "attestations/note.txt", "attestations/a/b.json"])
def test_only_statements_may_lie_beside_a_baseline(case: Case, signed: Path, name: str) -> None:
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_text("{}")
    assert "extra" in refusal(signed.parent, case, None)


def test_a_bundle_states_who_signed_its_baseline_when_and_on_what_it_was_recorded(judged: Path) -> None:
    page = unescape((judged / "report.html").read_text(encoding="utf-8"))
    first_screen = page[page.index('id="verdict"') : page.index('id="level"')]
    assert "A. Writer recorded them on" in first_screen
    assert "1 process" in first_screen and "signed by Dana as developer" in first_screen
    assert "Recorded on" in page and "baseline, recorded" in page


def test_the_signature_of_a_baseline_is_a_requirement_of_validated(judged: Path, trust: Trust, office: Path) -> None:
    def of_baseline(trusted: Trust | None) -> Any:
        certificate = certify(read_submission(judged, trusted, now()), now())
        return next(one for one in certificate.requirements if one.text == BASELINE_SIGNED)

    assert of_baseline(trust).met and "signed by Dana" in of_baseline(trust).detail
    assert not of_baseline(None).met and "no trust file was given" in of_baseline(None).detail
    others = yaml.safe_load((office / "trust.yaml").read_text())
    without = {"keys": [key for key in others["keys"] if key["person"] != "Dana"]}
    (office / "others.yaml").write_text(yaml.safe_dump(without))
    assert not of_baseline(load_trust(office / "others.yaml")).met


def test_a_maintainer_of_the_community_signs_for_no_team(
    judged: Path, office: Path, trust: Trust, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(judged, tmp_path / "bundle"))
    (path,) = (bundle / ATTESTATIONS).iterdir()
    said = read(path.read_bytes()).statement
    assert isinstance(said, Recording)
    path.unlink()
    add(bundle, sign(dataclasses.replace(said, role=Role.COMMUNITY), office / "coco.key"))
    certificate = certify(read_submission(bundle, trust, now()), now())
    found = next(one for one in certificate.requirements if one.text == BASELINE_SIGNED)
    assert not found.met and "Coco as community" in found.detail


# The command line.


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


def test_attest_signs_a_baseline_and_verify_names_the_signer(
    certify_: Call, case: Case, baselines: Path, office: Path
) -> None:
    directory = baselines / case.name
    unsigned = certify_("verify", directory, "--trust", office / "trust.yaml")
    assert unsigned.code == 0 and "unsigned" in unsigned.out
    made = certify_("attest", directory, "--role", "developer", "--key", office / "dana.key")
    assert made.code == 0 and "signed by key" in made.out
    found = certify_("verify", directory, "--trust", office / "trust.yaml")
    assert found.code == 0 and "unsigned" not in found.out
    assert "recorded" in found.out and "by A. Writer on" in found.out and "by Dana as developer" in found.out
    again = json.loads(certify_("verify", directory, "--json").out)
    assert (again["case"], again["signed"], again["statements"]) == (case.name, False, 1)


def test_verify_of_a_baseline_refuses_a_changed_byte_and_a_foreign_key(
    certify_: Call, signed: Path, office: Path
) -> None:
    add(signed, sign(statement(signed, Role.DEV_TEAM), office / "stranger.key"))
    refused = certify_("verify", signed, "--trust", office / "trust.yaml")
    assert refused.code == 2 and "rejected" in refused.out and "has no key" in refused.out
    (signed / "case.json").write_bytes((signed / "case.json").read_bytes() + b" ")
    changed = certify_("verify", signed)
    assert changed.code == 2 and "case.json" in changed.err


def test_a_withdrawn_signature_vouches_no_more(certify_: Call, case: Case, signed: Path, office: Path) -> None:
    (path,) = (signed / ATTESTATIONS).iterdir()
    words = ("--reason", "recorded on the wrong machine", "--key", office / "dana.key")
    assert certify_("withdraw", signed, path, *words).code == 0
    words = ("baseline", "verify", "--baselines", signed.parent, "--trust", office / "trust.yaml")
    found = certify_(*words)
    assert found.code == 2 and "is not signed by a person of the trust file" in found.out


def test_verify_of_a_bundle_verifies_the_signature_of_its_baseline(certify_: Call, judged: Path, office: Path) -> None:
    found = certify_("verify", judged, "--trust", office / "trust.yaml")
    assert found.code == 0, found.said
    assert "reference and oracle: recorded" in found.out and "signed by Dana as developer" in found.out
    assert "valid: recording of" in found.out


def test_a_run_with_a_trust_file_refuses_an_unsigned_baseline(
    certify_: Call, case: Case, baselines: Path, office: Path, tmp_path: Path
) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(small_case(steps=6).record()))
    (tmp_path / "text.txt").write_text(TEXT)
    words = ["run", path, "--text", tmp_path / "text.txt", "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out"]
    words += ["--reference", f"{FAKES}:Fake", "--oracle", f"{FAKES}:Fake"]
    refused = certify_(*words, "--baseline", baselines, "--trust", office / "trust.yaml")
    assert refused.code == 2 and "is not signed" in refused.err and not (tmp_path / "out").exists()
    alone = certify_(*words, "--trust", office / "trust.yaml")
    assert alone.code == 2 and "give --baseline too" in alone.err and not (tmp_path / "out").exists()


def test_no_fact_about_a_baseline_is_without_chinese(judged: Path, trust: Trust) -> None:
    for trusted in (trust, None):
        submission = read_submission(judged, trusted, now())
        page = build_view(submission, certify(submission, now()))
        assert {fact.term for fact in page.provenance.baseline} >= {"Signature", "Recorded", "By"}
        assert facts_without_chinese(page) == []
