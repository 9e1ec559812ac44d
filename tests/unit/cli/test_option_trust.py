"""`--trust` of `certify judge` and `certify launch`: only a baseline that a trusted person signed is used.

That of `certify run` is tested with the signed baselines.
"""

import datetime
import json
import shutil
from pathlib import Path

import pytest
import yaml

from harness.attestation import Role, keygen, sign
from harness.base.errors import InputError
from harness.certify import flow, prerequisites
from harness.certify.jobs import Options
from harness.levels.recorded import read_signed_baseline, recording_of
from tests.support.collected import collected_case, example_baseline, train
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT

REFUSED = {"": "is not signed by a person of the trust file", "stranger.key": "the trust file has no key"}
LAYOUT = "qwen3-tiny-tp2"  # a case of several processes whose baseline is shipped


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """The keys of Dana, whom the trust file names, and of a stranger."""
    for name in ("dana", "stranger"):
        keygen(tmp_path / name)
    day = datetime.timedelta(days=1)
    key = {"person": "Dana", "public_key": "dana.pub", "roles": ["developer"]}
    days = {"valid_from": (now() - day).date(), "valid_until": (now() + day).date()}
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump({"keys": [{**key, **days}]}))
    return tmp_path


def sign_baseline(directory: Path, key: Path) -> None:
    statement = recording_of(read_signed_baseline(directory, None, now()), Role.DEVELOPER, now())
    (directory / "attestations").mkdir(exist_ok=True)
    (directory / "attestations" / f"{key.stem}.json").write_bytes(sign(statement, key))


@pytest.fixture
def judge(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, office: Path) -> Call:
    """Judges a collected subject; given the reference and the directory of the bundle."""
    (office / "case.yaml").write_text(yaml.safe_dump(collected_case().record()))
    subject = train(office / "subject")
    return caller(capsys, monkeypatch, "judge", str(office / "case.yaml"), "--subject", str(subject))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_baseline(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def baseline(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "baselines" / recorded.name))


def test_judge_refuses_a_baseline_that_no_trusted_person_signed(judge: Call, baseline: Path, office: Path) -> None:
    asked = ("--reference", baseline, "--out", office / "out", "--trust", office / "trust.yaml")
    for key, why in REFUSED.items():
        if key:
            sign_baseline(baseline, office / key)
        refused = judge(*asked)
        assert refused.code == 2 and why in refused.err, refused.said
        assert not (office / "out" / "report.html").exists()


def test_judge_uses_a_baseline_that_a_trusted_person_signed_and_names_her(
    judge: Call, baseline: Path, office: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_baseline(baseline, office / "dana.key")
    done = judge("--reference", baseline, "--out", office / "out", "--trust", office / "trust.yaml", "--json")
    assert done.code == 0 and json.loads(done.out)["level"] == "Preliminary", done.said
    assert "signed by Dana as developer" in (office / "out" / "report.html").read_text()
    found = caller(capsys, monkeypatch, "verify")(office / "out", "--trust", office / "trust.yaml")
    assert found.code == 0 and "signed by Dana as developer" in found.out, found.said


def test_judge_without_a_baseline_has_no_signature_to_check(judge: Call, office: Path) -> None:
    reference = train(office / "reference")
    asked = ("--reference", reference, "--out", office / "out", "--trust", office / "trust.yaml")
    refused = judge(*asked)
    assert refused.code == 2 and "--trust checks the signature of a baseline" in refused.err
    assert not (office / "out").exists()


@pytest.fixture
def launch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, office: Path) -> Call:
    """On a machine that has all that the case needs."""
    monkeypatch.setattr(prerequisites, "check", lambda case, options, sides: ())
    return caller(capsys, monkeypatch, "launch", LAYOUT, "--output", str(office / "output"))


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "baselines" / LAYOUT, tmp_path / "shipped" / LAYOUT))


def test_launch_refuses_a_baseline_that_no_trusted_person_signed(launch: Call, shipped: Path, office: Path) -> None:
    asked = ("--baseline", shipped.parent, "--trust", office / "trust.yaml")
    for key, why in REFUSED.items():
        if key:
            sign_baseline(shipped, office / key)
        refused = launch(*asked)
        assert refused.code == 2 and why in refused.err, refused.said
        assert not (office / "output").exists()


def test_launch_takes_a_baseline_that_a_trusted_person_signed(
    launch: Call, shipped: Path, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_baseline(shipped, office / "dana.key")
    found = list[Options]()

    def drawn(case: object, standards: object, options: Options) -> None:
        found.append(options)
        raise InputError("The baseline was taken.")

    monkeypatch.setattr(flow, "prepare", drawn)
    done = launch("--baseline", shipped.parent, "--trust", office / "trust.yaml")
    assert done.code == 2 and "The baseline was taken" in done.err, done.said
    assert [one.trust is not None and one.baselines for one in found] == [shipped.parent]


def test_launch_without_a_baseline_has_no_signature_to_check_on_any_node(launch: Call, office: Path) -> None:
    for rank in (0, 1):
        refused = launch("--nnodes", 2, "--node-rank", rank, "--trust", office / "trust.yaml")
        assert refused.code == 2 and "give --baseline too" in refused.err
    assert not (office / "output").exists()


def test_launch_prints_the_trust_file_for_every_node(launch: Call, office: Path) -> None:
    done = launch("--nnodes", 2, "--print", "--baseline", "--trust", office / "trust.yaml")
    lines = [line for line in done.out.splitlines() if line.startswith("certify launch")]
    assert len(lines) == 2 and all(f"--trust {office / 'trust.yaml'}" in line for line in lines)
