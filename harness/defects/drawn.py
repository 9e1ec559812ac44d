"""Plants drawn faults: `harness.defects.drawn:Drawn17` is the shipped subject with the fault of number 17.

What is wrong in some steps alone depends on parameters of the graph that are set before a step, so that one compiled
step serves all.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops

from harness.cases.case import Case
from harness.defects.draw import Fault, Kind, draw
from harness.defects.planting import ChangedGradients, overwrite
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Setting
from harness.runs.inputs import seeded
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM
from qwen3_model.modeling_qwen3_train import Qwen3Trainer, StepResult
from qwen3_model.optimizer import AdamW
from qwen3_model.training_step import ForwardLoss, Gradients

Array = npt.NDArray[Any]
NAME = re.compile(r"Drawn([1-9][0-9]*)")


def factor(name: str, shape: tuple[int, ...] = (1,)) -> Parameter:
    """A number that is 1 in a right step."""
    return Parameter(Tensor(np.ones(shape, np.float32)), name=f"fault.{name}", requires_grad=False)


class Times(nn.Cell):
    """The result of a cell times a number."""

    def __init__(self, inner: nn.Cell, times: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.inner, self.times = inner, times

    def construct(self, *inputs: Tensor) -> Tensor:
        return self.inner(*inputs) * self.times


class DrawnTrainer(Qwen3Trainer):
    """Trains with a fault; a subclass plants one kind of it."""

    fault: Fault
    times: Parameter | None = None

    def train_step(self, tokens: Array, loss_mask: Array) -> StepResult:
        self.set_factor()
        result = super().train_step(tokens, loss_mask)
        if self.fault.holds(result.step):
            self.afterwards()
        return result

    def gradients(self, tokens: Array, loss_mask: Array) -> dict[str, Array]:
        self.set_factor()
        return super().gradients(tokens, loss_mask)

    def apply_gradients(self, gradients: Mapping[str, Array]) -> None:
        self.set_factor()
        super().apply_gradients(gradients)

    def set_factor(self) -> None:
        """Of the next step."""
        if self.times is not None:
            wrong = self.fault.holds(self.step + 1)
            overwrite(self.times, self.wrong() if wrong else np.ones(self.times.shape, np.float32))

    def wrong(self) -> Array:
        """The value of `times` in a wrong step."""
        assert self.times is not None, "it is called for a fault with a factor"
        return np.full(self.times.shape, 1 + self.fault.size, np.float32)

    def afterwards(self) -> None:
        """What goes wrong after a wrong step."""


class OfOutput(DrawnTrainer):
    def build_model(self) -> Qwen3ForCausalLM:
        model = super().build_model()
        names = [(parameter, parameter.name) for parameter in model.get_parameters()]
        self.times = factor("output")
        *path, last = str(self.fault.place).split(".")
        holder: Any = model
        for part in path:
            holder = holder[int(part)] if part.isdigit() else getattr(holder, part)
        setattr(holder, last, Times(getattr(holder, last), self.times))
        for parameter, name in names:  # MindSpore renames what is in a new cell
            parameter.name = name
        return model

    def load_weights(self, tensors: Mapping[str, Array]) -> None:
        assert self.times is not None, "the model was built"
        super().load_weights({**tensors, self.times.name: np.ones(self.times.shape, np.float32)})


class TimesGradients(ChangedGradients):
    """The gradients, each times a number or a number for each row."""

    times: list[Parameter]

    def changed(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple([self.scaled(gradients[i], i) for i in range(len(gradients))])

    def scaled(self, gradient: Tensor, i: int) -> Tensor:
        return gradient * self.times if self.selected[i] else gradient


class OfGradient(DrawnTrainer):
    def build_gradients(self, parameters: ms.ParameterTuple) -> Gradients:
        cell, fault = TimesGradients(ForwardLoss(self.model, self.build_loss()), parameters), self.fault
        shapes = {parameter.name: parameter.shape for parameter in parameters}
        by_row = fault.kind == "gradient-row"
        self.times = factor("gradient", (shapes[fault.place][0], 1) if by_row and fault.place else (1,))
        cell.times = self.times
        cell.selected = [fault.place in (None, parameter.name) for parameter in parameters]
        return cell

    def wrong(self) -> Array:
        whole = super().wrong()
        if self.fault.kind == "gradient-row":
            rows = np.ones_like(whole)
            rows[self.fault.row] = whole[self.fault.row]
            return rows
        return whole


class OfScalars(DrawnTrainer):
    """The rate that is used, or the decay."""

    def scalars(self, step: int) -> Array:
        found = super().scalars(step)
        if self.fault.kind == "decay":
            found[2] *= np.float32(1 + self.fault.size)
        elif self.fault.holds(step):
            found[0] *= np.float32(1 + self.fault.size)
        return found


class OneTimes(AdamW):
    """The update of one parameter with another rate or another decay."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        for i in range(len(self.parameters)):
            rate, decay = scalars[0], scalars[2] if self.decay_flags[i] else ops.zeros_like(scalars[2])
            if self.rated[i]:
                rate = rate * ops.reshape(self.times, ())
            if self.decayed[i]:
                decay = decay * ops.reshape(self.times, ())
            self.update(
                self.parameters[i], self.exp_avg[i], self.exp_avg_sq[i], rate, self.beta1, self.beta2, scalars[1],
                decay, gradients[i] * scale,
            )  # fmt: skip
        return True


