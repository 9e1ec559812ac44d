"""One stage of a pipeline: its compiled cells, its transfers to other stages, and the way of micro batches through it.

A stage recomputes its forward pass from its kept input when the gradient arrives. So each stage is a compiled cell, and
ranks communicate between these cells.
"""

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from qwen3_model.collectives import Group, transfers
from qwen3_model.modeling_qwen3_parallel import StageModel
from qwen3_model.pipeline_schedule import Action
from qwen3_model.reduction import Ranks
from qwen3_model.training_step import ForwardLoss, add


class StageBackward(nn.Cell):
    """The input of a stage and the gradient of its output -> the gradients of the input and of its parameters."""

    def __init__(self, model: StageModel, parameters: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.model, self.parameters, self.first = model, parameters, model.first
        by_input = not model.first  # tokens have no gradient
        self.grad = ops.GradOperation(get_all=by_input, get_by_list=True, sens_param=True)(model, parameters)

    def construct(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        found = self.grad(x, gradient)
        return (gradient, found) if self.first else (found[0][0], found[1])


class LastStage(nn.Cell):
    """The input of the last stage, with targets, mask and count -> loss, and the gradients of input and parameters."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.grad = ms.value_and_grad(forward, 0, parameters)

    def construct(
        self, x: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        loss, (of_input, of_parameters) = self.grad(x, targets_BS, mask_BS, count)
        return loss, of_input, of_parameters


class Add(nn.Cell):
    """Adds a micro batch's gradients to the sums."""

    def __init__(self, sums: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.sums = sums
        self.each = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> bool:
        self.each(add, self.sums, gradients)
        return True


def _transfers(pair: Group | None) -> tuple[nn.Cell | None, nn.Cell | None]:
    """The cells that send to and receive from the other rank of a pair; none where there is no such stage."""
    return transfers(pair) if pair else (None, None)


class Transfers:
    """The cells by which a rank sends to the stages next to its own and receives from them, None where there is no such
    stage. On a CPU one cell does both."""

    to_previous: Any
    from_previous: Any
    to_next: Any
    from_next: Any

    def __init__(self, ranks: Ranks) -> None:
        self.to_previous, self.from_previous = _transfers(ranks.previous)
        self.to_next, self.from_next = _transfers(ranks.next)

    def all(self) -> list[nn.Cell]:
        """Each cell once."""
        every = (self.from_previous, self.to_previous, self.to_next, self.from_next)
        return [cell for cell in dict.fromkeys(every) if cell is not None]


class StagePasses:
    """The micro batches of a step on their way through a stage. Of each it keeps the input, from which the forward pass
    is computed again, until its gradient arrives.

    `batches` are inputs, targets, mask and count of each; `nothing` are zeros of the shape that stages send. `loss` is
    that of all micro batches which the last stage has seen.
    """

    def __init__(
        self,
        model: StageModel,
        stage: StageBackward | LastStage,
        add_: Add,
        transfers: Transfers,
        batches: Sequence[tuple[Tensor, ...]],
        nothing: Tensor,
    ) -> None:
        self._model, self._stage, self._add, self._transfers = model, stage, add_, transfers
        self._batches, self._nothing = batches, nothing
        self._inputs: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._gradients: dict[int, Tensor] = {}
        self.loss = np.float32(0)

    def take(self, action: Action, number: int) -> None:
        """Carries out an action of the schedule."""
        getattr(self, f"_{action}")(number)

    def _forward(self, number: int) -> None:
        inputs, *others = self._batches[number]
        receive = self._transfers.from_previous
        x = inputs if receive is None else receive(self._nothing)
        if self._transfers.to_next is not None:
            self._inputs[number], self._outputs[number] = x, self._model(x)
            return
        loss, self._gradients[number], of_parameters = self._stage(x, *others)
        self._add(ms.mutable(of_parameters))
        self.loss += loss.asnumpy()

    def _send(self, number: int) -> None:
        self._transfers.to_next(self._outputs.pop(number))

    def _receive(self, number: int) -> None:
        self._gradients[number] = self._transfers.from_next(self._nothing)

    def _backward(self, number: int) -> None:
        of_input = self._gradients.pop(number)
        if self._transfers.to_next is not None:
            of_input, of_parameters = self._stage(self._inputs.pop(number), of_input)
            self._add(ms.mutable(of_parameters))
        if self._transfers.to_previous is not None:
            self._transfers.to_previous(of_input)
