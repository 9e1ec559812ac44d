"""Configurations: exact round trips, published numbers, and one error with every problem."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from qwen3_model.config_problems import Qwen3ConfigError
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.sizes import PUBLISHED, SMALL

# config.json of Qwen/Qwen3-8B as published.
QWEN3_8B = """
{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643,
 "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
 "intermediate_size": 12288, "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
 "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
 "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": false,
 "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true, "use_sliding_window": false,
 "vocab_size": 151936}
"""
# Parameters of the published checkpoints, in billions to one digit, from their model cards.
PARAMETERS = {"0.6B": 0.6, "1.7B": 1.7, "4B": 4.0, "8B": 8.2, "14B": 14.8, "32B": 32.8}


def published_8b(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(QWEN3_8B)
    return fields | changes


def test_published_file_survives_the_round_trip() -> None:
    assert Qwen3Config.from_hf(published_8b()).to_hf() == published_8b()


def test_published_file_equals_the_size_in_the_table() -> None:
    assert Qwen3Config.from_hf(published_8b()) == PUBLISHED["8B"]


@pytest.mark.parametrize("config", [*PUBLISHED.values(), *SMALL.values()], ids=[*PUBLISHED, *SMALL])
def test_every_size_survives_the_round_trip_through_json(config: Qwen3Config) -> None:
    assert Qwen3Config.from_hf(json.loads(json.dumps(config.to_hf()))) == config


@pytest.mark.parametrize("size", PUBLISHED)
def test_published_sizes_have_the_published_number_of_parameters(size: str) -> None:
    c = PUBLISHED[size]
    attention = c.hidden_size * c.head_dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads) + 2 * c.head_dim
    layer = attention + 3 * c.hidden_size * c.intermediate_size + 2 * c.hidden_size
    embeddings = (1 if c.tie_word_embeddings else 2) * c.vocab_size * c.hidden_size
    assert round((c.num_hidden_layers * layer + embeddings + c.hidden_size) / 1e9, 1) == PARAMETERS[size]


def test_small_sizes_have_a_head_width_that_is_not_hidden_size_over_heads() -> None:
    assert SMALL["tiny"].head_dim != SMALL["tiny"].hidden_size // SMALL["tiny"].num_attention_heads


def test_a_directory_or_a_file_is_read(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(QWEN3_8B)
    assert Qwen3Config.from_hf(tmp_path) == Qwen3Config.from_hf(str(tmp_path / "config.json")) == PUBLISHED["8B"]


def test_newer_spelling_of_dtype_and_full_attention_layers_are_read() -> None:
    fields = published_8b(dtype="bfloat16", layer_types=["full_attention"] * 36)
    del fields["torch_dtype"]
    assert Qwen3Config.from_hf(fields) == PUBLISHED["8B"]


def test_all_problems_are_one_error() -> None:
    fields = published_8b(
        rope_scaling={"rope_type": "yarn"},
        attention_bias=True,
        hidden_size="4096",
        num_key_value_heads=7,
        head_dim=127,
        rms_norm_eps=-1.0,
        n_routed_experts=8,
        layer_types=["sliding_attention"],
    )
    del fields["vocab_size"]
    with pytest.raises(Qwen3ConfigError) as error:
        Qwen3Config.from_hf(fields)
    assert list(error.value.problems) == [
        "layer_types: only full_attention is supported, got 'sliding_attention' for 1 of the layers",
        "n_routed_experts: unknown field",
        "vocab_size: missing",
        "hidden_size: expected int, got '4096'",
        "rms_norm_eps: must be positive and finite, got -1.0",
        "rope_scaling: only None is supported, got {'rope_type': 'yarn'}",
        "attention_bias: only False is supported, got True",
        "num_attention_heads: 32 heads cannot share 7 key-value heads evenly",
        "head_dim: rotary embedding needs an even width, got 127",
    ]
    assert all(problem in str(error.value) for problem in error.value.problems)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention_dropout", 0.1),
        ("use_sliding_window", True),
        ("sliding_window", "4096"),
        ("hidden_act", "gelu"),
        ("model_type", "qwen2"),
        ("vocab_size", True),
        ("num_hidden_layers", 0),
        ("rope_theta", float("inf")),
        ("rms_norm_eps", float("nan")),
        ("attention_bias", 0),
    ],
)
def test_an_unsupported_or_invalid_value_is_an_error_that_names_the_field(name: str, value: object) -> None:
    with pytest.raises(Qwen3ConfigError, match=f"^1 problem.*\n{name}: "):
        Qwen3Config.from_hf(published_8b(**{name: value}))


def test_construction_checks_like_reading() -> None:
    with pytest.raises(Qwen3ConfigError, match="head_dim"):
        dataclasses.replace(SMALL["tiny"], head_dim=31)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_unreadable_file_is_a_configuration_error(tmp_path: Any, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Qwen3ConfigError, match=r"config\.json"):
        Qwen3Config.from_hf(tmp_path)


def test_missing_file_is_a_configuration_error(tmp_path: Any) -> None:
    with pytest.raises(Qwen3ConfigError, match="No such file"):
        Qwen3Config.from_hf(tmp_path / "absent.json")


def test_precision_policy_reports_all_unknown_dtypes_at_once() -> None:
    with pytest.raises(Qwen3ConfigError) as error:
        PrecisionPolicy(compute_dtype="bf16", softmax_compute_dtype="float64")
    assert len(error.value.problems) == 2


def test_configuration_and_schedule_import_no_framework() -> None:
    code = (
        "import sys, qwen3_model.configuration_qwen3, qwen3_model.schedule;"
        "print(sorted({'mindspore', 'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["rope_theta", "rms_norm_eps", "initializer_range"])
def test_a_number_beyond_every_float_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be positive and finite"):
        Qwen3Config(**{**vars(PUBLISHED["0.6B"]), name: 10**400})