class OfOneUpdate(DrawnTrainer):
    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        cell, here = OneTimes(parameters, self.optimizer_config, self.decays), self.fault.place
        self.times = cell.times = factor("update")
        chosen = [parameter.name == here for parameter in parameters]
        of_rate = self.fault.kind == "rate-of-tensor"
        cell.rated = chosen if of_rate else [False] * len(chosen)
        cell.decayed = [False] * len(chosen) if of_rate else chosen
        return cell


class OfBetas(DrawnTrainer):
    """The operator gets another beta than the host's correction of the bias."""

    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        cell, name = super().build_optimizer(parameters), self.fault.kind
        setattr(cell, name, 1 - (1 - getattr(cell, name)) * (1 + self.fault.size))
        return cell


class OfClipping(DrawnTrainer):
    def build_clip(self, max_norm: float | None) -> nn.Cell:
        return super().build_clip(None if max_norm is None else max_norm * (1 + self.fault.size))


class DividedLoss(TokenLoss):
    def construct(self, logits: Tensor, targets: Tensor, mask: Tensor, count: Tensor) -> Tensor:
        return super().construct(logits, targets, mask, count * ops.reshape(self.times, ()))


class OfLoss(DrawnTrainer):
    def build_loss(self) -> nn.Cell:
        cell = DividedLoss()
        self.times = cell.times = factor("loss")
        return cell


class OfMask(DrawnTrainer):
    """The targets that are left out still count in the number that the loss is divided by."""

    def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
        count = Tensor(self.token_count(loss_mask), ms.float32)
        if self.fault.holds(self.step + 1):
            random = seeded(f"mask {self.fault.number}/{self.step}").random_sample(loss_mask.shape)
            kept = (random >= abs(self.fault.size)).astype(loss_mask.dtype)
            kept.flat[0] = 1
            loss_mask = loss_mask * kept
        for inputs, targets, mask, _ in super().micro_batches(tokens, loss_mask):
            yield inputs, targets, mask, count


class OfState(DrawnTrainer):
    """A tensor of the state is wrong after a step, as by a faulty memory."""

    def afterwards(self) -> None:
        at = self.names().index(str(self.fault.place))
        held = self._parameters if self.fault.kind == "weight" else self._optimizer.exp_avg_sq
        overwrite(held[at], held[at].asnumpy() * np.float32(1 + self.fault.size))


class OfRestored(DrawnTrainer):
    def load_checkpoint(self, directory: str | Path) -> None:
        super().load_checkpoint(directory)
        moment = self._optimizer.exp_avg[self.names().index(str(self.fault.place))]
        overwrite(moment, moment.asnumpy() * np.float32(1 + self.fault.size))


TRAINERS: dict[Kind, type[DrawnTrainer]] = {
    "output": OfOutput,
    "gradient": OfGradient,
    "gradient-once": OfGradient,
    "gradient-row": OfGradient,
    "all-gradients-once": OfGradient,
    "rate": OfScalars,
    "rate-of-tensor": OfOneUpdate,
    "decay": OfScalars,
    "decay-of-tensor": OfOneUpdate,
    "beta1": OfBetas,
    "beta2": OfBetas,
    "clipping": OfClipping,
    "loss": OfLoss,
    "mask": OfMask,
    "weight": OfState,
    "moment": OfState,
    "restored-moment": OfRestored,
}


class DrawnSubject(MindSporeSubject):
    """The shipped subject with the fault of a number."""

    number: int

    @classmethod
    def build_trainer(cls, case: Case, setting: Setting) -> Qwen3Trainer:
        fault = draw(cls.number, case)
        trainer = type("Trainer", (TRAINERS[fault.kind],), {"fault": fault})
        subject: type[MindSporeSubject] = type("Subject", (MindSporeSubject,), {"trainer": trainer})
        return subject.build_trainer(case, setting)


def __getattr__(name: str) -> type[DrawnSubject]:
    """The subject with the fault of a number."""
    if not (found := NAME.fullmatch(name)):
        raise AttributeError(name)
    return type(name, (DrawnSubject,), {"number": int(found[1])})
