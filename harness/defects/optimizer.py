"""Defects of the optimizer: the gradients are right, but the update is not.

The subject still states the requested optimizer, so only the numbers can show the fault.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from harness.defects import defect
from harness.defects.planting import Array, WithOptimizer, WrittenOutAdamW
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamW, AdamWConfig, decays, step_scalars


class OtherConstants(Qwen3Trainer):
    """Built with other constants than it states."""

    constants: ClassVar[Mapping[str, float]]

    def used(self) -> AdamWConfig:
        return dataclasses.replace(self.optimizer_config, **self.constants)

    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        return AdamW(parameters, self.used(), self.decays)

    def scalars(self, step: int) -> Array:
        return step_scalars(self.used(), step, self.learning_rate(step))


@defect(
    area="optimizer",
    imitates="betas that do not reach the optimizer, so that its default is used",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html",
    since="2026-11-24",
)
class Beta2(MindSporeSubject):
    """beta2 is 0.999 where the case has 0.95."""

    class trainer(OtherConstants):
        constants: ClassVar = {"beta2": 0.999}


@defect(
    area="optimizer",
    imitates="A beta1 that was mistyped",
    source="https://arxiv.org/abs/1412.6980",
    since="2026-11-24",
    size=0.01,
)
class Beta1OnePercent(MindSporeSubject):
    """beta1 is 0.909 where the case has 0.9."""

    class trainer(OtherConstants):
        constants: ClassVar = {"beta1": 0.909}


@defect(
    area="optimizer",
    imitates="The default epsilon of MindSpore's and TensorFlow's class, not of torch's",
    source="https://www.mindspore.cn/docs/en/master/api_python/nn/mindspore.nn.AdamWeightDecay.html",
    since="2026-11-24",
)
class OptimizerEpsilon(MindSporeSubject):
    """epsilon is 1e-6 where the case has 1e-8."""

    class trainer(OtherConstants):
        constants: ClassVar = {"eps": 1e-6}


@defect(
    area="optimizer",
    imitates="A decay that is scaled by the number of ranks or rounded",
    source="https://arxiv.org/abs/1711.05101",
    since="2026-11-24",
    size=0.01,
)
class WeightDecayOnePercent(MindSporeSubject):
    """Weight decay is 1 % too large; a step changes a weight by an additional 1e-7 of its size."""

    class trainer(OtherConstants):
        constants: ClassVar = {"weight_decay": 0.101}


class EpsilonInside(WrittenOutAdamW):
    """`eps` is epsilon * sqrt(b), see `step_scalars`; under the root with this second moment, epsilon * b is needed."""

    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__(parameters, config, decays)
        self.eps = config.eps

    def denominator(self, i: int, second: Tensor, eps: Tensor) -> Tensor:
        return ops.sqrt(second + ops.square(eps) / self.eps)


@defect(
    area="optimizer",
    imitates="An Adam with epsilon under the root, as RMSprop has it in TensorFlow",
    source="https://github.com/FluxML/Flux.jl/pull/448",
    reported="2018-10-21",
    since="2026-11-24",
)
class EpsilonInsideTheRoot(MindSporeSubject):
    """Adam adds its epsilon under the root."""

    class trainer(WithOptimizer):
        optimizer_cell = EpsilonInside


def uncorrected(trainer: Qwen3Trainer, step: int, *, first: bool, second: bool) -> Array:
    """The step's scalars without the bias correction of the first or the second moment."""
    a = 1 - trainer.optimizer_config.beta1**step if first else 1.0
    b = 1 - trainer.optimizer_config.beta2**step if second else 1.0
    right = step_scalars(trainer.optimizer_config, step, trainer.learning_rate(step))
    return right * np.array([a / b**0.5, b**-0.5, b**0.5 / a], np.float32)


@defect(
    area="optimizer",
    imitates="BERT's Adam, which corrects no bias, with one half of the correction added again",
    source="https://arxiv.org/abs/2006.05987",
    since="2026-11-24",
)
class FirstMomentUncorrected(MindSporeSubject):
    """The bias of the first moment is not corrected."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            return uncorrected(self, step, first=True, second=False)


@defect(
    area="optimizer",
    imitates="BERT's Adam, which corrects no bias, with one half of the correction added again",
    source="https://arxiv.org/abs/2006.05987",
    since="2026-11-24",
)
class SecondMomentUncorrected(MindSporeSubject):
    """The bias of the second moment is not corrected."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            return uncorrected(self, step, first=False, second=True)


