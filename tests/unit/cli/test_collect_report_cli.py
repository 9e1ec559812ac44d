"""`certify collect-report`: what explains a run is in one archive, and nothing that is large or secret."""

import getpass
import json
import socket
import tarfile
from pathlib import Path

import pytest

from harness.certify import environment, problem_report
from tests.support.ascend_machines import TRAINING_A2, set_up
from tests.support.command_line import Call, caller


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run that crashed, with things in it that must not leave this machine."""
    directory = tmp_path / "runs" / "qwen3"
    one = directory / "runs" / "subject-1"
    one.mkdir(parents=True)
    (directory / "case.json").write_text('{"name": "qwen3"}')
    (one / "outcome.json").write_text('{"status": "crashed"}')
    (one / "log.txt").write_text(
        f"HF_TOKEN=hf_abc123 for {getpass.getuser()}@{socket.gethostname()} at 10.1.2.3\n"
        f"RuntimeError: in {Path.home()}/model.py, api-key: sk-9\nlast line\n"
    )
    (directory / "inputs").mkdir()
    (directory / "inputs" / "weights.safetensors").write_bytes(bytes(1000))
    (directory / "inputs" / "batches.safetensors").write_bytes(bytes(1000))
    (tmp_path / "outside.log").write_text("of another user")
    (directory / "linked.log").symlink_to(tmp_path / "outside.log")
    (tmp_path / "machine").mkdir()
    set_up(TRAINING_A2, tmp_path / "machine", monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0"})
    monkeypatch.chdir(tmp_path)
    return directory


@pytest.fixture
def certify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


def content(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as members:
        found = {}
        for member in members:
            file = members.extractfile(member)
            assert file is not None
            found[member.name.partition("/")[2]] = file.read().decode()
        return found


def test_the_archive_explains_the_run_and_holds_no_weights(certify: Call, run: Path) -> None:
    done = certify("collect-report", run, "--out", "sent.tar.gz")
    assert done.code == 0 and "sent.tar.gz: 5 files. Read it before you send it." in done.out
    found = content(Path("sent.tar.gz"))
    assert set(found) == {
        "environment-now.json",
        "npu-smi.txt",
        "run/case.json",
        "run/runs/subject-1/log.txt",
        "run/runs/subject-1/outcome.json",
    }
    assert "910B2" in found["npu-smi.txt"]
    stated = json.loads(found["environment-now.json"])
    assert stated["machine"]["ascend"]["product"] == "Atlas 800T A2" and stated["settings"]["jit_level"] == "O0"
    assert all(one["met"] for one in stated["prerequisites"])


def test_what_names_people_hosts_or_secrets_is_replaced(certify: Call, run: Path) -> None:
    certify("collect-report", run, "--out", "sent.tar.gz")
    log = content(Path("sent.tar.gz"))["run/runs/subject-1/log.txt"]
    for secret in ("hf_abc123", "10.1.2.3", "sk-9", socket.gethostname(), str(Path.home())):
        assert secret not in log
    assert "HF_TOKEN=REMOVED" in log and "HOME/model.py" in log and log.endswith("last line\n")


def test_of_a_long_log_the_end_is_taken(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_report, "LONGEST", 10)
    texts = dict(problem_report.texts_of(run))
    assert texts["runs/subject-1/log.txt"].endswith("]\nlast line\n")
    assert texts["runs/subject-1/log.txt"].startswith("[the last 10 of ")


def test_the_same_run_gives_the_same_bytes_and_no_archive_is_overwritten(certify: Call, run: Path) -> None:
    for name in ("one.tar.gz", "two.tar.gz"):
        problem_report.write_archive(dict(problem_report.texts_of(run)), Path(name))
    first, second = (content(Path(name)) for name in ("one.tar.gz", "two.tar.gz"))
    assert first == second
    again = certify("collect-report", run, "--out", "one.tar.gz")
    assert again.code == 2 and "one.tar.gz exists. Remove it, or give another --out." in again.err


@pytest.mark.parametrize(("given", "why"), [("absent", "There is no directory"), ("machine/dev", "nothing of a run")])
def test_a_directory_without_a_run_is_refused(certify: Call, run: Path, given: str, why: str) -> None:
    done = certify("collect-report", given)
    assert done.code == 2 and why in done.err and not Path("certify-report.tar.gz").exists()
