"""The interface of a runner: its methods, its constructor arguments, and its results."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from harness.cases.case import Case
from harness.runs.evaluation import Evaluation
from harness.runs.inputs import ProbeGradients
from harness.runs.operators import Operator
from harness.runs.trace import EvaluationTask

Tensors = Mapping[str, npt.NDArray[Any]]


class Copies(Mapping[str, npt.NDArray[Any]]):
    """Tensors of a model as it is now, by name: each is copied when it is asked for, so that no model is held twice."""

    def __init__(self, names: Iterable[str], copy: Callable[[str], npt.NDArray[Any]]) -> None:
        self._names, self._copy = dict.fromkeys(names), copy

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        return self._copy(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of one step: the loss before the update, the norm before clipping, the learning rate, and the number
    of target tokens that the loss was divided by, as the runner itself counted them."""

    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Taps:
    """The tensors inside one step, over the global batch, by the names of `harness.runs.places`: the activation at each
    place, the gradient of the loss with respect to it, and the gradient of every parameter from the same pass."""

    forward: Tensors
    backward: Tensors
    gradients: Tensors


class Runner(Protocol):
    """One model in training. Built from `(case, weights, setting)`; `train_step` is called once a step, in order."""

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update by the global batch `tokens` [B, S+1], `loss_mask` [B, S]."""

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Tensors:
        """The gradient of every parameter for the global batch, before clipping; nothing is updated."""

    def apply_gradients(self, gradients: Tensors) -> None:
        """One update by given gradients, without clipping, at the rate of the next step."""

    def parameters(self) -> Tensors:
        """Every parameter by its Hugging Face name, as it is while no step is taken."""

    def alignment(self) -> dict[str, Any]:
        """Configuration and optimizer as they were built, in the keys of `harness.runs.alignment.alignment`."""

    def save(self, directory: Path) -> None:
        """Writes all that a run needs to continue bit for bit."""

    def load(self, directory: Path) -> None:
        """Continues from what `save` wrote."""

    def provenance(self) -> dict[str, Any]:
        """Versions and settings that the numbers depend on, as JSON values without time or host."""


Likelihoods = tuple[tuple[float, ...], float]  # of one document: its log-likelihoods, and its score


class Answerer(Protocol):
    """One model that runs inference, built from `(case, weights, setting)`.

    `harness.comparison.inference` names its outputs.
    """

    def evaluate(self, task: EvaluationTask, documents: Sequence[Any]) -> Iterable[Likelihoods]:
        """Log-likelihoods and score of every document of a task, in order, by lm-eval."""

    def answers(self, evaluation: Evaluation) -> dict[str, npt.NDArray[Any]]:
        """Its outputs for rows, prompts and conversations, by the names of `harness.comparison.inference`."""

    def parameters(self) -> Tensors:
        """Every parameter by its Hugging Face name."""

    def alignment(self) -> dict[str, Any]:
        """The configuration as it was built, in the keys of `harness.runs.alignment.model_alignment`."""

    def provenance(self) -> dict[str, Any]:
        """Versions and settings that the answers depend on, as JSON values without time or host."""


@runtime_checkable
class Compiled(Protocol):
    """A runner whose step is compiled before it is taken; without `compile`, the first step may include compiling."""

    def compile(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> None:
        """Compiles a step for batches of this shape; computes nothing."""


@runtime_checkable
class WithMoments(Protocol):
    """A runner that shows what its optimizer holds. Without `moments`, no gradient of a later step is compared."""

    def moments(self) -> Tensors:
        """The first moment of every parameter by its Hugging Face name, as it is while no step is taken."""


@runtime_checkable
class WithOperators(Protocol):
    """A runner that shows its framework's elementary operators. Without `operators`, they are not measured."""

    def operators(self) -> Mapping[str, Operator]:
        """By the names of `harness.runs.operators.PROBES`, as they work on the device: NumPy arrays to a NumPy
        array."""


@runtime_checkable
class ByParameter(Protocol):
    """A runner that measures a step without an update, and updates one parameter without the others, so that no moments
    are held for a whole model."""

    def measured(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> tuple[Numbers, Tensors]:
        """The numbers and the gradients of the next step, which is not taken."""

    def updated(self, name: str, gradients: Sequence[ProbeGradients]) -> npt.NDArray[Any]:
        """A parameter after one update by each of these gradients, at the rates of the first steps, without
        clipping."""


@runtime_checkable
class Tapped(Protocol):
    """A runner that returns the tensors inside a step. Taps change no bit of the step. Without `taps`, a diagnosis uses
    the gradients of the parameters alone."""

    def taps(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Taps:
        """The places that can be reached, for the global batch; nothing is updated, and it may be called again."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a runner needs besides its case. `learning_rate_zero`: the schedule is replaced by 0 in every step.
    `rank`: the rank of this process in the layout of the case; None: one process, whatever the layout.
    `tokenizer`: the directory of the tokenizer, for inference on texts."""

    device: str
    threads: int
    learning_rate_zero: bool
    rank: int | None = None
    tokenizer: Path | None = None


RunnerFactory = Callable[[Case, Tensors, Setting], Runner]


AnswererFactory = Callable[[Case, Tensors, Setting], Answerer]
