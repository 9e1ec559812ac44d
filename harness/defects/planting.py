"""Base classes for planted faults: each is a part of the real subject with one method for the fault to override."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops

from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Numbers, Tensors
from qwen3_model.modeling_qwen3 import Precision, Qwen3DecoderLayer, Qwen3ForCausalLM
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamW
from qwen3_model.training_step import ForwardLoss, Gradients

Array = npt.NDArray[Any]


class ChangedModel(Qwen3Trainer, ABC):
    """Trains a model that was changed after it was built; its configuration still states the requested model."""

    def build_model(self) -> Qwen3ForCausalLM:
        model = super().build_model()
        self.change(model)
        return model

    @abstractmethod
    def change(self, model: Qwen3ForCausalLM) -> None: ...


def layers(model: Qwen3ForCausalLM) -> Iterator[tuple[str, Qwen3DecoderLayer]]:
    """Each decoder layer with its dotted name."""
    for number, layer in enumerate(model.model.layers):
        yield f"model.layers.{number}", layer


def exchange(model: Qwen3ForCausalLM, place: str, cell: nn.Cell) -> None:
    """Replaces the cell at a dotted name; the new parameters get the names of the old ones."""
    holder, _, name = f"root.{place}".rpartition(".")
    named = [(parameter, f"{place}.{parameter.name}") for parameter in cell.get_parameters()]
    parent: Any = model
    for part in holder.split(".")[1:]:
        parent = parent[int(part)] if part.isdigit() else getattr(parent, part)
    if name.isdigit():
        parent[int(name)] = cell
    else:
        setattr(parent, name, cell)
    rename(named)  # MindSpore renames the parameters of a cell that is added later


def rename(named: Iterable[tuple[Parameter, str]]) -> None:
    for parameter, name in named:
        parameter.name = name


class ChangedGradients(Gradients):
    """Returns changed gradients; the gradients of taps, which come last, are unchanged.

    `changed` is not abstract, because MindSpore instantiates cells itself, even ones with abstract methods.
    """

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(forward, parameters)
        self.count = len(parameters)

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss, gradients = self.grad(tokens_BS, targets_BS, mask_BS, count)
        return loss, self.changed(gradients[: self.count]) + gradients[self.count :]

    def changed(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        raise NotImplementedError


class WithGradients(Qwen3Trainer):
    """Trains with the gradients of another cell."""

    gradients_cell: type[Gradients]

    def build_gradients(self, parameters: ms.ParameterTuple) -> Gradients:
        return self.gradients_cell(ForwardLoss(self.model, self.build_loss()), parameters)


class WithOptimizer(Qwen3Trainer):
    """Trains with another optimizer cell."""

    optimizer_cell: type[AdamW]

    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        return self.optimizer_cell(parameters, self.optimizer_config, self.decays)


class WrittenOutAdamW(AdamW):
    """The update in single operators; `denominator` divides the first moment."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        for i in range(len(self.parameters)):
            parameter, gradient = self.parameters[i], gradients[i] * scale
            first = self.beta1 * self.exp_avg[i] + (1 - self.beta1) * gradient
            second = self.beta2 * self.exp_avg_sq[i] + (1 - self.beta2) * ops.square(gradient)
            step = first / self.denominator(i, second, scalars[1])
            if self.decay_flags[i]:
                step = step + scalars[2] * parameter
            ops.assign(self.exp_avg[i], first)
            ops.assign(self.exp_avg_sq[i], second)
            ops.assign(parameter, parameter - scalars[0] * step)
        return True

    def denominator(self, i: int, second: Tensor, eps: Tensor) -> Tensor:
        return ops.sqrt(second) + eps


class OtherBatches(MindSporeSubject, ABC):
    """Trains on other batches than the given ones, as a faulty data loader would make them."""

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        return super().train_step(*self.batch(self._trainer.step + 1, tokens, loss_mask))

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Tensors:
        return super().gradients(*self.batch(self._trainer.step + 1, tokens, loss_mask))

    @abstractmethod
    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]: ...


def bfloat16(x: Array) -> Array:
    """Rounded to bfloat16 and back."""
    rounded: Array = Tensor(x).astype(ms.bfloat16).astype(ms.float32).asnumpy()
    return rounded


def overwrite(parameter: Parameter, values: Array) -> None:
    parameter.set_data(Tensor(np.ascontiguousarray(values), parameter.dtype))


def low() -> Precision:
    """A cell that rounds to bfloat16."""
    return Precision("bfloat16")
