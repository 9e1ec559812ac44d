"""Defects of layouts: each rank computes its part rightly, but together they do not make the step of one process.

They differ from a correct subject only with several ranks.
"""

from collections.abc import Iterator, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.collectives import Group, Sum
from qwen3_model.modeling_qwen3_parallel import StageModel
from qwen3_model.modeling_qwen3_parallel_train import ParallelTrainer
from qwen3_model.modeling_qwen3_train import Array
from qwen3_model.optimizer import AdamW, AdamWConfig
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.parallel_optimizer import SharedAdamW, SharedClip
from qwen3_model.reduction import NORMS, OF_HEADS, Ranks, Reduction
from qwen3_model.sharding import EMBEDDING


class WithReduction(ParallelTrainer):
    """Reduces gradients with another cell."""

    reduction_cell: type[Reduction]

    def build_reduction(self, names: Sequence[str]) -> Reduction:
        return self.reduction_cell(names, self.ranks, self.layout)


class SumsNoNorms(Reduction):
    def is_partial(self, name: str, layout: ParallelConfig) -> bool:
        return False


@defect(
    area="parallel",
    imitates="Weights that every tensor-parallel rank holds whole, without the sum of their gradients",
    source="https://github.com/NVIDIA/Megatron-LM/issues/1446",
    since="2026-11-25",
    place="model.layers.1.self_attn",
    direction="backward",
    case="qwen3-tiny-tp2",
)
class NormGradientsNotSummed(MindSporeSubject):
    """The gradients of q_norm and k_norm are those of each rank's own heads."""

    class parallel_trainer(WithReduction):
        reduction_cell = SumsNoNorms


class Mean(nn.Cell):
    """The mean over the group instead of the sum."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.size = Sum(over), over.size

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(x) / self.size


class TakesMeans(Reduction):
    def build_sum(self, replicas: Group) -> nn.Cell:
        return Mean(replicas)


@defect(
    area="parallel",
    imitates="The mean over devices of a loss that is already divided by the global number of tokens",
    source="https://github.com/huggingface/transformers/issues/37474",
    reported="2025-04-13",
    since="2026-11-25",
    case="qwen3-tiny-dp2",
)
class MeanOverReplicas(MindSporeSubject):
    """Loss and gradients are the mean over replicas rather than the sum."""

    class parallel_trainer(WithReduction):
        reduction_cell = TakesMeans


class ForgetsOne(Reduction):
    """Does not reduce the gradient of one parameter."""

    def reduces(self, name: str) -> bool:
        return not name.endswith("layers.1.mlp.down_proj.weight")


@defect(
    area="parallel",
    imitates="A gradient that is not in the buffer that is reduced",
    source="https://github.com/Oneflow-Inc/oneflow/pull/9742",
    reported="2023-01-12",
    since="2026-11-25",
    place="model.layers.1.mlp.down_proj.weight",
    direction="backward",
    case="qwen3-tiny-dp2",
)
class GradientNotReduced(MindSporeSubject):
    """One down projection is updated by each replica's own gradient."""

    class parallel_trainer(WithReduction):
        reduction_cell = ForgetsOne


@defect(
    area="parallel",
    imitates="A sampler that gets the local rank, so that replicas get the same rows",
    source="https://github.com/vllm-project/speculators/pull/427",
    reported="2026-04-15",
    since="2026-11-25",
    case="qwen3-tiny-dp2",
)
class RowsRepeated(MindSporeSubject):
    """Both replicas compute the rows of the first one; the token count is that of the whole batch."""

    class parallel_trainer(ParallelTrainer):
        def own_rows(self, batch: Array) -> Array:
            return np.split(batch, self.layout.data_parallel)[0]


@defect(
    area="parallel",
    imitates="The mean over replicas of means over their tokens",
    source="https://github.com/huggingface/transformers/issues/34242",
    since="2026-11-25",
    case="qwen3-tiny-dp2",
)
class TokensCountedByReplica(MindSporeSubject):
    """Each replica divides by its own target tokens, and the results are averaged; rows are of unequal length."""

    class parallel_trainer(ParallelTrainer):
        def token_count(self, loss_mask: Array) -> int:
            return int(np.count_nonzero(self.own_rows(loss_mask))) * self.layout.data_parallel


