"""Defects of the loss: which tokens count, the divisor, and added terms.

A step still reports the right number of tokens, so only the loss and its consequences can show the fault.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import Array, low
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import tree_sum


@defect(
    area="loss",
    imitates="Labels that are shifted neither by the data nor by the loss, because each relies on the other",
    source="https://github.com/huggingface/transformers/issues/27517",
    reported="2023-11-15",
    since="2026-11-24",
)
class LabelsNotShifted(MindSporeSubject):
    """The target of a position is its own token."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return tokens[:, :-1], tokens[:, :-1]


@defect(
    area="loss",
    imitates="Labels that both the data and the loss shift",
    source="https://github.com/huggingface/transformers/pull/37830",
    reported="2025-04-28",
    since="2026-11-24",
)
class LabelsShiftedTwice(MindSporeSubject):
    """The target of a position is the token after the next; the last target is the row's first token."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return tokens[:, :-1], np.roll(tokens, -2, axis=1)[:, :-1]


class OtherMask(Qwen3Trainer, ABC):
    """The loss counts the targets of `counted`."""

    @abstractmethod
    def counted(self, loss_mask: Array) -> Array: ...

    def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
        return super().micro_batches(tokens, self.counted(loss_mask))


@defect(
    area="loss",
    imitates="A loss mask that is not passed on, so that padding is trained on and counted",
    source="https://github.com/huggingface/transformers/issues/24725",
    since="2026-11-24",
    case="qwen3-tied-fp32",
)
class PaddingCounted(MindSporeSubject):
    """The loss is the mean over all positions, with padding; this shows only with rows of unequal length."""

    class trainer(OtherMask):
        def counted(self, loss_mask: Array) -> Array:
            return np.ones_like(loss_mask)


@defect(
    area="loss",
    imitates="A row shortened for the shift once by the data and again by the loss",
    source="https://github.com/huggingface/transformers/pull/37830",
    since="2026-11-24",
)
class LastTargetDropped(MindSporeSubject):
    """The last target of each row does not count."""

    class trainer(OtherMask):
        def counted(self, loss_mask: Array) -> Array:
            return loss_mask * (np.arange(loss_mask.shape[1]) < loss_mask.shape[1] - 1).astype(loss_mask.dtype)


class OwnCount(Qwen3Trainer):
    """Each micro-batch divides by its own targets, `times` as many of them."""

    times: int

    def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
        for inputs, targets, mask, _ in super().micro_batches(tokens, loss_mask):
            yield inputs, targets, mask, mask.sum() * self.times


@defect(
    area="loss",
    imitates="Gradient accumulation that averages the means of unequal micro-batches",
    source="https://github.com/huggingface/trl/issues/2175",
    reported="2024-10-04",
    since="2026-11-24",
    case="qwen3-tied-fp32",
)
class MeanOfMicroBatches(MindSporeSubject):
    """The loss is the mean of the micro-batches' means, not the mean over tokens."""

    class trainer(OwnCount):
        times = 2


@defect(
    area="loss",
    imitates="Gradient accumulation that does not divide by the number of micro-batches",
    source="https://github.com/huggingface/transformers/issues/37766",
    reported="2025-04-24",
    since="2026-11-24",
    case="qwen3-tied-fp32",
)
class AccumulationNotNormalised(MindSporeSubject):
    """The loss is the sum of the micro-batches' means."""

    class trainer(OwnCount):
        times = 1


