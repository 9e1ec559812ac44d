"""The configuration of a dense Qwen3 model, with the field names of Hugging Face's `config.json`.

One frozen record, or a single error that lists every problem; `config_json` reads what is published. No framework is
imported here: a reader of configurations needs none.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qwen3_model.config_json import read_config
from qwen3_model.config_problems import Qwen3ConfigError, is_a


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
        values, found = read_config(source)
        problems = [*found, *_key_problems(values), *_problems(values)]
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
    if not is_a(kind, value):
        return f"expected {getattr(kind, '__name__', kind)}, got {value!r}"
    if name in _POSITIVE and not 0 < value <= sys.float_info.max:
        return f"must be positive and finite, got {value!r}"
    return None


def _cross_field_problems(valid: Mapping[str, Any]) -> Iterator[str]:
    heads, groups = valid.get("num_attention_heads"), valid.get("num_key_value_heads")
    if heads and groups and heads % groups:
        yield f"num_attention_heads: {heads} heads cannot share {groups} key-value heads evenly"
    head_dim = valid.get("head_dim")
    if head_dim and head_dim % 2:
        yield f"head_dim: rotary embedding needs an even width, got {head_dim}"


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
