"""A case whose evidence is sketches, through the command line: weights beside its bundle, and its baseline."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from harness.base.digest import digest_each, digest_tensors
from harness.cases.runs_of_a_case import SUBJECT
from harness.evidence.bundle import read_bundle
from qwen3_model.weights import load_safetensors
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, TEXT, small_case

pytestmark = pytest.mark.usefixtures("forked_runs")
RUNNERS = [word for side in ("subject", "reference", "oracle") for word in (f"--{side}", f"{FAKES}:Fake")]


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return caller(capsys, monkeypatch)


@pytest.fixture
def case(tmp_path: Path) -> tuple[object, ...]:
    path, text = tmp_path / "case.yaml", tmp_path / "text.txt"
    path.write_text(yaml.safe_dump(small_case().record() | {"evidence": "sketches"}))
    text.write_text(TEXT)
    return path, "--text", text


def test_kept_weights_are_those_of_the_runs_and_no_part_of_the_bundle(
    certify_: Call, case: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    result = certify_("run", *case, *RUNNERS, "--keep-weights", "--out", out)
    assert result.code == 0 and (out / "manifest.json").is_file(), result.err
    bundle = read_bundle(out)
    kept = tmp_path / "bundle-weights"
    assert digest_tensors(load_safetensors(kept / "initial")) == bundle.inputs.weights
    trained = load_file(kept / "trained" / "state.safetensors")
    trace = bundle.runs[SUBJECT].trace
    assert trace is not None and trace.footer is not None
    assert {name: digest_each(trained)[name] for name in trace.footer.parameters} == dict(trace.footer.parameters)
    assert not list(out.rglob("weights*.safetensors"))
    again = certify_("run", *case, *RUNNERS, "--model", kept / "initial", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert read_bundle(tmp_path / "again").inputs.weights == bundle.inputs.weights


def test_where_they_were_not_kept_the_commands_that_keep_them_are_stated(
    certify_: Call, case: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "a bundle"
    assert certify_("run", *case, *RUNNERS, "--out", out).code == 0
    assert not (tmp_path / "a bundle-weights").exists()
    refused = certify_("checkpoint", out, tmp_path / "new")
    assert refused.code == 2 and "has sketches of its weights" in refused.err
    (command,) = re.findall(r"keep them: certify (.*) Then convert", refused.err)
    words = shlex.split(command)
    assert words[-3:] == ["--keep-weights", "--out", str(tmp_path / "a bundle-again")]
    assert words.count("--out") == 1
    (then,) = re.findall(r"convert them: certify (.*)", refused.err)
    assert shlex.split(then)[1] == str(tmp_path / "a bundle-again-weights" / "trained")


def test_a_baseline_of_sketches_is_recorded_and_judged_against(
    certify_: Call, case: tuple[object, ...], tmp_path: Path
) -> None:
    baselines = ("--baselines", tmp_path / "baselines")
    recorded = certify_("baseline", "record", *case, *RUNNERS[2:], "--author", "A", "--reason", "R", *baselines)
    assert recorded.code == 0, recorded.err
    out = tmp_path / "bundle"
    judged = certify_("run", *case, *RUNNERS, "--baseline", baselines[-1], "--out", out)
    assert judged.code == 0 and "Reference and oracle: baseline" in judged.out, judged.err
    assert not list((tmp_path / "baselines").rglob("weights*"))
    assert certify_("verify", out).code == 0
