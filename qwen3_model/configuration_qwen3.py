"""The configuration of a dense Qwen3 model, with the field names of Hugging Face's `config.json`.

Reads a published `config.json` (or its fields) into one frozen record, or raises a single error that lists every
problem. No framework is imported here: a reader of configurations needs none.
Features that the model does not implement (rope scaling, biases, sliding windows, dropout, quantization) are an error,
never ignored. Fields without effect on the model, and fields that are null, are read over.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any


class Qwen3ConfigError(ValueError):
    """A configuration that cannot be used; `problems` holds every reason, the message lists them all."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{len(problems)} problem(s) in the Qwen3 configuration:", *problems]))


@dataclass(frozen=True, kw_only=True)
class Qwen3Config:
    """A dense Qwen3 model. Every instance is valid: construction checks all fields and reports all problems.

    Fields without effect on a training step are kept so that a published `config.json` survives the round trip.

    Source: transformers 4.57.1, `configuration_qwen3.py`; the published `config.json` files of Qwen3.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    rope_theta: float = 1_000_000
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    initializer_range: float = 0.02
    rope_scaling: None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    use_sliding_window: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 28
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    use_cache: bool = True
    torch_dtype: str = "bfloat16"
    architectures: tuple[str, ...] = ("Qwen3ForCausalLM",)
    model_type: str = "qwen3"
    transformers_version: str = "4.51.0"

    def __post_init__(self) -> None:
        problems = list(_problems(asdict(self)))
        if problems:
            raise Qwen3ConfigError(problems)

    @property
    def num_key_value_groups(self) -> int:
        """How many query heads share one key and value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @classmethod
    def from_hf(cls, source: Mapping[str, Any] | str | Path) -> "Qwen3Config":
        """The configuration in a mapping, in a `config.json`, or in the directory that holds one.

        `dtype` (transformers from 4.56) is read as `torch_dtype`, and `rope_parameters` (from 5) as `rope_theta`;
        `layer_types` must be full attention throughout. Of several `eos_token_id` the first is kept, and a
        `sliding_window` that `use_sliding_window` does not use is none.

        Raises:
            Qwen3ConfigError: with all unknown, missing, mistyped and unsupported fields at once.
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
        if isinstance(eos, list) and eos and all(_is_a(int, one) for one in eos):
            values["eos_token_id"] = eos[0]
        if _is_a(int, values.get("sliding_window")):  # without effect; use_sliding_window is rejected
            del values["sliding_window"]
        of_layers = _layer_type_problems(layer_types, values.get("num_hidden_layers"))
        problems = [*quantized, *other_names, *of_layers, *_key_problems(values), *_problems(values)]
        if problems:
            raise Qwen3ConfigError(problems)
        return cls(**values)

    def to_hf(self) -> dict[str, Any]:
        """The fields as `config.json` has them, keys sorted; `from_hf` of the result equals this record."""
        values = asdict(self) | {"architectures": list(self.architectures)}
        return dict(sorted(values.items()))


# `config.json` must state these: a default here would silently give another model.
_REQUIRED = frozenset(
    {
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "tie_word_embeddings",
        "rope_theta",
        "rms_norm_eps",
        "hidden_act",
    }
)
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
_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "initializer_range",
)
_FACTORS = ("partial_rotary_factor", "factor", "attention_factor")  # of the rotary embedding; 1 changes nothing
_ONLY_SUPPORTED: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_act": "silu",
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "architectures": ("Qwen3ForCausalLM",),
        "model_type": "qwen3",
    }
)


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
    elif _is_a(int, layers) and len(layer_types) != layers:
        yield f"layer_types: {len(layer_types)} layers, but num_hidden_layers is {layers}"


def _key_problems(values: Mapping[str, Any]) -> Iterator[str]:
    known = {field.name for field in fields(Qwen3Config)}
    yield from (f"{name}: unknown field" for name in sorted(set(values) - known))
    yield from (f"{name}: missing" for name in sorted(_REQUIRED - set(values)))


def _problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Every problem of the given fields; rules across fields are checked only for valid fields."""
    valid = {}
    for field in fields(Qwen3Config):
        if field.name not in values:
            continue
        problem = _field_problem(field.name, field.type, values[field.name])
        if problem:
            yield f"{field.name}: {problem}"
        else:
            valid[field.name] = values[field.name]
    yield from _cross_field_problems(valid)


