"""Defects of clipping: the gradients are right, but not the factor that scales them.

Adam divides by the size of the gradients, so a factor that is wrong by the same amount in every step nearly cancels;
only its changes between steps have an effect. A factor without the cap at 1 is not in the catalogue: no shipped case
has a step whose norm is below the threshold.
"""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import WithOptimizer
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamW, ClipByGlobalNorm


class WithClip(Qwen3Trainer):
    """Clips with another cell; its configuration still states the requested clipping."""

    clip_cell: type[ClipByGlobalNorm]

    def build_clip(self, max_norm: float | None) -> nn.Cell:
        return self.clip_cell(max_norm)


class NoFactor(ClipByGlobalNorm):
    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, factor = super().construct(gradients)
        return norm, ops.ones_like(factor)


@defect(
    area="clipping",
    imitates="Clipping called after the optimizer's step, where it has no effect",
    source="https://github.com/VGraphRNN/VGRNN/issues/4",
    since="2026-11-24",
)
class ClippingOff(MindSporeSubject):
    """No gradient is clipped; the norm is still reported."""

    class trainer(WithClip):
        clip_cell = NoFactor


class FactorOfBefore(ClipByGlobalNorm):
    def __init__(self, max_norm: float | None) -> None:
        super().__init__(max_norm)
        self.before = Parameter(Tensor(1.0, ms.float32), name="factor_before", requires_grad=False)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, factor = super().construct(gradients)
        used = self.before + 0.0
        ops.assign(self.before, factor)
        return norm, used


@defect(
    area="clipping",
    imitates="A norm that is reduced while the update already runs",
    source="https://arxiv.org/abs/1211.5063",
    since="2026-11-24",
)
class ClippingOneStepLate(MindSporeSubject):
    """The gradients are clipped by the factor of the step before."""

    class trainer(WithClip):
        clip_cell = FactorOfBefore


class Each(AdamW):
    """Clips each gradient by its own norm, also in updates by given gradients."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        clipped = []
        for gradient in gradients:
            norm = ops.sqrt(ops.sum(ops.square(gradient)))
            clipped.append(gradient * ops.minimum(self.max_norm / (norm + 1e-6), 1.0))
        return super().construct(tuple(clipped), ops.ones_like(scale), scalars)


class ByValue(AdamW):
    """Clips each element, also in updates by given gradients."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        clipped = tuple([ops.minimum(ops.maximum(g, -self.max_norm), self.max_norm) for g in gradients])
        return super().construct(clipped, ops.ones_like(scale), scalars)


class ClippingOptimizer(WithOptimizer):
    """Clips within the optimizer, by the requested norm."""

    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        optimizer = super().build_optimizer(parameters)
        optimizer.max_norm = self.clip_grad
        return optimizer


@defect(
    area="clipping",
    imitates="clip_by_norm mapped over the gradients where clip_by_global_norm is meant",
    source="https://www.mindspore.cn/docs/en/master/api_python/ops/mindspore.ops.clip_by_global_norm.html",
    since="2026-11-24",
)
class ClippingPerTensor(MindSporeSubject):
    """Each gradient is clipped by its own norm."""

    class trainer(ClippingOptimizer):
        optimizer_cell = Each


@defect(
    area="clipping",
    imitates="clip_grad_value_ where clip_grad_norm_ is meant",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_value_.html",
    since="2026-11-24",
)
class ClippingByValue(MindSporeSubject):
    """Elements are clipped to the threshold of the norm; no element is that large, so nothing is clipped."""

    class trainer(ClippingOptimizer):
        optimizer_cell = ByValue


class WithoutFirst(ClipByGlobalNorm):
    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return super().construct(gradients[1:])


@defect(
    area="clipping",
    imitates="A norm over the parameters of a stage that does not hold the embedding",
    source="https://github.com/NVIDIA/Megatron-LM/issues/7452",
    since="2026-11-24",
)
class NormWithoutEmbedding(MindSporeSubject):
    """The norm omits the embedding's gradient."""

    class trainer(WithClip):
        clip_cell = WithoutFirst


class OfMatrices(ClipByGlobalNorm):
    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        return super().construct(tuple([gradient for gradient in gradients if gradient.ndim > 1]))


@defect(
    area="clipping",
    imitates="A norm over the first of two parameter groups, that with decay",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
    since="2026-11-24",
)
class NormOfMatricesOnly(MindSporeSubject):
    """The gradient norm omits the weights of the RMS norms, which are few and small."""

    class trainer(WithClip):
        clip_cell = OfMatrices


class LargeEpsilon(ClipByGlobalNorm):
    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, _ = super().construct(gradients)
        return norm, ops.minimum(self.max_norm / (norm + 1e-2), 1.0)


@defect(
    area="clipping",
    imitates="A clipping epsilon that was chosen for half precision",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
    since="2026-11-24",
    size=0.01,
)
class ClippingEpsilon(MindSporeSubject):
    """1e-2 is added to the norm where it is 1e-6."""

    class trainer(WithClip):
        clip_cell = LargeEpsilon


class OfSquare(ClipByGlobalNorm):
    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, _ = super().construct(gradients)
        return norm, ops.minimum(self.max_norm / (ops.square(norm) + 1e-6), 1.0)


@defect(
    area="clipping",
    imitates="A sum of squares whose root is taken only for the report",
    source="https://arxiv.org/abs/1211.5063",
    since="2026-11-24",
)
class ClippingBySquare(MindSporeSubject):
    """The factor comes from the square of the norm."""

    class trainer(WithClip):
        clip_cell = OfSquare


@defect(
    area="clipping",
    imitates="A threshold that is scaled or rounded between configuration and use",
    source="https://arxiv.org/abs/1211.5063",
    since="2026-11-24",
    size=0.01,
)
class ThresholdOnePercent(MindSporeSubject):
    """Gradients are clipped to a norm 1 % too large.

    Where every step is clipped, as in 200 steps of qwen3-tiny-fp32, Adam divides the error out and nothing differs.
    """

    class trainer(Qwen3Trainer):
        def build_clip(self, max_norm: float | None) -> nn.Cell:
            return ClipByGlobalNorm(max_norm and 1.01 * max_norm)


class OfScaled(ClipByGlobalNorm):
    """`scale` is the number that the loss was multiplied by, so that small gradients survive in half precision."""

    scale = 65536.0

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, _ = super().construct(gradients)
        return norm, ops.minimum(self.max_norm / (self.scale * norm + 1e-6), 1.0)


@defect(
    area="clipping",
    imitates="Gradients that are clipped while they are still multiplied by the loss scale, and then divided by it",
    source="https://github.com/Lightning-AI/pytorch-lightning/issues/9330",
    reported="2021-09-05",
    since="2026-11-30",
)
class ClippedBeforeUnscaling(MindSporeSubject):
    """Gradients are clipped to a 65,536th of the threshold; Adam divides by their size, but not in its epsilon."""

    class trainer(WithClip):
        clip_cell = OfScaled
