"""Shared inputs for the model's tests: shapes, weights, batches, trainers. Pure functions of their seeds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamWConfig
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.schedule import ConstantSchedule
from qwen3_model.sizes import SMALL

Array = npt.NDArray[Any]
OPTIMIZER = AdamWConfig(weight_decay=0.1)
BF16 = PrecisionPolicy(compute_dtype="bfloat16")


def shaped(base: str = "tiny", **changes: Any) -> Qwen3Config:
    """A small configuration with some fields changed."""
    return dataclasses.replace(SMALL[base], **changes)


def shaped_as(name: str) -> Qwen3Config:
    """A small configuration by its name, or by NAME:LAYERS with another number of layers."""
    base, _, layers = name.partition(":")
    return shaped(base, num_hidden_layers=int(layers)) if layers else shaped(base)


def weight_shapes(c: Qwen3Config) -> dict[str, tuple[int, ...]]:
    """Hugging Face's names and shapes, written out independently of the model."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c.vocab_size, c.hidden_size)}
    D, F, H = c.hidden_size, c.intermediate_size, c.head_dim
    N, K = c.num_attention_heads, c.num_key_value_heads
    for i in range(c.num_hidden_layers):
        layer = {
            "self_attn.q_proj": (N * H, D),
            "self_attn.k_proj": (K * H, D),
            "self_attn.v_proj": (K * H, D),
            "self_attn.o_proj": (D, N * H),
            "self_attn.q_norm": (H,),
            "self_attn.k_norm": (H,),
            "mlp.gate_proj": (F, D),
            "mlp.up_proj": (F, D),
            "mlp.down_proj": (D, F),
            "input_layernorm": (D,),
            "post_attention_layernorm": (D,),
        }
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (D,)
    if not c.tie_word_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, D)
    return shapes


def random_weights(config: Qwen3Config, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Matrices of deviation 0.1 and norm weights in [0.5, 1.5]: attention is far from uniform, no norm is a no-op."""
    generator = np.random.default_rng(seed)
    return {
        name: (
            generator.uniform(0.5, 1.5, shape) if len(shape) == 1 else 0.1 * generator.standard_normal(shape)
        ).astype(np.float32)
        for name, shape in weight_shapes(config).items()
    }


def random_batch(
    config: Qwen3Config, batch: int = 4, length: int = 17, seed: int = 1, keep: float = 0.8
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Tokens [B, S+1] and a ragged loss mask [B, S]."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, config.vocab_size, (batch, length + 1), dtype=np.int32)
    return tokens, (generator.random((batch, length)) < keep).astype(np.float32)


def trainer(config: Qwen3Config, weights: Mapping[str, Array] | None = None, **changes: Any) -> Qwen3Trainer:
    """A trainer with the weights; by default float32, constant rate 1e-3, clipping at 1."""
    policy = changes.pop("policy", PrecisionPolicy())
    optimizer = changes.pop("optimizer", OPTIMIZER)
    schedule = changes.pop("schedule", ConstantSchedule(peak=1e-3))
    kind: type[Qwen3Trainer] = changes.pop("kind", Qwen3Trainer)
    built = kind(config, policy, optimizer, schedule, **({"clip_grad": 1.0} | changes))
    built.load_weights(random_weights(config) if weights is None else weights)
    return built


def differing(a: Mapping[str, Array], b: Mapping[str, Array]) -> list[str]:
    """The names on one side only, and those whose arrays are not bitwise equal."""
    return sorted(
        (a.keys() ^ b.keys()) | {name for name in a.keys() & b.keys() if a[name].tobytes() != b[name].tobytes()}
    )


def worst_relative(a: Mapping[str, Array], b: Mapping[str, Array]) -> float:
    """The largest norm(a - b) / norm(b) over all names, which must be the same."""
    assert a.keys() == b.keys()
    return max(float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name])) for name in a)
