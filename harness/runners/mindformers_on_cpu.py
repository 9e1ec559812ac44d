"""What a CPU lacks of mindformers' training graph, as the same mathematics in ordinary operators.

mindformers' own code stays what it is, down to the operators that exist for Ascend alone. Those kernels are then not
what a run on a CPU shows anything about: `REPLACED` names them, and every trace states it.

Tried: mindformers 1.7.0 with MindSpore 2.7.1, 1.8.0 with 2.7.2, and 1.9.0 with 2.9.0. What differs between them stands
here, and no other module knows a version. 1.6 trains no Qwen3 ("Train mode is not supported for Qwen3 model").
"""

import functools
from types import SimpleNamespace
from typing import Any

import mindspore as ms
from mindformers.parallel_core.training_graph.base_models.common.embeddings import rotary_pos_embedding
from mindformers.parallel_core.training_graph.tensor_parallel import layers
from mindformers.parallel_core.training_graph.transformer import attention, flash_attention, mlp, norm
from mindspore import Tensor, nn, ops

LOWEST = -3.4028234663852886e38  # of float32

REPLACED = (
    "FusedRMSNorm (operator RmsNorm): by mindformers' RMSNorm",
    "FlashAttentionScore: by products and softmax",
    "the cast of query, key and value to float16 before it: left out",
    "mint.nn.functional.embedding: by a gather, which has a derivative on a CPU",
    "Outer of positions and frequencies: by a product",
)

# MindSpore before 2.9 has no kernel of it for a CPU: "Unsupported op [SplitWithSize] on CPU".
SPLIT_SINCE = (2, 9)
REPLACED_BEFORE = ("SplitWithSize: by slices",)


@functools.cache
def replace_operators() -> tuple[str, ...]:
    """Puts the replacements into mindformers' modules, for every model that this process builds from now on.

    Returns:
        What was replaced, and by what.
    """
    norm.FusedRMSNorm = norm.RMSNorm
    flash_attention.FlashAttentionScore = PlainAttentionScore
    # The module takes its operators from there when a cell is built, and nothing when it is compiled.
    replaced: tuple[str, ...] = REPLACED
    operators = {**vars(attention.aclnn_ops), "Cast": CastButNotToHalf}
    if tuple(map(int, ms.__version__.split(".")[:2])) < SPLIT_SINCE:
        replaced, operators = (*REPLACED, *REPLACED_BEFORE), {**operators, "SplitWithSize": Slices}
        mlp.SplitWithSize = Slices
    attention.aclnn_ops = SimpleNamespace(**operators)
    layers.VocabParallelEmbedding.embedding_func = gathered_rows
    rotary_pos_embedding.Outer = OuterProduct
    return replaced


class PlainAttentionScore(nn.Cell):
    """softmax(scale * q k^T, masked) v, called as FlashAttentionScore is: layout BNSD, no dropout, the whole mask.

    B batch, N query heads, K key-value heads, S sequence, H head width.
    """

    def __init__(self, scale_value: float, keep_prob: float, input_layout: str, sparse_mode: int, **_: Any) -> None:
        super().__init__()
        # Another version of mindformers may need what is not written here: that must not be computed as something
        # else. No case can lead here, so it is not an error of the user.
        if (keep_prob, input_layout, sparse_mode) != (1.0, "BNSD", 0):
            given = f"keep_prob {keep_prob}, input_layout {input_layout}, sparse_mode {sparse_mode}"
            raise NotImplementedError(f"on a CPU attention has no dropout, layout BNSD and a whole mask, not {given}")
        self.scale = scale_value
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)
        self.mix = ops.BatchMatMul()

    def construct(
        self,
        query_BNSH: Tensor,
        key_BKSH: Tensor,
        value_BKSH: Tensor,
        alibi_mask: Tensor,
        drop_mask: Tensor,
        padding_mask: Tensor,
        hidden_B1SS: Tensor,
        prefix: Tensor,
    ) -> tuple[None, None, None, Tensor]:
        """The last of FlashAttentionScore's four results, which alone is used; the mask is 1 where a key is hidden."""
        B, N, S, H = query_BNSH.shape
        # The query heads that share a key head are consecutive: together they are rows of one product.
        scores = self.scores(ops.reshape(query_BNSH, (B, key_BKSH.shape[1], -1, H)), key_BKSH) * self.scale
        masked = ops.masked_fill(ops.reshape(scores, (B, N, S, S)), ops.cast(hidden_B1SS, ms.bool_), LOWEST)
        weights = ops.reshape(self.softmax(masked), scores.shape)
        return None, None, None, ops.reshape(self.mix(weights, value_BKSH), (B, N, S, H))


class CastButNotToHalf(nn.Cell):
    """A cast that leaves alone what would become float16: FlashAttentionScore takes nothing wider, products do."""

    def construct(self, x: Tensor, dtype: Any) -> Tensor:
        return x if dtype == ms.float16 else ops.cast(x, dtype)


class Slices(nn.Cell):
    """x, the widths of its parts and their axis -> the parts, in order."""

    def construct(self, x: Tensor, sizes: tuple[int, ...], axis: int) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = ()
        begin = 0
        for size in sizes:
            parts = (*parts, ops.narrow(x, axis, begin, size))
            begin = begin + size
        return parts

    def shard(self, *strategy: Any) -> "Slices":
        """One process has nothing to share out."""
        return self

    def add_prim_attr(self, name: str, value: Any) -> "Slices":
        """What it sets is about sharing out."""
        return self


class OuterProduct(nn.Cell):
    """x [P] and y [F] -> [P, F]."""

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return ops.reshape(x, (-1, 1)) * ops.reshape(y, (1, -1))

    def shard(self, *strategy: Any) -> None:
        """One process has nothing to share out."""


def gathered_rows(self: nn.Cell, tokens_BS: Tensor, weight_VD: Tensor) -> Tensor:
    """The rows of the weight that the tokens name: [B, S, D]."""
    return ops.gather(weight_VD, tokens_BS, 0)


@functools.cache
def replace_for_the_trainer() -> tuple[str, ...]:
    """Also what mindformers' Trainer needs besides the model: the check for overflow of a step, which has no kernel on
    a CPU, looks at the gradients for what is not finite, as it does on newer chips.

    Returns:
        What was replaced, and by what.
    """
    whole = nn.TrainOneStepWithLossScaleCell.__init__

    def built(self: nn.Cell, *given: Any, **named: Any) -> None:
        whole(self, *given, **named)
        self.ascend_910b_target, self._ascend_check_overflow_mode, self.enable_allfinite = True, "INFNAN_MODE", False

    nn.TrainOneStepWithLossScaleCell.__init__ = built
    return (*replace_operators(), "the check for overflow (NPUGetFloatStatusV2): by a look for infinities")