@defect(
    area="loss",
    imitates="A mean over each row and then over the rows, which favours the tokens of short rows",
    source="https://github.com/huggingface/transformers/issues/24725",
    since="2026-11-24",
    case="qwen3-tied-fp32",
)
class MeanOfRows(MindSporeSubject):
    """The loss is the mean over rows of each row's mean; this shows only with rows of unequal length."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            rows = np.count_nonzero(loss_mask.any(axis=1))
            for inputs, targets, mask, count in super().micro_batches(tokens, loss_mask):
                share = count / rows / ops.maximum(mask.sum(-1, keepdims=True), Tensor(1.0, ms.float32))
                yield inputs, targets, mask * share, count


class WithLoss(Qwen3Trainer):
    """Trains with another loss cell."""

    loss_cell: type[nn.Cell]

    def build_loss(self) -> nn.Cell:
        return self.loss_cell()


def rows_of(logits_BSV: Tensor) -> Tensor:
    """[B * S, V]."""
    return ops.reshape(logits_BSV, (-1, logits_BSV.shape[-1]))


class WithZLoss(TokenLoss):
    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        normalizers = ops.logsumexp(rows_of(logits_BSV), -1)
        z = ops.sum(ops.square(normalizers) * ops.reshape(mask_BS, (-1,))) / count
        return super().construct(logits_BSV, targets_BS, mask_BS, count) + 1e-4 * z


@defect(
    area="loss",
    imitates="PaLM's auxiliary loss left on",
    source="https://arxiv.org/abs/2204.02311",
    since="2026-11-24",
    size=0.0001,
)
class ZLossLeftOn(MindSporeSubject):
    """1e-4 times the square of the log normalizer is added."""

    class trainer(WithLoss):
        loss_cell = WithZLoss


class Smoothed(TokenLoss):
    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        uniform = -ops.mean(ops.log_softmax(rows_of(logits_BSV), -1), -1)
        smooth = ops.sum(uniform * ops.reshape(mask_BS, (-1,))) / count
        return 0.999 * super().construct(logits_BSV, targets_BS, mask_BS, count) + 0.001 * smooth


@defect(
    area="loss",
    imitates="Label smoothing left in from another recipe",
    source="https://arxiv.org/abs/1512.00567",
    since="2026-11-24",
    size=0.001,
)
class LabelSmoothingLeftOn(MindSporeSubject):
    """A thousandth of each target is spread over the vocabulary; before training this changes the loss very little."""

    class trainer(WithLoss):
        loss_cell = Smoothed


class RoundedLosses(TokenLoss):
    def __init__(self) -> None:
        super().__init__()
        self.low = low()

    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        losses = self.negative_log_likelihood(rows_of(logits_BSV), ops.reshape(targets_BS, (-1, 1)))[0]
        return tree_sum(self.low(ops.reshape(losses, (-1,))) * ops.reshape(mask_BS, (-1,))) / count


@defect(
    area="loss",
    imitates="Cross entropy that gives its result in the logits' low precision",
    source="https://arxiv.org/abs/1710.03740",
    since="2026-11-24",
)
class TokenLossesBfloat16(MindSporeSubject):
    """The loss of each token is rounded to bfloat16 before they are summed."""

    class trainer(WithLoss):
        loss_cell = RoundedLosses


class PlainLikelihood(nn.Cell):
    """Uses the framework's `exp` and `log`, and its automatic derivative."""

    def construct(self, logits_RV: Tensor, targets_R1: Tensor) -> tuple[Tensor, Tensor]:
        largest = ops.stop_gradient(logits_RV.max(axis=-1, keepdims=True))
        total = ops.sum(ops.exp(logits_RV - largest), -1, True)
        return largest + ops.log(total) - ops.gather_elements(logits_RV, 1, targets_R1), total


class PlainLoss(TokenLoss):
    def __init__(self) -> None:
        super().__init__()
        self.negative_log_likelihood = PlainLikelihood()


@defect(
    area="loss",
    imitates="Cross entropy written from its formula, with the framework's exponential and logarithm",
    source="https://www.mindspore.cn/docs/en/master/api_python/ops/mindspore.ops.exp.html",
    since="2026-11-24",
)
class FastExponential(MindSporeSubject):
    """The loss uses a fast exponential and logarithm, about a millionth off on a CPU; other devices may be exact."""

    class trainer(WithLoss):
        loss_cell = PlainLoss


@defect(
    area="loss",
    imitates="Micro-batches at the end of a window of accumulation whose gradients reach no update",
    source="https://github.com/NVIDIA-NeMo/Automodel/pull/2257",
    reported="2026-05-18",
    since="2026-11-30",
    case="qwen3-tied-fp32",
)
class LastMicroBatchDropped(MindSporeSubject):
    """The last micro-batch of a step adds nothing; the divisor is still the number of all targets."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            *others, (inputs, targets, mask, count) = super().micro_batches(tokens, loss_mask)
            yield from others
            yield inputs, targets, ops.zeros_like(mask), count
