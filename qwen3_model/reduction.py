"""Gradients of one rank -> gradients of the global batch, by sums over the ranks that hold a parameter.

Loss and gradients are divided by the target tokens of the global batch, so they are plain sums over replicas and micro
batches. Before an update, a gradient is summed over replicas; over model-parallel ranks where each computed only its
heads' part; and over the two stages that hold a tied embedding.
"""

from collections.abc import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

from qwen3_model.collectives import Group, Sum, after, group, sums_in_order
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sharding import EMBEDDING
from qwen3_model.training_step import ForwardLoss, Gradients, UpdateStep, reset, value

OF_HEADS = ("q_norm.weight", "k_norm.weight")  # whole on every model-parallel rank, applied to its own heads only
NORMS = ("norm.weight",)  # under sequence parallelism also these, applied to the rank's own positions only


class Ranks:
    """The communication groups of one rank, made in the order of `Groups`."""

    def __init__(self, layout: ParallelConfig, rank: int, tied: bool) -> None:
        self.where = where = layout.coordinates(rank)
        self.first, self.last = where.stage == 0, where.stage == layout.pipeline_stage - 1
        of_rank = layout.groups(rank, tied=tied)
        self.world, self.shards, self.replicas, self.model = (group(ranks, rank) for ranks in of_rank[:4])
        self.previous, self.next, self.tied = (
            group(ranks, rank) if ranks is not None else None for ranks in of_rank[4:]
        )


def has_partial_gradient(name: str, layout: ParallelConfig) -> bool:
    """Whether each model-parallel rank holds the whole parameter and computes a part of its gradient."""
    whole_embedding = name == EMBEDDING and layout.vocab_emb_dp
    own_positions = layout.use_seq_parallel and (name.endswith(NORMS) or whole_embedding)
    return layout.model_parallel > 1 and (name.endswith(OF_HEADS) or own_positions)


class Reduction(nn.Cell):
    """The gradients of a rank's backward pass -> the gradients by which its parameters are updated."""

    def __init__(self, names: Sequence[str], ranks: Ranks, layout: ParallelConfig) -> None:
        super().__init__(auto_prefix=False)
        partial = [self.is_partial(name, layout) for name in names]
        tied = [name == EMBEDDING and ranks.tied is not None for name in names]
        self.sum = self.build_sum(ranks.replicas)
        self.over_shards = sums_in_order(partial, Sum(ranks.shards))
        self.over_ends = sums_in_order(tied, Sum(ranks.tied or ranks.replicas))
        self.over_replicas = sums_in_order([self.reduces(name) for name in names], self.sum)
        self.each = ops.HyperMap()

    def build_sum(self, replicas: Group) -> nn.Cell:
        """The cell that reduces gradients and loss over replicas."""
        return Sum(replicas)

    def is_partial(self, name: str, layout: ParallelConfig) -> bool:
        """Whether the gradient of a parameter is summed over model-parallel ranks."""
        return has_partial_gradient(name, layout)

    def reduces(self, name: str) -> bool:
        """Whether the gradient of a parameter is reduced over replicas."""
        return True

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        reduced, before = self.over_shards(gradients, gradients[0])
        reduced, before = self.over_ends(reduced, before)
        reduced, before = self.over_replicas(reduced, before)
        return self.each(ops.partial(after, before), reduced)


class ReducedGradients(Gradients):
    """Loss and gradients of the global batch."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple, reduction: Reduction) -> None:
        super().__init__(forward, parameters)
        self.reduction = reduction
        self.each = ops.HyperMap()

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss, gradients = self.grad(tokens_BS, targets_BS, mask_BS, count)
        reduced = self.reduction(gradients)
        loss = self.reduction.sum(ops.depend(loss, reduced[0]))
        return loss, self.each(ops.partial(after, loss), reduced)


class ReducedUpdate(UpdateStep):
    """The update by the sums of all ranks."""

    def __init__(self, update: UpdateStep, reduction: Reduction) -> None:
        super().__init__(update.sums, update.clip, update.optimizer)
        self.reduction = reduction

    def construct(self, scalars: Tensor) -> Tensor:
        gradients = self.reduction(self.each(value, self.sums))
        norm, scale = self.clip(gradients)
        norm = ops.depend(norm, self.optimizer(gradients, scale, scalars))
        self.each(reset, self.sums)
        return norm
