"""Faults of the optimizer, written without knowledge of the criteria and planted in the default case.

certify power --defects benchmarks/faults_of_december/optimizer.py --clean 0 --out faults.json
"""

import math
from collections.abc import Callable, Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from harness.defects import defect
from harness.defects.planting import Array, WithOptimizer, bfloat16, overwrite
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer, StepResult
from qwen3_model.optimizer import AdamW, AdamWConfig, decays, step_scalars


@defect(
    area="optimizer",
    imitates="Powers of the betas kept as tensors of the parameters' low precision",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html",
    since="2026-12-01",
)
class CorrectionBfloat16(MindSporeSubject):
    """Betas and their powers in the bias correction are rounded to bfloat16; the moments use the right betas."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            config = self.optimizer_config
            betas = bfloat16(np.array([config.beta1, config.beta2], np.float32))
            a, b = (1.0 - float(power) for power in bfloat16(betas**step))
            rate = self.learning_rate(step) * math.sqrt(b) / a
            return np.array([rate, config.eps * math.sqrt(b), config.weight_decay * a / math.sqrt(b)], np.float32)


class OwnRateOfNorms(AdamW):
    """Parameters without decay have the rate of the fourth scalar."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        for i in range(len(self.parameters)):
            rate = scalars[0] if self.decay_flags[i] else scalars[3]
            decay = scalars[2] if self.decay_flags[i] else ops.zeros_like(scalars[2])
            self.update(
                self.parameters[i],
                self.exp_avg[i],
                self.exp_avg_sq[i],
                rate,
                self.beta1,
                self.beta2,
                scalars[1],
                decay,
                gradients[i] * scale,
            )
        return True


@defect(
    area="optimizer",
    imitates="A schedule that sets the rate of the first parameter group only",
    source="https://docs.pytorch.org/docs/stable/optim.html",
    since="2026-12-01",
)
class RateOfNormsConstant(MindSporeSubject):
    """The weights of the norms have the peak rate in every step; all others follow the schedule."""

    class trainer(WithOptimizer):
        optimizer_cell = OwnRateOfNorms

        def scalars(self, step: int) -> Array:
            peak = getattr(self.schedule, "peak", 0.0)
            return np.append(super().scalars(step), step_scalars(self.optimizer_config, step, peak)[:1])


class InOperators(AdamW):
    """The update in single operators; a fault replaces what is squared, or the step before decay."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        for i in range(len(self.parameters)):
            parameter, gradient = self.parameters[i], gradients[i] * scale
            squared = ops.square(self.to_square(gradients[i], scale))
            first = self.beta1 * self.exp_avg[i] + (1 - self.beta1) * gradient
            second = self.beta2 * self.exp_avg_sq[i] + (1 - self.beta2) * squared
            step = self.step(first, second, gradient, scalars[1])
            if self.decay_flags[i]:
                step = step + scalars[2] * parameter
            ops.assign(self.exp_avg[i], first)
            ops.assign(self.exp_avg_sq[i], second)
            ops.assign(parameter, parameter - scalars[0] * step)
        return True

    def to_square(self, gradient: Tensor, scale: Tensor) -> Tensor:
        return gradient * scale

    def step(self, first: Tensor, second: Tensor, gradient: Tensor, eps: Tensor) -> Tensor:
        return first / (ops.sqrt(second) + eps)


class Nesterov(InOperators):
    """The update takes beta1 m + (1 - beta1) g where Adam's takes m."""

    def step(self, first: Tensor, second: Tensor, gradient: Tensor, eps: Tensor) -> Tensor:
        return (self.beta1 * first + (1 - self.beta1) * gradient) / (ops.sqrt(second) + eps)


@defect(
    area="optimizer",
    imitates="An optimizer with Nesterov momentum, whose class stands next to AdamW's",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.NAdam.html",
    since="2026-12-01",
)
class NesterovMomentum(MindSporeSubject):
    """The update takes 0.9 of the first moment and 0.1 of the gradient where it has to take the first moment."""

    class trainer(WithOptimizer):
        optimizer_cell = Nesterov


class UnclippedSquares(InOperators):
    """The second moment is that of the gradients before clipping."""

    def to_square(self, gradient: Tensor, scale: Tensor) -> Tensor:
        return gradient


@defect(
    area="optimizer",
    imitates="A fused optimizer that applies the factor of clipping to one of two uses of the gradient",
    source="https://github.com/NVIDIA/apex/blob/master/csrc/multi_tensor_adam.cu",
    since="2026-12-01",
)
class SecondMomentUnclipped(MindSporeSubject):
    """The second moment is computed from gradients that are not clipped; one step in ten is clipped."""

    class trainer(WithOptimizer):
        optimizer_cell = UnclippedSquares


class LimitedUpdates(InOperators):
    """The update of a parameter is divided by the root mean square of g / sqrt(v), where that is above 1."""

    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__(parameters, config, decays)
        self.eps = config.eps

    def step(self, first: Tensor, second: Tensor, gradient: Tensor, eps: Tensor) -> Tensor:
        corrected = ops.square(eps / self.eps)  # 1 - beta2^t, see `step_scalars`
        ratio = ops.square(gradient) / ops.maximum(second / corrected, self.eps * self.eps)
        return super().step(first, second, gradient, eps) / ops.maximum(ops.sqrt(ops.mean(ratio)), 1.0)


