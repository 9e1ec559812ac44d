"""Reading of Hugging Face's `config.json`: names of every release, and what has no effect or is not implemented.

Features that the model does not implement (rope scaling, sliding windows, quantization) are an error, never ignored.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qwen3_model.config_problems import Qwen3ConfigError, is_a

# What transformers and others write into `config.json` without effect on the model.
_WITHOUT_EFFECT = frozenset(
    {
        "_name_or_path",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "pad_token_id",
        "tokenizer_class",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "use_return_dict",
        "torchscript",
        "trust_remote_code",
        "unsloth_fixed",
        "unsloth_version",
        "attn_implementation",
        # a classifier's, which every configuration of transformers has when it is written out in full
        "finetuning_task",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "task_specific_params",
        "prefix",
        # how texts are generated, which transformers up to 4 kept here too
        "bad_words_ids",
        "begin_suppress_tokens",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
    }
)
# What would change the model and does not at these values, which transformers writes where nothing is changed.
_OFF: Mapping[str, Any] = MappingProxyType(
    {
        "add_cross_attention": False,
        "chunk_size_feed_forward": 0,
        "hidden_dropout": 0,
        "is_decoder": False,
        "is_encoder_decoder": False,
        "mlp_bias": False,
        "pretraining_tp": 1,
        "pruned_heads": {},
        "tf_legacy_loss": False,
        "tie_encoder_decoder": False,
        "use_bfloat16": False,
    }
)
_QUANTIZED = ("quantization_config", "quantization")
_FACTORS = ("partial_rotary_factor", "factor", "attention_factor")  # of the rotary embedding; 1 changes nothing


def read_config(source: Mapping[str, Any] | str | Path) -> tuple[dict[str, Any], list[str]]:
    """The stated fields by the names of `Qwen3Config`, and every problem of what was read under another name.

    Fields without effect on the model, and fields that are null, are not among them.

    Raises:
        Qwen3ConfigError: it cannot be read, or is a configuration of another model.
    """
    values = dict(source) if isinstance(source, Mapping) else _read_json(Path(source))
    # null states nothing
    values = {name: value for name, value in values.items() if value is not None and name not in _WITHOUT_EFFECT}
    if other := _other_model(values):
        raise Qwen3ConfigError([other])
    values = {name: value for name, value in values.items() if not _is_off(name, value)}
    quantized = [f"{name}: {_quantized(values.pop(name))}" for name in _QUANTIZED if name in values]
    layer_types = values.pop("layer_types", None)
    other_names = list(_take_other_names(values))
    if isinstance(values.get("architectures"), list):
        values["architectures"] = tuple(values["architectures"])
    eos = values.get("eos_token_id")
    if isinstance(eos, list) and eos and all(is_a(int, one) for one in eos):
        values["eos_token_id"] = eos[0]
    if is_a(int, values.get("sliding_window")):  # without effect; use_sliding_window is rejected
        del values["sliding_window"]
    of_layers = _layer_type_problems(layer_types, values.get("num_hidden_layers"))
    return values, [*quantized, *other_names, *of_layers]


def _read_json(path: Path) -> dict[str, Any]:
    path = path / "config.json" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8-sig")
        if text.startswith("version https://git-lfs"):
            raise Qwen3ConfigError([f"{path}: a Git LFS pointer, not the file; run 'git lfs pull' there"])
        values = json.loads(text, object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, Qwen3ConfigError):
            raise
        raise Qwen3ConfigError([f"{path}: {getattr(error, 'strerror', None) or error}"]) from error
    if not isinstance(values, dict):
        raise Qwen3ConfigError([f"{path}: expected a JSON object, got {type(values).__name__}"])
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which every key is given once."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return values


def _take_other_names(values: dict[str, Any]) -> Iterator[str]:
    """Gives fields of newer releases their older names; every problem of them."""
    if "dtype" in values:
        dtype = values.pop("dtype")
        if values.setdefault("torch_dtype", dtype) != dtype:
            yield f"dtype: {dtype!r} contradicts torch_dtype {values['torch_dtype']!r}"
    scaling = values.get("rope_scaling")
    if isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) == "default":
        yield from _other_rope_keys("rope_scaling", scaling)
        del values["rope_scaling"]
    rope = values.pop("rope_parameters", None)
    if rope is None:
        return
    if not isinstance(rope, dict):
        yield f"rope_parameters: expected an object with rope_theta and rope_type, got {rope!r}"
        return
    kind = rope.get("rope_type", "default")
    if kind != "default":
        yield f"rope_parameters: only rope_type 'default' is implemented, got {kind!r}"
    else:
        yield from _other_rope_keys("rope_parameters", rope)
    if "rope_theta" in rope and values.setdefault("rope_theta", rope["rope_theta"]) != rope["rope_theta"]:
        yield f"rope_parameters: rope_theta {rope['rope_theta']!r} contradicts rope_theta {values['rope_theta']!r}"


def _other_rope_keys(name: str, rope: Mapping[str, Any]) -> Iterator[str]:
    """A key of the plain rotary embedding that would change it. A whole rotary embedding is the default."""
    for key, value in rope.items():
        if (
            key not in ("rope_type", "type", "rope_theta")
            and not (key in _FACTORS and value == 1)
            and value is not None
        ):
            yield f"{name}: {key} is not implemented, got {value!r}"


def _other_model(values: Mapping[str, Any]) -> str | None:
    """A sentence about a configuration of another model, whose other fields say nothing about this one."""
    kind, classes = values.get("model_type", "qwen3"), values.get("architectures")
    if kind == "qwen3":
        return None
    made = f", architectures {', '.join(map(str, classes))}" if isinstance(classes, list) and classes else ""
    return f"model_type: {kind!r}{made} is another model; only 'qwen3', the dense Qwen3, is supported"


def _is_off(name: str, value: Any) -> bool:
    return name in _OFF and value == _OFF[name] and isinstance(value, bool) == isinstance(_OFF[name], bool)


def _quantized(value: Any) -> str:
    method = value.get("quant_method", value.get("mode")) if isinstance(value, Mapping) else None
    return (
        f"quantized weights{f' ({method})' if method else ''} are not implemented: give the model without quantization"
    )


def _layer_type_problems(layer_types: Any, layers: Any) -> Iterator[str]:
    if layer_types is None:
        return
    if not isinstance(layer_types, list):
        yield f"layer_types: expected a list, got {layer_types!r}"
        return
    if other := [kind for kind in layer_types if kind != "full_attention"]:
        yield f"layer_types: only full_attention is supported, got {other[0]!r} for {len(other)} of the layers"
    elif is_a(int, layers) and len(layer_types) != layers:
        yield f"layer_types: {len(layer_types)} layers, but num_hidden_layers is {layers}"