@defect(
    area="optimizer",
    imitates="An AdamW that corrects no bias, as MLX's and MindSpore's AdamWeightDecay",
    source="https://github.com/ml-explore/mlx/pull/1640",
    reported="2024-12-03",
    since="2026-11-24",
)
class BiasUncorrected(MindSporeSubject):
    """The bias of neither moment is corrected."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            return uncorrected(self, step, first=True, second=True)


@defect(
    area="optimizer",
    imitates="A step counter that is incremented before and after the update",
    source="https://arxiv.org/abs/1412.6980",
    since="2026-11-24",
)
class StepCounterOffByOne(MindSporeSubject):
    """Bias is corrected for one step too many; the learning rate is right."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            return step_scalars(self.optimizer_config, step + 1, self.learning_rate(step))


class Coupled(AdamW):
    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__(parameters, config, decays)
        self.weight_decay = config.weight_decay

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        total = []
        for i in range(len(self.parameters)):
            decay = self.weight_decay if self.decay_flags[i] else 0.0
            total.append(gradients[i] * scale + decay * self.parameters[i])
        undecayed = ops.stack((scalars[0], scalars[1], ops.zeros_like(scalars[2])))
        return super().construct(tuple(total), ops.ones_like(scale), undecayed)


@defect(
    area="optimizer",
    imitates="Adam with weight_decay used as AdamW",
    source="https://github.com/keras-team/keras/issues/19051",
    reported="2024-01-11",
    since="2026-11-24",
)
class CoupledDecay(MindSporeSubject):
    """Weight decay is added to the gradient, not to the update."""

    class trainer(WithOptimizer):
        optimizer_cell = Coupled


class StatesRequestedDecay(Qwen3Trainer):
    """States the requested decay, independent of what was built."""

    def decayed(self) -> frozenset[str]:
        return frozenset(parameter.name for parameter in self._parameters if decays(parameter.name))


@defect(
    area="optimizer",
    imitates="A list of names without decay that has LayerNorm where the model has layernorm",
    source="https://github.com/deepspeedai/DeepSpeedExamples/pull/755",
    reported="2023-10-03",
    since="2026-11-24",
)
class DecayOnNorms(MindSporeSubject):
    """Weight decay applies to the norms too."""

    class trainer(StatesRequestedDecay):
        def decays(self, name: str) -> bool:
            return True


@defect(
    area="optimizer",
    imitates="minGPT's rule that embeddings do not decay",
    source="https://github.com/karpathy/minGPT/blob/master/mingpt/model.py",
    since="2026-11-24",
)
class NoDecayOnEmbedding(MindSporeSubject):
    """Weight decay does not apply to the embedding."""

    class trainer(StatesRequestedDecay):
        def decays(self, name: str) -> bool:
            return decays(name) and "embed" not in name