class DoublesTheHead(Reduction):
    """Counts the last stage's gradient of the tied embedding twice."""

    def __init__(self, names: Sequence[str], ranks: Ranks, layout: ParallelConfig) -> None:
        super().__init__(names, ranks, layout)
        self.doubled = tuple(name == EMBEDDING and ranks.last for name in names)
        self.correct = Reduction(names, ranks, layout)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = [gradients[i] * 2.0 if self.doubled[i] else gradients[i] for i in range(len(self.doubled))]
        return self.correct(tuple(changed))


@defect(
    area="parallel",
    imitates="Sums over replicas and over the pipeline's ends that count a tied embedding's gradients wrongly",
    source="https://github.com/NVIDIA/Megatron-LM/issues/844",
    since="2026-11-25",
    place="model.embed_tokens.weight",
    direction="backward",
    case="qwen3-tied-tp2-pp2",
)
class HeadGradientCountedTwice(MindSporeSubject):
    """The gradient of the tied embedding contains the head's part twice."""

    class parallel_trainer(WithReduction):
        reduction_cell = DoublesTheHead


class LocalClip(SharedClip):
    """Does not sum over the other ranks."""

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm = ops.sqrt(sum([ops.sum(ops.square(gradient)) for gradient in gradients]))
        if self.max_norm is None:
            return norm, ops.ones_like(norm)
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)


@defect(
    area="parallel",
    imitates="A norm of the parameters that a rank holds, which is not summed over the ranks",
    source="https://github.com/areal-project/AReaL/issues/312",
    reported="2025-09-10",
    since="2026-11-25",
    case="qwen3-tiny-tp2",
)
class ClippedByLocalNorm(MindSporeSubject):
    """Each rank clips by the norm of its own gradients."""

    class parallel_trainer(ParallelTrainer):
        def build_clip(self, max_norm: float | None) -> nn.Cell:
            return LocalClip(max_norm, [True for _ in self._parameters], self.ranks.model)


@defect(
    area="parallel",
    imitates="A norm over tensor-parallel ranks that counts every rank's copies",
    source="https://github.com/mindspore-ai/hyper-parallel/issues/526",
    reported="2026-09-12",
    since="2026-11-25",
    case="qwen3-tiny-tp2",
)
class CopiesCountedInTheNorm(MindSporeSubject):
    """The clipping norm counts every RMS norm weight once per rank."""

    class parallel_trainer(ParallelTrainer):
        def build_clip(self, max_norm: float | None) -> nn.Cell:
            return SharedClip(max_norm, [True for _ in self._parameters], self.ranks.model)


@defect(
    area="parallel",
    imitates="A row-parallel product without its all-reduce",
    source="https://arxiv.org/abs/1909.08053",
    since="2026-11-25",
    place="model.layers.0.self_attn",
    direction="forward",
    case="qwen3-tiny-tp2",
)
class PartsNotSummed(MindSporeSubject):
    """The first layer's sums over ranks are omitted: each rank continues with its own part."""

    class parallel_trainer(ParallelTrainer):
        def build_model(self) -> StageModel:
            model = super().build_model()
            model.model.layers[0].leave = nn.Identity()
            return model


