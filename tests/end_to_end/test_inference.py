"""A model that is trained, asked and certified through the command line; and the same weights as a checkpoint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from harness.cases.case import Case, load_case
from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT, TRAINING
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.judge import Outcome
from tests.support.certify_process import certify
from tests.support.full import full

FOR_LARGE_EVALUATIONS = ("score-shown", "greedy-length")


def small(**changes: object) -> Case:
    """The shipped case, trained for some seconds and asked little: few shapes are compiled."""
    case = load_case("qwen3-tiny-inference")
    assert case.inference is not None
    asked = {"rows": 2, "prompts": [3, 5], "max_new_tokens": 12, "sampled_tokens": 8, "texts": 6, "documents": 10}
    asked |= {"borders": [16], "decoded_tokens": 2}
    return case.with_changes(
        data={**case.data.model_dump(), "seq_length": 16, "global_batch_size": 8},
        lr_schedule={**case.lr_schedule.model_dump(), "warmup_steps": 2},
        training={**case.training.model_dump(), "steps": 120, "lr_zero_steps": 1},
        inference={**case.inference.model_dump(), **asked, **changes},
    )


def run(case: Case, directory: Path, *words: object) -> tuple[int, str]:
    path = directory / "case.yaml"
    path.write_text(yaml.safe_dump(case.model_dump(mode="json")))
    done = certify("run", path, "--out", directory / "bundle", *words)
    return done.returncode, " ".join(f"{done.stdout} {done.stderr}".split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Bundle]:
    directory = tmp_path_factory.mktemp("inference")
    code, said = run(small(), directory)
    return code, said, read_bundle(directory / "bundle")


def test_a_model_that_is_trained_and_asked_is_certified(trained: tuple[int, str, Bundle]) -> None:
    code, said, bundle = trained
    bad = [f.message for f in bundle.findings if f.outcome is not Outcome.PASS]
    assert [f.criterion for f in bundle.findings if f.outcome is not Outcome.PASS] == list(FOR_LARGE_EVALUATIONS), bad
    assert code == 0 and "Level: Preliminary (Qwen3 tiny, inference on CPU, one process, float32)" in said, said
    assert set(bundle.runs) == {TRAINING, REFERENCE, "reference-2", SUBJECT, "subject-2", ORACLE}


def test_what_is_asked_is_not_what_was_trained_on(trained: tuple[int, str, Bundle]) -> None:
    _, _, bundle = trained
    batches = load_file(bundle.path / "inputs" / "batches.safetensors")["tokens"]
    read = " ".join(map(str, batches[..., :-1].ravel().tolist()))
    evaluation = json.loads((bundle.path / "inputs" / "evaluation.json").read_text())
    assert all(" ".join(map(str, row)) not in read for row in evaluation["rows"])
    for text in evaluation["texts"]:
        assert " ".join(map(str, text.encode())) not in read


@full(
    held_by="tests/end_to_end/test_inference.py::test_a_checkpoint_of_another_model_is_refused, "
    "tests/model/test_qwen3_weights.py::test_one_file_survives_the_round_trip_exactly, "
    "tests/model/test_qwen3_weights.py::test_loaded_model_holds_the_weights_exactly"
)
def test_the_same_weights_as_a_checkpoint_have_the_same_answers(
    trained: tuple[int, str, Bundle], tmp_path: Path
) -> None:
    _, _, bundle = trained
    saved = certify("checkpoint", bundle.path, tmp_path / "model")
    assert saved.returncode == 0, saved.stderr
    code, said = run(small(), tmp_path, "--model", tmp_path / "model")
    assert code == 0, said
    again = read_bundle(tmp_path / "bundle")
    assert TRAINING not in again.runs and again.case.inference is not None
    assert again.case.inference.weights.sha256 == again.inputs.weights
    before, after = (load_file(one.path / "tensors" / f"{SUBJECT}.safetensors") for one in (bundle, again))
    # Nothing was trained on here, so other rows are asked; the conversations are the same.
    assert all(np.array_equal(before[f"template.{n}"], after[f"template.{n}"]) for n in range(3))
    trained_weights = load_file(bundle.path / "tensors" / f"{TRAINING}.safetensors")
    asked = load_file(again.path / "inputs" / "weights.safetensors")
    assert all(np.array_equal(trained_weights[name], asked[name]) for name in trained_weights)


def test_a_checkpoint_of_another_model_is_refused(trained: tuple[int, str, Bundle], tmp_path: Path) -> None:
    _, _, bundle = trained
    model = tmp_path / "model"
    certify("checkpoint", bundle.path, model)
    tensors = load_file(model / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if "k_norm" not in name}, model / "model.safetensors")
    code, said = run(small(), tmp_path, "--model", model)
    assert code == 2 and "is not a checkpoint of the case's model" in said and "k_norm" in said
    shutil.rmtree(model)
    code, said = run(small(), tmp_path, "--model", model)
    assert code == 2 and "cannot be used" in said
