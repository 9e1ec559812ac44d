"""`certify diagnose` as a command, with NumPy runners that cannot be tapped."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from harness.cases.case import load_case
from harness.certify import case_options, environment, flow
from harness.certify.diagnose import PAGE, RECORD
from harness.certify.estimate import memory_of_a_diagnosis
from harness.diagnosis.dump_export import export, save_array
from harness.runs.files import GRADIENT
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, options, text_case, text_case_file
from tests.support.fake_runners import AT

pytestmark = pytest.mark.usefixtures("forked_runs")
NOTHING, NAMED, BAD_INPUT, BROKEN = 0, 1, 2, 3


@pytest.fixture
def diagnose(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    others = ("--reference", f"{FAKES}:Fake", "--oracle", f"{FAKES}:Fake")
    return caller(capsys, monkeypatch, "diagnose", *others)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return text_case_file(tmp_path)


def test_the_same_runner_on_every_side_differs_nowhere(diagnose: Call, case: Path, tmp_path: Path) -> None:
    done = diagnose(case, "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out")
    assert (done.code, done.out.splitlines()[0]) == (NOTHING, "nothing differs")
    assert "Fake has no method taps" in done.said
    assert "not recorded values" in done.said
    assert (tmp_path / "out" / PAGE).is_file()


def test_a_foreign_runner_is_named_by_its_numbers_in_one_json_object(
    diagnose: Call, case: Path, tmp_path: Path
) -> None:
    done = diagnose(case, "--subject", f"{FAKES}:OtherGradients", "--out", tmp_path / "out", "--json")
    found = json.loads(done.out)
    assert (done.code, done.err) == (NAMED, "")
    assert found["named"]["place"] == "model.norm.weight"
    assert found["sentence"].startswith("model.norm.weight: gradient differs; 1 of")
    written = json.loads((tmp_path / "out" / RECORD).read_text())
    assert {key: value for key, value in found.items() if key in written} == written
    assert found["page"] == str(tmp_path / "out" / PAGE)


def test_a_bundle_is_diagnosed_by_its_own_inputs_runners_and_long_runs(
    diagnose: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    case = text_case(tmp_path)
    standards = case_options.load_standards(["official"], case)
    made = options(bundle, subject="WrongRate")
    flow.run(case.with_changes(standards=("official",)), standards, made, lambda run, trace: None)
    capsys.readouterr()
    done = diagnose(bundle, "--out", tmp_path / "out")
    assert done.code == NAMED
    assert f"learning rate: wrong from step {AT} on" in done.said
    assert f"{FAKES}:WrongRate" in done.said
    assert (tmp_path / "out" / "inputs" / "batches.safetensors").read_bytes() == (
        bundle / "inputs" / "batches.safetensors"
    ).read_bytes()


def test_a_failed_subject_is_reported_with_the_end_of_its_log(diagnose: Call, case: Path, tmp_path: Path) -> None:
    done = diagnose(case, "--subject", f"{FAKES}:Killed", "--out", tmp_path / "out")
    assert done.code == BROKEN
    assert "the subject's run failed: killed by SIGKILL" in done.said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no-such-case",), "no-such-case"),
        (("--subject", "nobody"), "There is no runner 'nobody'"),
        (("--device", "TPU"), "There is no device 'TPU'"),
    ],
)
def test_bad_input_is_a_message(diagnose: Call, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = diagnose(*arguments, "--out", tmp_path / "out")
    assert done.code == BAD_INPUT
    assert message in done.err


def test_a_directory_that_is_no_bundle_is_bad_input(diagnose: Call, tmp_path: Path) -> None:
    done = diagnose(tmp_path)
    assert done.code == BAD_INPUT
    assert "not a finished bundle" in done.err


def test_a_directory_that_holds_something_is_not_taken(diagnose: Call, case: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    done = diagnose(case, "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out")
    assert done.code == BAD_INPUT
    assert "is not empty" in done.err


def test_a_bundle_without_tensors_is_diagnosed_with_its_weights_drawn_again(
    diagnose: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    case = text_case(tmp_path).with_changes(standards=("official",), evidence="sketches")
    made = options(bundle, subject="OtherGradients")
    flow.run(case, case_options.load_standards(["official"], case), made, lambda run, trace: None)
    capsys.readouterr()
    done = diagnose(bundle, "--rows", 1, "--length", 4, "--out", tmp_path / "out", "--json")
    found = json.loads(done.out)
    assert (done.code, found["named"]["place"]) == (NAMED, "model.norm.weight")
    tokens, given = (read_tensors(at / "inputs" / BATCHES)["tokens"] for at in (tmp_path / "out", bundle))
    assert tokens.shape == (len(given), 1, 5) and (tokens == given[:, :1, :5]).all()
    assert not (tmp_path / "out" / "inputs" / WEIGHTS).exists(), "they follow from the case"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", "99"), "--rows 99 is more than"),
        (("--length", "9999"), "--length 9999 is more than"),
        (("--layers", "99"), "--layers 99 cuts nothing"),
    ],
)
def test_more_than_the_case_has_is_bad_input(
    diagnose: Call, case: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = diagnose(case, *arguments, "--out", tmp_path / "out")
    assert done.code == BAD_INPUT and message in done.err
    assert not (tmp_path / "out").exists()


def test_a_step_that_does_not_fit_into_memory_is_refused_with_one_that_does(
    diagnose: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {**environment.machine(), "memory_gib": 24.0}
    monkeypatch.setattr(environment, "machine", lambda: there)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=2**40, free=2**40))
    # a case whose runs fit, and whose step does not
    case = load_case("qwen3-0.6b-fp32")
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(case.model_dump(mode="json")))
    done = diagnose(path, "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out")
    assert done.code == BAD_INPUT
    assert "what is inside a step takes about" in done.err
    found = re.search(r"--rows 1 --length (\d+)", done.err)
    assert found is not None and 64 <= int(found[1]) < case.data.seq_length
    assert memory_of_a_diagnosis(case_options.shortened(case, 1, int(found[1]))) <= 24


def test_a_dump_stands_for_the_subject_which_does_not_run(diagnose: Call, case: Path, tmp_path: Path) -> None:
    """The runners here cannot be tapped, so the dump is compared by the gradients of parameters."""
    first = diagnose(case, "--subject", f"{FAKES}:Fake", "--out", tmp_path / "first")
    assert first.code == NOTHING
    tensors = read_tensors(tmp_path / "first" / "tensors" / "subject-taps.safetensors")
    gradients = {name: tensor for name, tensor in tensors.items() if name.startswith(GRADIENT)}
    for name, factor, code in (("same", 1, NOTHING), ("other", 3, NAMED)):
        changed = {**gradients, f"{GRADIENT}model.norm.weight": gradients[f"{GRADIENT}model.norm.weight"] * factor}
        place = export(changed, tmp_path / name, "mindspore", save_array)
        done = diagnose(case, "--dump", place, "--out", tmp_path / f"{name}-out", "--json")
        found = json.loads(done.out)
        assert done.code == code, done
        assert found["subject"] == "dump of mindspore by msprobe (tensor, L0)"
        assert {path.name for path in (tmp_path / f"{name}-out" / "runs").iterdir()} == {
            "reference-taps",
            "oracle-taps",
        }
    assert found["named"]["place"] == "model.norm.weight" and list(found["taps"]) == ["reference", "oracle"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dump", "nowhere"], "holds no dump.json"),
        (["--dump", "nowhere", "--subject", f"{FAKES}:Fake"], "omit --subject and --step"),
        (["--dump", "nowhere", "--step", "3"], "omit --subject and --step"),
    ],
)
def test_a_dump_that_cannot_be_used_is_bad_input(
    diagnose: Call, case: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    done = diagnose(case, *words, "--out", tmp_path / "out")
    assert done.code == BAD_INPUT and said in done.said and not (tmp_path / "out").exists()


def test_what_was_not_tapped_is_not_exported(diagnose: Call, case: Path, tmp_path: Path) -> None:
    done = diagnose(case, "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out", "--export", tmp_path / "dumps")
    assert done.code == BAD_INPUT and "no tensors of places" in done.said