@defect(
    area="parallel",
    imitates="A pipeline schedule whose cool-down is one micro batch short",
    source="https://arxiv.org/abs/2104.04473",
    since="2026-11-25",
    case="qwen3-tied-tp2-pp2",
)
class LastMicroBatchLost(MindSporeSubject):
    """The last micro batch runs without a target; the token count is still that of all."""

    class parallel_trainer(ParallelTrainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            *others, (inputs, targets, mask, count) = super().micro_batches(tokens, loss_mask)
            yield from others
            yield inputs, targets, ops.zeros_like(mask), count


class SumsOverHeadsOnly(Reduction):
    def is_partial(self, name: str, layout: ParallelConfig) -> bool:
        omitted = name.endswith(NORMS) and not name.endswith(OF_HEADS)
        return super().is_partial(name, layout) and not omitted


@defect(
    area="parallel",
    imitates="Sequence parallelism without the sum of the norms' gradients over the ranks",
    source="https://github.com/NVIDIA/Megatron-LM/issues/1446",
    reported="2025-03-04",
    since="2026-11-26",
    place="model.norm.weight",
    direction="backward",
    case="qwen3-tiny-dp2-tp2-sharded",
)
class PositionsOfNormsNotSummed(MindSporeSubject):
    """The gradients of the norms outside the model-parallel regions are those of each rank's own positions."""

    class parallel_trainer(WithReduction):
        reduction_cell = SumsOverHeadsOnly


@defect(
    area="parallel",
    imitates="The start of a model-parallel region, without the sum of its gradient over the ranks",
    source="https://github.com/NovaSky-AI/SkyRL/pull/1886",
    since="2026-11-26",
    place="model.layers.1.mlp",
    direction="backward",
    case="qwen3-tiny-tp2",
)
class GradientsOfPartsNotSummed(MindSporeSubject):
    """In the last layer each rank's backward pass continues with the gradient of its own part only."""

    class parallel_trainer(ParallelTrainer):
        def build_model(self) -> StageModel:
            model = super().build_model()
            model.model.layers[1].enter = nn.Identity()
            return model


class LogitsOfEveryRank(nn.Cell):
    """Sums of [exponentials, target's logit], as if each rank had the exponentials of all ranks."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.times = Sum(over), Tensor(np.array([[over.size, 1]], np.float32))

    def construct(self, both_R2: Tensor) -> Tensor:
        return self.sum(both_R2) * self.times


@defect(
    area="parallel",
    imitates="A loss over a sharded vocabulary that gets gathered logits",
    source="https://github.com/NVIDIA/Megatron-LM/issues/7452",
    since="2026-11-26",
    case="qwen3-tiny-tp2",
)
class LogitsCountedByEveryRank(MindSporeSubject):
    """The sum of exponentials counts every logit once per rank: the loss is off by the logarithm of their number."""

    class parallel_trainer(ParallelTrainer):
        def build_loss(self) -> nn.Cell:
            loss = super().build_loss()
            loss.negative_log_likelihood.sum = LogitsOfEveryRank(self.ranks.shards)
            return loss


class RowsOfOthers(SharedAdamW):
    """Updates one down projection's rows with the gradient rows of another replica."""

    def __init__(self, parameters: ms.ParameterTuple, config: AdamWConfig, over: Group) -> None:
        super().__init__(parameters, config, over)
        self.mixed = tuple(parameter.name.endswith("layers.1.mlp.down_proj.weight") for parameter in parameters)

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        swapped = []
        for i in range(len(self.mixed)):
            gradient = gradients[i]
            if self.mixed[i]:
                half = gradient.shape[0] // 2
                gradient = ops.cat((gradient[half:], gradient[:half]), 0)
            swapped.append(gradient)
        return super().construct(tuple(swapped), scale, scalars)


@defect(
    area="parallel",
    imitates="A sharded optimizer that gets gradients in another order than its shards",
    source="https://github.com/deepspeedai/DeepSpeed/issues/2343",
    since="2026-11-26",
    case="qwen3-tiny-dp2-tp2-sharded",
)
class RowsOfAnotherReplica(MindSporeSubject):
    """Each replica updates its rows of one down projection with the other replica's rows of the gradient."""

    class parallel_trainer(ParallelTrainer):
        def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
            return RowsOfOthers(parameters, self.optimizer_config, self.ranks.replicas)


class OfOneShard(SharedClip):
    """Reports the norm as if each rank's part were the whole."""

    def __init__(self, max_norm: float | None, counted: Sequence[bool], over: Group) -> None:
        super().__init__(max_norm, counted, over)
        self.root = float(over.size) ** 0.5

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, factor = super().construct(gradients)
        return norm / self.root, factor


@defect(
    area="parallel",
    imitates="A sharded norm that is read before it is reduced, too small by the root of the number of shards",
    source="https://github.com/radixark/miles_diffusion/pull/35",
    reported="2026-07-13",
    since="2026-11-30",
    case="qwen3-tiny-tp2",
)
class NormOfOneShard(MindSporeSubject):
    """The reported norm is too small by the root of the number of shards; gradients are clipped by the right one."""

    class parallel_trainer(ParallelTrainer):
        def build_clip(self, max_norm: float | None) -> nn.Cell:
            return OfOneShard(max_norm, [self._counts(p.name) for p in self._parameters], self.ranks.model)


@defect(
    area="parallel",
    imitates="A norm that counts gradients which are not sharded once per replica",
    source="https://github.com/pytorch/pytorch/pull/88955",
    reported="2022-11-12",
    since="2026-11-30",
    case="qwen3-tiny-dp2",
)
class NormCountsReplicas(MindSporeSubject):
    """The norm counts every gradient once per replica: it is too large by the root of their number."""

    class parallel_trainer(ParallelTrainer):
        def build_clip(self, max_norm: float | None) -> nn.Cell:
            return SharedClip(max_norm, [self._counts(p.name) for p in self._parameters], self.ranks.world)
