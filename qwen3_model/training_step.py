"""The compiled cells of a training step.

In GRAPH mode forward, backward, clipping and AdamW are one cell; with accumulation two, one per micro-batch and one
per update.
"""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from qwen3_model.optimizer import AdamW


def add(total: Parameter, gradient: Tensor) -> Tensor:
    """Within a compiled step."""
    return ops.assign_add(total, gradient)


def value(total: Parameter) -> Tensor:
    """Within a compiled step: the value of now, which a later assignment does not change."""
    return total + 0.0


def reset(total: Parameter) -> Tensor:
    """Within a compiled step."""
    return ops.assign(total, ops.zeros_like(total))


class ForwardLoss(nn.Cell):
    """Model and loss: tokens, targets, mask [B, S] and the global count -> loss."""

    def __init__(self, model: nn.Cell, loss: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        self.loss = loss

    def construct(self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        return self.loss(self.model(tokens_BS), targets_BS, mask_BS, count)


class Gradients(nn.Cell):
    """Loss and the gradient of every parameter."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.grad = ms.value_and_grad(forward, None, parameters)

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.grad(tokens_BS, targets_BS, mask_BS, count)


class WholeStep(nn.Cell):
    """Forward, backward, clipping and update of a batch that is not split -> loss, gradient norm."""

    def __init__(self, gradients: Gradients, clip: nn.Cell, optimizer: AdamW) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.clip = clip
        self.optimizer = optimizer

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor, scalars: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss, gradients = self.gradients(tokens_BS, targets_BS, mask_BS, count)
        norm, scale = self.clip(gradients)
        return ops.depend(loss, self.optimizer(gradients, scale, scalars)), norm


class AccumulateStep(nn.Cell):
    """Adds a micro-batch's gradients to the sums -> its part of the loss."""

    def __init__(self, gradients: Gradients, sums: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.sums = sums
        self.each = ops.HyperMap()

    def construct(self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        loss, gradients = self.gradients(tokens_BS, targets_BS, mask_BS, count)
        self.each(add, self.sums, gradients)
        return loss


class UpdateStep(nn.Cell):
    """Clipping and update by the summed gradients, which are then reset to zero -> gradient norm."""

    def __init__(self, sums: ms.ParameterTuple, clip: nn.Cell, optimizer: AdamW) -> None:
        super().__init__(auto_prefix=False)
        self.sums = sums
        self.clip = clip
        self.optimizer = optimizer
        self.each = ops.HyperMap()

    def construct(self, scalars: Tensor) -> Tensor:
        gradients = self.each(value, self.sums)
        norm, scale = self.clip(gradients)
        norm = ops.depend(norm, self.optimizer(gradients, scale, scalars))
        self.each(reset, self.sums)
        return norm


class UpdateBySums(nn.Cell):
    """Update by what the sums hold, without clipping; they are then reset to zero -> the factor that was given."""

    def __init__(self, sums: ms.ParameterTuple, optimizer: AdamW) -> None:
        super().__init__(auto_prefix=False)
        self.sums = sums
        self.optimizer = optimizer
        self.each = ops.HyperMap()

    def construct(self, scale: Tensor, scalars: Tensor) -> Tensor:
        gradients = self.each(value, self.sums)
        scale = ops.depend(scale, self.optimizer(gradients, scale, scalars))
        self.each(reset, self.sums)
        return scale
