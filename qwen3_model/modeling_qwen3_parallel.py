"""Qwen3 over several ranks: what each rank of a layout computes, and what ranks exchange.

A model-parallel rank has its part of the heads, the MLP channels and the vocabulary. It uses the cells of one process,
built narrower, with a sum where partial results are added. With sequence parallelism a rank then keeps its part of the
positions. A stage has its part of the layers.
Parameters keep the names that they have in one process, so `sharding` knows which part each one is.

Source: Shoeybi and others, Megatron-LM: training multi-billion parameter language models using model parallelism, 2019.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, nn, ops

from qwen3_model.collectives import (
    Enter,
    EnterFromPositions,
    Group,
    Largest,
    Leave,
    LeaveToPositions,
    Positions,
    Sum,
)
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.derivatives import Spread
from qwen3_model.modeling_qwen3 import (
    Precision,
    Projection,
    Qwen3DecoderLayer,
    Qwen3Embedding,
    Qwen3Linear,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)
from qwen3_model.precision_policy import PrecisionPolicy


def narrowed(config: Qwen3Config, shards: int) -> Qwen3Config:
    """The configuration of one model-parallel rank: the same model width, fewer heads, channels and tokens."""
    return dataclasses.replace(
        config,
        num_attention_heads=config.num_attention_heads // shards,
        num_key_value_heads=config.num_key_value_heads // shards,
        intermediate_size=config.intermediate_size // shards,
        vocab_size=config.vocab_size // shards,
    )


def entrance(over: Group, by_positions: bool) -> nn.Cell:
    """The cell at the start of a model-parallel region."""
    return EnterFromPositions(over) if by_positions else Enter(over)


def exit_(over: Group, by_positions: bool) -> nn.Cell:
    """The cell at the end of a model-parallel region."""
    return LeaveToPositions(over) if by_positions else Leave(over)


class SharedDecoderLayer(Qwen3DecoderLayer):
    """A layer whose heads and MLP channels are split over a group; with `by_positions` also the residual stream."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy, over: Group, by_positions: bool) -> None:
        super().__init__(narrowed(config, over.size), policy)
        self.enter, self.leave = entrance(over, by_positions), exit_(over, by_positions)

    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        attended = self.self_attn(self.enter(self.input_layernorm(hidden_BSD)), cos_SH, sin_SH)
        hidden_BSD = self.residual(hidden_BSD + self.residual(self.leave(attended)))
        mixed = self.mlp(self.enter(self.post_attention_layernorm(hidden_BSD)))
        return self.residual(hidden_BSD + self.residual(self.leave(mixed)))


