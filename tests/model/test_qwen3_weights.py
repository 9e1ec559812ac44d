"""Weights: exact round trips, Hugging Face's layout, and one error with every key that does not fit."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.sizes import SMALL
from qwen3_model.weights import INDEX_FILE, SINGLE_FILE, WeightsError, load_into, load_safetensors, save_safetensors
from tests.model.qwen3_cases import differing, random_weights, weight_shapes


def write_tensor(path: Path, dtype: str, shape: list[int], data: bytes) -> None:
    """A safetensors file with one tensor "w", written by hand: numpy has no bfloat16."""
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


@pytest.mark.parametrize("size", SMALL)
def test_parameter_names_and_shapes_are_hugging_faces(size: str) -> None:
    model = Qwen3ForCausalLM(SMALL[size])
    assert {p.name: tuple(p.shape) for p in model.get_parameters()} == weight_shapes(SMALL[size])


def test_tied_model_has_no_head_of_its_own() -> None:
    assert "lm_head.weight" not in {p.name for p in Qwen3ForCausalLM(SMALL["tiny-tied"]).get_parameters()}


def test_one_file_survives_the_round_trip_exactly(tmp_path: Path) -> None:
    weights = random_weights(SMALL["tiny"])
    assert save_safetensors(weights, tmp_path) == [tmp_path / SINGLE_FILE]
    assert differing(load_safetensors(tmp_path), weights) == []
    assert differing(load_safetensors(tmp_path / SINGLE_FILE), weights) == []


def test_shards_survive_the_round_trip_exactly(tmp_path: Path) -> None:
    weights = random_weights(SMALL["tiny"])
    *shards, index = save_safetensors(weights, tmp_path, max_shard_size="100KB")
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(sum(t.nbytes for t in load_safetensors(shard).values()) <= 100_000 for shard in shards)
    assert json.loads(index.read_text())["metadata"]["total_size"] == sum(w.nbytes for w in weights.values())
    assert differing(load_safetensors(tmp_path), weights) == differing(load_safetensors(index), weights) == []


def test_tensor_larger_than_a_shard_is_kept_whole(tmp_path: Path) -> None:
    weights = {"a": np.zeros(100, np.float32), "b": np.ones(3, np.float32)}
    assert len(save_safetensors(weights, tmp_path, max_shard_size=8)) == 3
    assert differing(load_safetensors(tmp_path), weights) == []


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F80], dtype=np.uint16)
    write_tensor(tmp_path / SINGLE_FILE, "BF16", [4], bits.tobytes())
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    assert load_safetensors(tmp_path)["w"].tobytes() == expected.tobytes()


def test_loaded_model_holds_the_weights_exactly() -> None:
    weights = random_weights(SMALL["tiny"])
    model = Qwen3ForCausalLM(SMALL["tiny"])
    load_into(model, weights)
    assert differing({p.name: p.asnumpy() for p in model.get_parameters()}, weights) == []


def test_all_keys_that_do_not_fit_are_one_error_and_nothing_is_loaded() -> None:
    model = Qwen3ForCausalLM(SMALL["tiny"])
    before = {p.name: p.asnumpy().copy() for p in model.get_parameters()}
    weights = random_weights(SMALL["tiny"])
    del weights["model.norm.weight"], weights["lm_head.weight"]
    weights["model.layers.2.mlp.up_proj.weight"] = np.zeros((1, 2), np.float32)
    weights["model.layers.0.self_attn.q_norm.weight"] = np.zeros(64, np.float32)
    with pytest.raises(WeightsError) as error:
        load_into(model, weights)
    assert list(error.value.problems) == [
        "missing: lm_head.weight (320, 64)",
        "missing: model.norm.weight (64,)",
        "unexpected: model.layers.2.mlp.up_proj.weight (1, 2)",
        "misshapen: model.layers.0.self_attn.q_norm.weight is (64,), expected (32,)",
    ]
    assert differing({p.name: p.asnumpy() for p in model.get_parameters()}, before) == []


def test_head_in_a_tied_checkpoint_is_unexpected() -> None:
    weights = random_weights(SMALL["tiny-tied"])
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    with pytest.raises(WeightsError, match=r"unexpected: lm_head\.weight"):
        load_into(Qwen3ForCausalLM(SMALL["tiny-tied"]), weights)


def test_index_that_disagrees_with_its_shards_is_one_error(tmp_path: Path) -> None:
    save_safetensors({"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}, tmp_path, max_shard_size=16)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    index["weight_map"] = {"a": "model-00001-of-00002.safetensors", "c": "model-00001-of-00002.safetensors"}
    index["weight_map"]["d"] = "absent.safetensors"
    index["weight_map"]["e"] = "model-00002-of-00002.safetensors"
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(WeightsError) as error:
        load_safetensors(tmp_path)
    assert list(error.value.problems) == [
        "missing shard: absent.safetensors",
        "model-00001-of-00002.safetensors: lacks c, which the index lists",
        "model-00002-of-00002.safetensors: lacks e, which the index lists",
        "model-00002-of-00002.safetensors: holds b, which the index does not list",
    ]


def test_nothing_to_load_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_safetensors(tmp_path)


def test_integer_tensors_are_not_weights(tmp_path: Path) -> None:
    write_tensor(tmp_path / SINGLE_FILE, "I64", [1], bytes(8))
    with pytest.raises(WeightsError, match="w: dtype I64"):
        load_safetensors(tmp_path)


@pytest.mark.parametrize("size", ["5 apples", "-1", "1.5GB"])
def test_size_that_is_not_one_is_refused(tmp_path: Path, size: str) -> None:
    with pytest.raises(ValueError, match="max_shard_size"):
        save_safetensors({}, tmp_path, max_shard_size=size)


def test_parameters_take_the_params_dtype() -> None:
    model = Qwen3ForCausalLM(SMALL["tiny"], PrecisionPolicy(params_dtype="bfloat16"))
    load_into(model, random_weights(SMALL["tiny"]))
    assert {p.dtype for p in model.get_parameters()} == {ms.bfloat16}
