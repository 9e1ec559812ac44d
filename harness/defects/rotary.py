"""Defects of the rotary embedding: queries and keys get wrong positions or a wrong rotation."""

import dataclasses

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, exchange, layers
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3ForCausalLM,
    Qwen3RotaryEmbedding,
)
from qwen3_model.precision_policy import PrecisionPolicy


@defect(
    area="model",
    imitates="rope_theta is not read from the configuration, and the paper's base is used",
    source="https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
    since="2026-11-24",
    place="model.rotary_emb",
    direction="forward",
)
class RotaryBase(MindSporeSubject):
    """The rotary tables have the base 1e4 where the case has 1e6."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            other = dataclasses.replace(self.config, rope_theta=1e4)
            exchange(model, "model.rotary_emb", Qwen3RotaryEmbedding(other, self.policy))


class Interleaved(nn.Cell):
    """Rotates the pairs (x_{2i}, x_{2i+1})."""

    def construct(self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        pairs = ops.reshape(x, (*x.shape[:-1], half, 2))
        first, second, cos, sin = pairs[..., 0], pairs[..., 1], cos_SH[:, :half], sin_SH[:, :half]
        return ops.reshape(ops.stack((first * cos - second * sin, second * cos + first * sin), -1), x.shape)


@defect(
    area="model",
    imitates="Rotary embedding as in GPT-J for weights that are laid out as in GPT-NeoX",
    source="https://github.com/huggingface/transformers/issues/25199",
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class RotaryInterleaved(MindSporeSubject):
    """Adjacent elements of a head are rotated as a pair, not elements half a head apart."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.rotate = Interleaved()


class LaterTables(Qwen3RotaryEmbedding):
    """Each position has the angles of the next one."""

    def angles(self, config: Qwen3Config) -> npt.NDArray[np.float32]:
        longer = dataclasses.replace(config, max_position_embeddings=config.max_position_embeddings + 1)
        return super().angles(longer)[1:]


class QueryLate(Qwen3Attention):
    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        self.later = LaterTables(config, policy)

    def query(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        cos, sin = self.later(hidden_BSD.shape[1])
        return self.rotary(self.q_norm(self.split_heads(self.q_proj(hidden_BSD))), cos, sin)


@defect(
    area="model",
    imitates="Positions of queries counted from 1 and those of keys from 0, as with a cache's length read too early",
    source="https://arxiv.org/abs/2104.09864",
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class QueryPositionOffByOne(MindSporeSubject):
    """Queries are rotated by the position after their own; keys are not, because only distances matter and a shift of
    both would change nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for place, _ in layers(model):
                exchange(model, f"{place}.self_attn", QueryLate(self.config, self.policy))


class WrappedTables(Qwen3RotaryEmbedding):
    def angles(self, config: Qwen3Config) -> npt.NDArray[np.float32]:
        angles = super().angles(config)
        return angles[np.arange(len(angles)) % 32]


@defect(
    area="model",
    imitates="Position ids that start again within a sequence, as --reset-position-ids does on purpose",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py",
    since="2026-11-24",
    place="model.rotary_emb",
    direction="forward",
)
class PositionsWrap(MindSporeSubject):
    """Positions start again at 0 after every 32 tokens."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.rotary_emb", WrappedTables(self.config, self.policy))