class SharedEmbedding(Qwen3Embedding):
    """An embedding whose vocabulary rows are split over a group, in order."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy, over: Group, by_positions: bool) -> None:
        super().__init__(narrowed(config, over.size), policy)
        self.rows = config.vocab_size // over.size
        self.first = over.index * self.rows
        self.leave = exit_(over, by_positions)

    def construct(self, tokens_BS: Tensor) -> Tensor:
        local, own = own_rows(tokens_BS, self.first, self.rows)
        return self.leave(ops.gather(self.weight, local, 0) * ops.expand_dims(own, -1))


def own_rows(tokens: Tensor, first: int, rows: int) -> tuple[Tensor, Tensor]:
    """Each token's row in this rank's part (0 for rows of other ranks), and 1.0 for own rows, else 0.0."""
    local = tokens - first
    own = ops.logical_and(local >= 0, local < rows)
    return local * ops.cast(own, local.dtype), ops.cast(own, ms.float32)


class SharedNegativeLogLikelihood(nn.Cell):
    """-log softmax(logits)[target] per row, where the vocabulary of the logits is split over a group.

    Computes as `NegativeLogLikelihood` does, with sums over the group for the largest logit, the sum of exponentials
    and the target's logit.
    """

    def __init__(self, vocab_size: int, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.rows = vocab_size // over.size
        self.first = over.index * self.rows
        self.largest = ops.ArgMaxWithValue(1, True)
        self.spread = Spread()
        self.largest_of_all, self.sum = Largest(over), Sum(over)

    def construct(self, logits_RV: Tensor, targets_R1: Tensor) -> tuple[Tensor, Tensor]:
        """The losses [R, 1], and this rank's probabilities, which the derivative needs."""
        _, largest_here = self.largest(logits_RV)
        largest = self.largest_of_all(largest_here)
        exponentials = ops.expm1(logits_RV - self.spread(largest, logits_RV)) + 1.0
        local, own = own_rows(targets_R1, self.first, self.rows)
        picked_here = ops.gather_elements(logits_RV, 1, local) * own
        both_R2 = self.sum(ops.cat((ops.sum(exponentials, -1, True), picked_here), 1))
        total, picked = both_R2[:, :1], both_R2[:, 1:]
        return largest - picked + ops.log1p(total - 1.0), exponentials / self.spread(total, logits_RV)

    def bprop(
        self, logits_RV: Tensor, targets_R1: Tensor, out: tuple[Tensor, ...], dout: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        local, own = own_rows(targets_R1, self.first, self.rows)
        lowered = ops.gather_elements(out[1], 1, local) - own
        minus_onehot = ops.tensor_scatter_elements(out[1], local, lowered, 1)
        return minus_onehot * self.spread(dout[0], logits_RV), ops.zeros_like(targets_R1)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The layers of a rank, by their numbers in the whole model; whether it has the embedding and the head; and whether
    positions are split over the model-parallel ranks."""

    layers: Sequence[int]
    first: bool
    last: bool
    whole_embedding: bool
    by_positions: bool


class WholeEmbedding(Qwen3Embedding):
    """The whole embedding on every rank of a group; each rank embeds its own positions."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy, over: Group) -> None:
        super().__init__(config, policy)
        self.own = Positions(over)

    def construct(self, tokens_BS: Tensor) -> Tensor:
        return self.own(ops.gather(self.weight, tokens_BS, 0))


class StageLayers(nn.Cell):
    """The layers of a stage, with the embedding before the first and the last norm behind the last."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy, stage: Stage, over: Group) -> None:
        super().__init__()
        self.first, self.last = stage.first, stage.last
        if stage.first or (stage.last and config.tie_word_embeddings):
            if not stage.whole_embedding:
                self.embed_tokens = SharedEmbedding(config, policy, over, stage.by_positions)
            elif stage.by_positions:
                self.embed_tokens = WholeEmbedding(config, policy, over)
            else:
                self.embed_tokens = Qwen3Embedding(config, policy)
        # The input from an earlier stage holds this rank's part of the positions.
        self.parts = over.size if stage.by_positions and not stage.first else 1
        self.rotary_emb = Qwen3RotaryEmbedding(config, policy)
        self.layers = nn.CellList([SharedDecoderLayer(config, policy, over, stage.by_positions) for _ in stage.layers])
        if stage.last:
            self.norm = Qwen3RMSNorm(config.hidden_size, config.rms_norm_eps, policy)
        self.residual = Precision(policy.residual_dtype)

    def construct(self, x: Tensor) -> Tensor:
        # Without stop_gradient, MindSpore 2.9.0 differentiates through the product of a shape.
        cos_SH, sin_SH = self.rotary_emb(ops.stop_gradient(x).shape[1] * self.parts)
        hidden_BSD = self.residual(self.embed_tokens(x)) if self.first else x
        for layer in self.layers:
            hidden_BSD = layer(hidden_BSD, cos_SH, sin_SH)
        return self.norm(hidden_BSD) if self.last else hidden_BSD


class StageModel(nn.Cell):
    """One rank's part of a model: tokens [B, S] on the first stage or hidden [B, S, D] on a later one -> hidden, or on
    the last stage this rank's part of the logits."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy, stage: Stage, over: Group) -> None:
        super().__init__()
        self.config = config
        self.first, self.last, self.tied = stage.first, stage.last, config.tie_word_embeddings
        self.model = StageLayers(config, policy, stage, over)
        self.enter, self.project = entrance(over, stage.by_positions), Projection(policy)
        if stage.last and not self.tied:
            narrow = narrowed(config, over.size)
            self.lm_head = Qwen3Linear(config.hidden_size, narrow.vocab_size, narrow, policy)
        self._name_as_in_one_process(stage.layers)

    def construct(self, x: Tensor) -> Tensor:
        hidden_BSD = self.model(x)
        if not self.last:
            return hidden_BSD
        hidden_BSD = self.enter(hidden_BSD)
        if self.tied:
            return self.project(hidden_BSD, self.model.embed_tokens.weight)
        return self.lm_head(hidden_BSD)

    def _name_as_in_one_process(self, layers: Sequence[int]) -> None:
        for local, number in enumerate(layers):
            for parameter in self.model.layers[local].get_parameters():
                parameter.name = parameter.name.replace(f"model.layers.{local}.", f"model.layers.{number}.", 1)
