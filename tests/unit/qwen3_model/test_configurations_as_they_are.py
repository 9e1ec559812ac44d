"""`config.json` and weights as they are found: what has no effect is read over, and what has one is never ignored."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_model.config_problems import Qwen3ConfigError
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.sizes import SMALL
from qwen3_model.weights import WeightsError, check_safetensors, load_safetensors, save_safetensors

TINY = SMALL["tiny"]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 123\n"


def read(without: tuple[str, ...] = (), **changes: Any) -> Qwen3Config:
    fields = {name: value for name, value in TINY.to_hf().items() if name not in without}
    return Qwen3Config.from_hf({**fields, **changes})


@pytest.mark.parametrize(
    "fields",
    [
        {"pad_token_id": 0},
        {"pad_token_id": None},
        {"_name_or_path": "somewhere/model"},
        {"sliding_window": 4096},
        {"sliding_window": 4096, "use_sliding_window": False},
        {"quantization_config": None},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 1000000.0}},
        {"rope_parameters": {"rope_theta": 1000000.0, "partial_rotary_factor": 1.0}},
        {"rope_parameters": None},
        {"layer_types": None},
        {"layer_types": ["full_attention"] * 2},
        {"dtype": "bfloat16", "torch_dtype": "bfloat16"},
        {"torch_dtype": None},
        {"architectures": None},
        {"use_cache": None},
        {"_attn_implementation_autoset": True},
        {"tokenizer_class": "Qwen2Tokenizer", "unsloth_version": "2025.1"},
        {"anything_of_tomorrow": None},
        # a configuration that is written out in full
        {"chunk_size_feed_forward": 0, "is_decoder": False, "pruned_heads": {}, "use_bfloat16": False},
        {"do_sample": False, "temperature": 1.0, "top_k": 50, "num_beams": 1, "max_length": 20},
        {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": None},
        {"trust_remote_code": False, "attn_implementation": "sdpa", "pretraining_tp": 1, "hidden_dropout": 0.0},
    ],
)
def test_fields_without_effect_give_the_same_model(fields: dict[str, Any]) -> None:
    assert read(**fields) == TINY


def test_the_form_of_transformers_5_is_the_same_model() -> None:
    rope = {"rope_theta": 1000000, "rope_type": "default"}
    newer = read(("rope_theta", "rope_scaling", "torch_dtype"), rope_parameters=rope, dtype="bfloat16")
    assert newer == TINY


def test_of_several_ends_of_a_text_the_first_is_kept() -> None:
    assert read(eos_token_id=[2, 3]) == read(eos_token_id=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: only None is supported, got"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
            "only rope_type 'default' is implemented, got 'yarn'",
        ),
        ({"rope_parameters": {"rope_theta": 5000.0}}, "rope_theta 5000.0 contradicts rope_theta 1000000"),
        ({"rope_parameters": [1]}, "rope_parameters: expected an object"),
        (
            {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}},
            "rope_parameters: partial_rotary_factor is not implemented, got 0.5",
        ),
        ({"rope_scaling": {"rope_type": "default", "factor": 4.0}}, "rope_scaling: factor is not implemented, got 4.0"),
        ({"sliding_window": 4096, "use_sliding_window": True}, "use_sliding_window: only False is supported"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config: quantized weights (awq) are not"),
        ({"quantization": {"bits": 4}}, "quantization: quantized weights are not implemented"),
        ({"is_decoder": True}, "is_decoder: unknown field"),
        ({"pruned_heads": {"1": [0]}}, "pruned_heads: unknown field"),
        ({"hidden_dropout": 0.1}, "hidden_dropout: unknown field"),
        ({"layer_types": ["full_attention"]}, "layer_types: 1 layers, but num_hidden_layers is 2"),
        (
            {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 128},
            "model_type: 'qwen3_moe', architectures Qwen3MoeForCausalLM is another model; only 'qwen3'",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types: only full_attention"),
        ({"dtype": "float32"}, "dtype: 'float32' contradicts torch_dtype 'bfloat16'"),
        ({"eos_token_id": []}, "eos_token_id: expected"),
        ({"eos_token_id": [2, "3"]}, "eos_token_id: expected"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, "auto_map: unknown field"),
        ({"num_experts": 128}, "num_experts: unknown field"),
    ],
)
def test_fields_with_an_effect_are_never_ignored(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Qwen3ConfigError) as refused:
        read(**fields)
    assert message in str(refused.value) and len(refused.value.problems) == 1


def test_a_file_may_begin_with_a_byte_order_mark_and_a_pointer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(TINY.to_hf()).encode())
    assert Qwen3Config.from_hf(tmp_path) == TINY
    path.write_text(LFS)
    with pytest.raises(Qwen3ConfigError, match="a Git LFS pointer, not the file; run 'git lfs pull' there"):
        Qwen3Config.from_hf(tmp_path)


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_hf())[:-1] + ', "vocab_size": 1000}')
    with pytest.raises(Qwen3ConfigError, match="the key 'vocab_size' is given twice"):
        Qwen3Config.from_hf(tmp_path)


def checkpoint(directory: Path, shards: bool) -> list[Path]:
    tensors = {name: np.arange(64, dtype=np.float32) for name in "abcd"}
    return save_safetensors(tensors, directory, 300 if shards else "5GB")


@pytest.mark.parametrize("shards", [False, True])
def test_weights_that_are_cut_or_a_pointer_are_named_at_once_by_header_and_size(shards: bool, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, shards)[0]
    check_safetensors(tmp_path)
    whole = path.read_bytes()
    damages = {
        LFS.encode(): "a Git LFS pointer, not the file; run 'git lfs pull' there",
        whole[:-1]: f"it has {len(whole) - 1:,} of {len(whole):,} bytes: the download is not complete",
        whole[: len(whole) // 3]: "",
        whole[:5]: "cut, or no safetensors file",
        b"": "cut, or no safetensors file",
        whole + b"x": "it is too long",
        b"<!DOCTYPE html><html>not found</html>": "cut, or no safetensors file",
        (4).to_bytes(8, "little") + b"nope": "its header cannot be read",
    }
    for content, message in damages.items():
        path.write_bytes(content)
        for act in (check_safetensors, load_safetensors):
            with pytest.raises(WeightsError) as refused:
                act(tmp_path)
            assert message in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', LFS])
def test_an_index_that_is_none_is_an_error(index: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, True)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    for act in (check_safetensors, load_safetensors):
        with pytest.raises(WeightsError):
            act(tmp_path)