def _field_problem(name: str, kind: Any, value: Any) -> str | None:
    if name in _ONLY_SUPPORTED:
        wanted = _ONLY_SUPPORTED[name]
        same = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
        return None if same else f"only {wanted!r} is supported, got {value!r}"
    if not _is_a(kind, value):
        return f"expected {getattr(kind, '__name__', kind)}, got {value!r}"
    if name in _POSITIVE and not 0 < value <= sys.float_info.max:
        return f"must be positive and finite, got {value!r}"
    return None


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a JSON value fits a field; an integer fits a float (published files write both), a bool only bool."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _cross_field_problems(valid: Mapping[str, Any]) -> Iterator[str]:
    heads, groups = valid.get("num_attention_heads"), valid.get("num_key_value_heads")
    if heads and groups and heads % groups:
        yield f"num_attention_heads: {heads} heads cannot share {groups} key-value heads evenly"
    head_dim = valid.get("head_dim")
    if head_dim and head_dim % 2:
        yield f"head_dim: rotary embedding needs an even width, got {head_dim}"


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Rows that hold several documents, each ended by the token `end`, and what starts again after one.

    Source: Megatron-LM, `megatron/core/datasets/gpt_dataset.py`, `_get_ltor_masks_and_position_ids`; mindformers has
    the same two switches.

    Attributes:
        end: The id of the token that ends a document and belongs to it.
        reset_attention_mask: Whether a token attends to its own document only.
        reset_position_ids: Whether positions count from the beginning of a document.
    """

    end: int
    reset_attention_mask: bool
    reset_position_ids: bool


@dataclass(frozen=True, kw_only=True)
class PrecisionPolicy:
    """The dtype of each part of the model, with mindformers' names; the default is float32 throughout.

    `compute_dtype` is the dtype of every matrix product: inputs are rounded to it and the result is in it. `fused`:
    where the device has one operator for a part, that operator computes it, and rounds once; otherwise the plain
    operators round in between. A CPU has no such operators.
    """

    params_dtype: str = "float32"
    compute_dtype: str = "float32"
    layernorm_compute_dtype: str = "float32"
    softmax_compute_dtype: str = "float32"
    rotary_dtype: str = "float32"
    residual_dtype: str = "float32"
    fused: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected one of {', '.join(DTYPES)}, got {value!r}"
            for name, value in self.dtypes.items()
            if value not in DTYPES
        ]
        if not isinstance(self.fused, bool):
            problems.append(f"fused: expected true or false, got {self.fused!r}")
        if problems:
            raise Qwen3ConfigError(problems)

    @property
    def dtypes(self) -> dict[str, str]:
        """The dtype of each part, by its name."""
        return {name: value for name, value in vars(self).items() if name != "fused"}

    def __str__(self) -> str:
        """The dtype of the products, and whether the operators are plain ones wherever they run."""
        return self.compute_dtype if self.fused else f"{self.compute_dtype}, {PLAIN_OPERATORS}"


DTYPES = ("float32", "bfloat16")
PLAIN_OPERATORS = "plain operators"


def _published(
    layers: int, hidden: int, intermediate: int, heads: int, *, max_window_layers: int, tied: bool
) -> Qwen3Config:
    """A dense Qwen3 as published: all sizes share eight key-value heads of width 128, vocabulary and context."""
    return Qwen3Config(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=tied,
        max_window_layers=max_window_layers,
        bos_token_id=151643,
        eos_token_id=151645,
    )


# Source: config.json of Qwen/Qwen3-0.6B ... Qwen/Qwen3-32B on the Hugging Face hub, as of 2025.
PUBLISHED: Mapping[str, Qwen3Config] = MappingProxyType(
    {
        "0.6B": _published(28, 1024, 3072, 16, max_window_layers=28, tied=True),
        "1.7B": _published(28, 2048, 6144, 16, max_window_layers=28, tied=True),
        "4B": _published(36, 2560, 9728, 32, max_window_layers=36, tied=True),
        "8B": _published(36, 4096, 12288, 32, max_window_layers=36, tied=False),
        "14B": _published(40, 5120, 17408, 40, max_window_layers=40, tied=False),
        "32B": _published(64, 5120, 25600, 64, max_window_layers=64, tied=False),
    }
)


def _small(layers: int, hidden: int, intermediate: int, heads: int, vocab: int, *, tied: bool) -> Qwen3Config:
    """A test-sized Qwen3 with two query heads per key-value head of width 32."""
    return Qwen3Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        max_window_layers=layers,
    )


# "tiny": head_dim differs from hidden_size / heads, as in most published sizes.
SMALL: Mapping[str, Qwen3Config] = MappingProxyType(
    {
        "tiny": _small(2, 64, 160, 4, 320, tied=False),
        "tiny-tied": _small(2, 64, 160, 4, 320, tied=True),
        "small": _small(4, 256, 768, 8, 2048, tied=False),
    }
)


def parameter_shapes(config: Qwen3Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a Hugging Face Qwen3 checkpoint, in the order of the forward pass."""
    width, head = config.hidden_size, config.head_dim
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    yield "model.embed_tokens.weight", (config.vocab_size, width)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (width,)
        yield f"{prefix}.self_attn.q_proj.weight", (query, width)
        yield f"{prefix}.self_attn.k_proj.weight", (key, width)
        yield f"{prefix}.self_attn.v_proj.weight", (key, width)
        yield f"{prefix}.self_attn.q_norm.weight", (head,)
        yield f"{prefix}.self_attn.k_norm.weight", (head,)
        yield f"{prefix}.self_attn.o_proj.weight", (width, query)
        yield f"{prefix}.post_attention_layernorm.weight", (width,)
        yield f"{prefix}.mlp.gate_proj.weight", (config.intermediate_size, width)
        yield f"{prefix}.mlp.up_proj.weight", (config.intermediate_size, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, config.intermediate_size)
    yield "model.norm.weight", (width,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, width)
