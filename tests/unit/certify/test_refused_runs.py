"""A run that cannot start is exit code 2 with everything that is missing, and leaves no file and no directory."""

from pathlib import Path

import pytest
import yaml

from harness.certify import environment
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, TEXT, small_case

RUNNERS = [word for side in ("reference", "oracle") for word in (f"--{side}", f"{FAKES}:Fake")]
SUBJECT = ["--subject", f"{FAKES}:Fake"]
RUN = ["run", "case.yaml", *RUNNERS, *SUBJECT]
RECORD = ["baseline", "record", "case.yaml", *RUNNERS, "--author", "A", "--reason", "R"]
DIAGNOSE = ["diagnose", "case.yaml", *RUNNERS, *SUBJECT]
LAUNCH = ["launch", "ranks.yaml", "--nnodes", "2"]
ASCEND = "devices: npu-smi is not installed. Is this the right host?"
NO_RUNNER = "There is no runner 'nobody'"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two cases and some corpora, on a machine with no Ascend device."""
    case = small_case().record()
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    ranks = small_case().with_changes(parallel={"model_parallel": 2}, standards=["official", "strict-fp32"]).record()
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump(ranks))
    (tmp_path / "good.txt").write_text(TEXT)
    (tmp_path / "short.txt").write_text("word")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    return tmp_path


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


def files(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*")}


REFUSED: dict[str, tuple[list[str], str]] = {
    "run on a device that is not there": ([*RUN, "--device", "Ascend", "--out", "new/run"], ASCEND),
    "run on a device that is not there, by default": ([*RUN, "--device", "Ascend"], ASCEND),
    "run without a known subject": ([*RUN, "--subject", "nobody", "--out", "new/run"], NO_RUNNER),
    "run without a known oracle, by default": ([*RUN, "--oracle", "nobody"], NO_RUNNER),
    "run with a reference on a device of another name": ([*RUN, "--reference-device", "cude"], "Did you mean"),
    "run with a fake reference over processes": ([*RUN, "--reference-processes", "2"], "only the runner 'torch'"),
    "run with a reference over no process": ([*RUN, "--reference-processes", "0"], "--reference-processes"),
    "run against the baseline of a directory that is a case": (
        ["run", "--baseline", "qwen3-tiny-fp32"],
        "qwen3-tiny-fp32 is a case: put it first, or --baseline=baselines",
    ),
    "record with a fake reference over processes": ([*RECORD, "--reference-processes", "2"], "only the runner 'torch'"),
    "run without a corpus": ([*RUN, "--text", "absent.txt", "--out", "new/run"], "absent.txt"),
    "run with a corpus that is too short": ([*RUN, "--text", "short.txt", "--out", "new/run"], "short.txt"),
    "run with a corpus that is no text, by default": ([*RUN, "--text", "bytes.txt"], "bytes.txt"),
    "run with no files of Megatron": ([*RUN, "--data", "absent"], "absent"),
    "run against a baseline that is not there": ([*RUN, "--baseline", "absent"], "There is no baseline"),
    "record with an unknown runner": ([*RECORD, "--oracle", "nobody"], NO_RUNNER),
    "record without a corpus": ([*RECORD, "--text", "absent.txt", "--baselines", "new/baselines"], "absent.txt"),
    "record with a corpus that is too short": ([*RECORD, "--text", "short.txt"], "short.txt"),
    "diagnose on a device that is not there": ([*DIAGNOSE, "--device", "Ascend"], ASCEND),
    "diagnose without a known reference": ([*DIAGNOSE, "--reference", "nobody", "--out", "new/run"], NO_RUNNER),
    "launch on a device that is not there, where it is judged": (
        [*LAUNCH, "--node-rank", "0", "--device", "Ascend"],
        ASCEND,
    ),
    "launch on a device that is not there, elsewhere": ([*LAUNCH, "--node-rank", "1", "--device", "Ascend"], ASCEND),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(certify_: Call, place: Path, words: list[str], message: str) -> None:
    before = files(place)
    refused = certify_(*words)
    assert refused.code == 2 and message in refused.err
    assert files(place) == before


@pytest.mark.parametrize("command", [RUN, RECORD, DIAGNOSE], ids=["run", "record", "diagnose"])
def test_a_machine_with_too_little_memory_is_refused_before_weights_are_drawn(
    certify_: Call, place: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    large = small_case()
    model = {**large.model.to_hf(), "hidden_size": 4096, "vocab_size": 2**20}
    (place / "case.yaml").write_text(yaml.safe_dump(large.with_changes(model=model).record()))
    before = files(place)
    monkeypatch.setattr(environment, "machine", lambda: {"memory_gib": 8})
    refused = certify_(*command)
    assert refused.code == 2 and "GiB of memory for one run" in refused.err
    assert files(place) == before


def test_everything_that_is_missing_is_in_one_error(
    certify_: Call, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "packages", lambda: dict.fromkeys(("mindspore", "torch", "transformers")))
    refused = certify_("run", "case.yaml", "--device", "Ascend")
    assert refused.code == 2
    for missing in ("package mindspore", "package torch", "package transformers", "devices", "CANN"):
        assert f"{missing}: " in refused.err
    assert "Install it: pip install '.[mindspore]' (the runner 'mindspore' needs it)" in refused.err


@pytest.mark.parametrize("command", [RUN, DIAGNOSE], ids=["run", "diagnose"])
def test_a_full_disk_is_refused(
    certify_: Call, place: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("harness.certify.estimate.LEAST_DISK_GIB", 10**9)
    before = files(place)
    refused = certify_(*command)
    assert refused.code == 2 and f"GiB free at {place}" in refused.err and files(place) == before