@defect(
    area="optimizer",
    imitates="The update clipping of Adafactor and StableAdamW left on",
    source="https://arxiv.org/abs/2304.13013",
    since="2026-12-01",
)
class UpdatesLimited(MindSporeSubject):
    """The update of a parameter is divided by the root mean square of its g / sqrt(v), in steps where that is above
    1."""

    class trainer(WithOptimizer):
        optimizer_cell = LimitedUpdates


class Lazy(AdamW):
    """Embeddings of tokens that are not in the batch keep their moments and do not move."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        parameter, first, second = self.parameters[0], self.exp_avg[0], self.exp_avg_sq[0]
        before, first_before, second_before = parameter + 0.0, first + 0.0, second + 0.0
        seen = ops.cast(ops.greater(ops.sum(ops.abs(gradients[0]), 1, True), 0.0), ms.float32)
        done = super().construct(gradients, scale, scalars)
        ops.assign(parameter, seen * parameter + (1.0 - seen) * before)
        ops.assign(first, seen * first + (1.0 - seen) * first_before)
        ops.assign(second, seen * second + (1.0 - seen) * second_before)
        return done


@defect(
    area="optimizer",
    imitates="SparseAdam, which skips the rows that have no gradient",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html",
    since="2026-12-01",
)
class EmbeddingUpdatedLazily(MindSporeSubject):
    """Embeddings of tokens that are not in the batch keep their moments, do not move and do not decay."""

    class trainer(WithOptimizer):
        optimizer_cell = Lazy


class LowNorms(AdamW):
    """Parameters without decay are rounded to bfloat16."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        done = super().construct(gradients, scale, scalars)
        for i in range(len(self.parameters)):
            if not self.decay_flags[i]:
                ops.assign(self.parameters[i], ops.cast(ops.cast(self.parameters[i], ms.bfloat16), ms.float32))
        return done


@defect(
    area="optimizer",
    imitates="Parameters in bfloat16 without master weights, which are larger than 256 times their update",
    source="https://arxiv.org/abs/2010.06192",
    since="2026-12-01",
)
class NormWeightsBfloat16(MindSporeSubject):
    """The weights of the norms are rounded to bfloat16 after every update, so after the first they never move."""

    class trainer(WithOptimizer):
        optimizer_cell = LowNorms


def named(trainer: Qwen3Trainer, name: str) -> Parameter:
    """A parameter of a trainer by its name."""
    return next(parameter for parameter in trainer._parameters if parameter.name == name)


@defect(
    area="optimizer",
    imitates="Sharded parameters that are gathered before the update of the last step is written",
    source="https://docs.pytorch.org/docs/stable/fsdp.html",
    since="2026-12-01",
)
class StaleHeadOnce(MindSporeSubject):
    """Step 400 computes with the head of the step before, and applies its update to the newest one."""

    class trainer(Qwen3Trainer):
        at = 400
        older: Array | None = None

        def train_step(self, tokens: Array, loss_mask: Array) -> StepResult:
            head = named(self, "lm_head.weight")
            older, newest = self.older, head.asnumpy().copy()
            self.older = newest
            if older is None or self.step + 1 != self.at:
                return super().train_step(tokens, loss_mask)
            overwrite(head, older)
            result = super().train_step(tokens, loss_mask)
            overwrite(head, newest + (head.asnumpy() - older))
            return result


@defect(
    area="optimizer",
    imitates="A parameter that is taken for unused in one step",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html",
    since="2026-12-01",
)
class UpdateDroppedOnce(MindSporeSubject):
    """The up projection of layer 1 is not updated in step 333; its moments are."""

    class trainer(Qwen3Trainer):
        at = 333

        def train_step(self, tokens: Array, loss_mask: Array) -> StepResult:
            parameter = named(self, "model.layers.1.mlp.up_proj.weight")
            before = parameter.asnumpy().copy()
            result = super().train_step(tokens, loss_mask)
            if result.step == self.at:
                overwrite(parameter, before)
            return result


@defect(
    area="optimizer",
    imitates="Averaged weights that are put into the model for an evaluation and stay there",
    source="https://github.com/huggingface/pytorch-image-models/blob/main/timm/utils/model_ema.py",
    since="2026-12-01",
)
class AverageNotUndone(MindSporeSubject):
    """After step 500 every parameter is its moving average with the decay 0.99; the moments are not changed."""

    class trainer(Qwen3Trainer):
        at = 500
        averages: Mapping[str, Array] | None = None

        def train_step(self, tokens: Array, loss_mask: Array) -> StepResult:
            result = super().train_step(tokens, loss_mask)
            newest, before = self.parameters(), self.averages
            averages = newest if before is None else {n: 0.99 * before[n] + 0.01 * x for n, x in newest.items()}
            if result.step == self.at:
                for parameter in self._parameters:
                    overwrite(parameter, averages[parameter.name])
            self.averages = averages
            return result
