"""Checkpoints as people have them: what differs from the case's model is named before anything runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from harness.base.errors import InputError
from harness.cases.case import Case, load_case
from harness.certify.case_options import with_model
from harness.certify.jobs import Options
from harness.certify.prerequisites import check
from harness.corpus.draw import draw_weights
from qwen3_model.configuration_qwen3 import parameter_shapes
from qwen3_model.sizes import SMALL
from tests.support.command_line import caller

Tensors = dict[str, npt.NDArray[Any]]
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def tensors_of(size: str) -> Tensors:
    return {name: np.full(shape, 0.5, np.float32) for name, shape in parameter_shapes(SMALL[size])}


def model(directory: Path, tensors: Tensors, size: str = "tiny", **changes: Any) -> Case:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(SMALL[size].to_hf() | changes))
    save_file(tensors, directory / SINGLE)
    return with_model(load_case("qwen3-tiny-fp32"), directory)


def refused(case: Case) -> str:
    """What is said before anything else is checked."""
    with pytest.raises(InputError) as error:
        check(case, Options(out=Path("out"), command=("certify",)), [])
    return str(error.value)


CHANGES: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "no head": (lambda all: all.pop(HEAD), f"missing: {HEAD} (320, 64)"),
    "a bias": (
        lambda all: all.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(128, np.float32)}),
        "unexpected: model.layers.0.self_attn.q_proj.bias (128,)",
    ),
    "another vocabulary": (
        lambda all: all.update({EMBEDDING: np.zeros((400, 64), np.float32)}),
        f"misshapen: {EMBEDDING} is (400, 64), expected (320, 64)",
    ),
    "quantized": (lambda all: all.update({NORM: np.ones(64, np.int8)}), f"{NORM}: dtype I8 is not supported"),
    "names of a wrapper": (
        lambda all: [all.update({f"module.{name}": all.pop(name)}) for name in list(all)],
        f"missing: {HEAD} (320, 64)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_from_the_model_is_named_by_the_headers_alone(change: str, tmp_path: Path) -> None:
    act, message = CHANGES[change]
    act(tensors := tensors_of("tiny"))
    said = refused(model(tmp_path / "model", tensors))
    assert message in said and str(tmp_path / "model") in said


def test_of_many_differences_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    said = refused(model(tmp_path / "model", tensors_of("tiny"), num_hidden_layers=4, max_window_layers=4))
    assert said.count("missing: model.layers.2.") == 5 and "and 17 more" in said


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_tied_head_may_be_stored_too_and_has_to_be_the_embedding(dtype: type[np.generic], tmp_path: Path) -> None:
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors_of("tiny-tied").items()}
    tensors[HEAD] = tensors[EMBEDDING].copy()
    case = model(tmp_path / "model", tensors, "tiny-tied")
    assert HEAD not in draw_weights(case)
    tensors[HEAD][3, 5] += 1
    with pytest.raises(InputError, match=f"has a {HEAD} that is not its {EMBEDDING}, although its config.json"):
        draw_weights(model(tmp_path / "model", tensors, "tiny-tied"))


def test_a_number_that_is_not_finite_is_named_by_its_tensor(tmp_path: Path) -> None:
    tensors = tensors_of("tiny")
    tensors[NORM][3] = np.nan
    with pytest.raises(InputError, match=f"has numbers that are not finite in {NORM}"):
        draw_weights(model(tmp_path / "model", tensors))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pytorch_model.bin", "is no safetensors file: load it with transformers"),
        ("pytorch_model-00001-of-00002.bin", "is no safetensors file: load it with transformers"),
        ("adapter_model.safetensors", "is an adapter and no model: merge it"),
        ("consolidated.safetensors", "is not the file of a whole model"),
        ("qwen3_rank_0-1_1.ckpt", "is a checkpoint of MindSpore: convert it"),
        ("qwen3-q4.gguf", "is in the format of llama.cpp"),
    ],
)
def test_weights_in_another_form_are_named_with_what_to_do(name: str, what: str, tmp_path: Path) -> None:
    case = model(tmp_path / "model", tensors_of("tiny"))
    (tmp_path / "model" / SINGLE).rename(tmp_path / "model" / name)
    said = refused(case)
    assert f"no such file; {name} {what}" in said and str(tmp_path / "model") in said


def test_a_directory_with_both_forms_of_a_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "model", tensors_of("tiny"))
    (tmp_path / "model" / INDEX).write_text(json.dumps({"weight_map": {}}))
    done = caller(capsys, monkeypatch)("run", "qwen3-tiny-fp32", "--model", tmp_path / "model")
    assert done.code == 2 and f"{SINGLE} and {INDEX} are both there" in done.said


def test_a_shard_that_is_not_as_its_index_lists_is_named_at_once(tmp_path: Path) -> None:
    case = model(tmp_path / "model", tensors := tensors_of("tiny"))
    (tmp_path / "model" / SINGLE).rename(tmp_path / "model" / "a.safetensors")
    listed = dict.fromkeys([name for name in tensors if name != HEAD], "a.safetensors")
    (tmp_path / "model" / INDEX).write_text(json.dumps({"weight_map": listed}))
    assert f"a.safetensors: holds {HEAD}, which the index does not list" in refused(case)