@defect(
    area="optimizer",
    imitates="A decay that does not follow the schedule",
    source="https://arxiv.org/abs/1711.05101",
    since="2026-11-24",
)
class DecayAtPeakRate(MindSporeSubject):
    """Weight decay is multiplied by the peak learning rate in every step whose rate is not 0."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            rate, eps, decay = super().scalars(step)
            used, peak = self.learning_rate(step), getattr(self.schedule, "peak", 0.0)
            return np.array([rate, eps, decay * peak / used if used else decay], np.float32)


class DecayedLast(AdamW):
    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        undecayed = ops.stack((scalars[0], scalars[1], ops.zeros_like(scalars[2])))
        done = super().construct(gradients, scale, undecayed)
        for i in range(len(self.parameters)):
            if self.decay_flags[i]:
                kept = 1.0 - scalars[0] * scalars[2]
                ops.assign(self.parameters[i], self.parameters[i] * kept)
        return done


@defect(
    area="optimizer",
    imitates="Decay and update in the opposite order to torch",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html",
    since="2026-11-24",
)
class DecayAfterUpdate(MindSporeSubject):
    """The updated weight is decayed, so a hundred-thousandth of each update is lost."""

    class trainer(WithOptimizer):
        optimizer_cell = DecayedLast


class LowMoments(AdamW):
    """Both moments are stored in `stored`."""

    stored = ms.bfloat16

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        done = super().construct(gradients, scale, scalars)
        for i in range(len(self.parameters)):
            for moment in (self.exp_avg[i], self.exp_avg_sq[i]):
                ops.assign(moment, ops.cast(ops.cast(moment, self.stored), ms.float32))
        return done


@defect(
    area="optimizer",
    imitates="Optimizer states kept in the parameters' low precision",
    source="https://arxiv.org/abs/2110.02861",
    since="2026-11-24",
)
class MomentsBfloat16(MindSporeSubject):
    """Both moments are rounded to bfloat16 after every update."""

    class trainer(WithOptimizer):
        optimizer_cell = LowMoments


@defect(
    area="optimizer",
    imitates="Optimizer states in half precision, in which the square of a small gradient is zero",
    source="https://arxiv.org/abs/1710.03740",
    since="2026-11-24",
)
class MomentsFloat16(MindSporeSubject):
    """Both moments are rounded to float16 after every update."""

    class trainer(WithOptimizer):
        optimizer_cell = LowMoments

        def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
            optimizer = super().build_optimizer(parameters)
            # Not a subclass: in GRAPH mode `super().construct` in a class calls itself when a subclass runs it.
            optimizer.stored = ms.float16
            return optimizer


class Amsgrad(WrittenOutAdamW):
    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__(parameters, config, decays)
        self.largest = self.parameters.clone(prefix="max_exp_avg_sq", init="zeros")

    def denominator(self, i: int, second: Tensor, eps: Tensor) -> Tensor:
        largest = ops.maximum(self.largest[i], second)
        ops.assign(self.largest[i], largest)
        return ops.sqrt(largest) + eps


@defect(
    area="optimizer",
    imitates="amsgrad=True left over from an experiment",
    source="https://arxiv.org/abs/1904.09237",
    since="2026-11-24",
)
class AmsgradLeftOn(MindSporeSubject):
    """The update is divided by the largest second moment so far."""

    class trainer(WithOptimizer):
        optimizer_cell = Amsgrad

        def _state(self) -> Iterator[Parameter]:
            yield from (*super()._state(), *self._optimizer.largest)


class OneNotUpdated(AdamW):
    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__(parameters, config, decays)
        self.omitted = [parameter.name for parameter in parameters].index("model.layers.1.self_attn.q_norm.weight")

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        before = self.parameters[self.omitted] + 0.0
        done = super().construct(gradients, scale, scalars)
        ops.assign(self.parameters[self.omitted], before)
        return done


@defect(
    area="optimizer",
    imitates="An optimizer built before a module was added, or with a filter that excludes its name",
    source="https://arxiv.org/abs/2506.14813",
    since="2026-11-24",
)
class ParameterLeftOut(MindSporeSubject):
    """One q norm is not in the optimizer."""

    class trainer(WithOptimizer):
        optimizer_cell = OneNotUpdated


@defect(
    area="optimizer",
    imitates="Decoupled decay that is not multiplied by the learning rate, as AdamW's is in torch",
    source="https://github.com/tensorflow/addons/issues/2282",
    reported="2020-12-10",
    since="2026-11-30",
)
class DecayWithoutRate(MindSporeSubject):
    """In every step whose rate is not 0, a weight loses its decay times itself, whatever the rate."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            rate, eps, decay = super().scalars(step)
            used = self.learning_rate(step)
            return np.array([rate, eps, decay / used if used else decay], np.float32)


@defect(
    area="optimizer",
    imitates="An Adam that adds epsilon before the second moment's bias is corrected",
    source="https://github.com/facebookresearch/higher/issues/71",
    reported="2020-07-30",
    since="2026-11-30",
)
class EpsilonBeforeCorrection(MindSporeSubject):
    """Epsilon is divided by the root of the bias correction too: 4.5 times too large in the first step, then less."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            rate, _, decay = super().scalars(step)
            return np.array([rate, self.optimizer_config.eps, decay], np.float32)
