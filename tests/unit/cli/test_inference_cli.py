"""The commands with an inference case: each works, or exits with code 2 and states what it cannot do."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.evidence.bundle import Bundle
from harness.runs.trace import Scored
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import inference_case, small_case

MET, NOT_MET, BAD_INPUT = 0, 1, 2
CASE = "qwen3-tiny-inference"


@pytest.fixture
def certify(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("inference") / "bundle", case=inference_case())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diagnose", CASE), "'certify diagnose' looks into a step of training"),
        (("floor", CASE, "--out", "floor.json"), "'certify floor' repeats the training of the reference"),
        (("plan", CASE), "'certify plan' computes the memory of a training step"),
        (("plan", CASE, "--cards", 8, "--memory", "58GB"), "'certify plan' computes the memory of a training step"),
        (("plan", CASE, "--compile"), f"compiles a training step; {CASE} is a case of inference"),
        (("launch", CASE), "has one process, so there is nothing to launch. Run it: certify run qwen3-tiny-inference"),
        (("baseline", "record", CASE, "--author", "A", "--reason", "R"), "its weights are trained on each machine"),
        (("run", CASE, "--baseline", "--out", "out"), "--model DIR"),
        (("run", "qwen3-tiny-fp32", "--model", "."), ". cannot be used"),
        (("run", CASE, "--standard", "official", "--out", "out"), "official judges pretrain"),
    ],
)
def test_what_a_command_cannot_do_is_an_error(
    certify: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = certify(*arguments)
    assert (done.code, done.out) == (BAD_INPUT, "")
    assert said in done.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_bundle_of_inference_cannot_be_diagnosed(certify: Call, bundle: Bundle) -> None:
    done = certify("diagnose", bundle.path)
    assert done.code == BAD_INPUT and f"{CASE} is a case of inference" in done.err


def test_a_bundle_is_verified_and_its_level_computed(certify: Call, bundle: Bundle) -> None:
    assert certify("verify", bundle.path).code == MET
    done = certify("level", bundle.path, "--at", "2026-02-01", "--json")
    (found,) = json.loads(done.out)["levels"]
    assert (done.code, found["level"], found["scope"]["task"]) == (MET, "Preliminary", "inference")


def test_a_report_offers_no_diagnosis(certify: Call, tmp_path: Path) -> None:
    def wrong(run: str, line: object) -> object:
        changed = isinstance(line, Scored) and run == "subject-1" and line.step == 3
        return dataclasses.replace(line, log_likelihoods=(-1.0,), score=-1.0) if changed else line

    made = write_example(tmp_path / "b", case=inference_case(), change=wrong)
    done = certify("report", made.path)
    assert done.code == MET and "FAIL" in done.out and "diagnose" not in done.out
    assert "certify diagnose" not in (made.path / "report.html").read_text()


def test_two_bundles_of_one_case_are_compared(certify: Call, bundle: Bundle, tmp_path: Path) -> None:
    def moved(run: str, line: object) -> object:
        if not isinstance(line, Scored) or not run.startswith("subject"):
            return line
        likelihoods = tuple(1.0000001 * one for one in line.log_likelihoods)
        score = likelihoods[0] if line.task == "text" else line.score
        return dataclasses.replace(line, log_likelihoods=likelihoods, score=score)

    other = write_example(tmp_path / "b", case=inference_case(), change=moved)
    done = certify("diff", bundle.path, other.path, "--json")
    found = json.loads(done.out)
    assert found["kind"] == "toolchain drift"
    assert "log_likelihood 1e-07" in found["reason"] and "no measured floor" in found["reason"]
    training = write_example(tmp_path / "training", case=small_case())
    assert json.loads(certify("diff", bundle.path, training.path, "--json").out)["kind"] == "another case"


def trace(bundle: Bundle, run: str) -> Path:
    return bundle.path / "runs" / run / "trace.jsonl"


def test_traces_are_compared_document_by_document(certify: Call, bundle: Bundle, tmp_path: Path) -> None:
    same = certify("compare", trace(bundle, "subject-1"), trace(bundle, "subject-2"))
    assert same.code == MET and "52 documents" in same.out and "first in none" in same.out
    done = certify("compare", trace(bundle, "reference-1"), trace(bundle, "subject-1"), "--json")
    found = json.loads(done.out)
    assert (done.code, found["same"]) == (NOT_MET, False)
    assert 0 < found["log_likelihoods"]["maximum"] < 1e-7
    assert found["log_likelihoods"]["first_difference"] == "text 1"


def test_a_trace_of_training_has_no_number_in_common_with_one_of_inference(certify: Call, bundle: Bundle) -> None:
    done = certify("compare", trace(bundle, "training"), trace(bundle, "subject-1"))
    assert done.code == BAD_INPUT and "no number in common" in done.err
