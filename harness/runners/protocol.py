"""What a runner is: the methods it has, what it is built from, what it reports."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from harness.cases.case import Case
from harness.runs.evaluation import Evaluation
from harness.runs.trace import EvaluationTask

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What one step measured: the loss before the update, the norm before clipping, the rate that the schedule gave,
    and the target tokens that the loss was divided by, as the runner itself counted them."""

    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Taps:
    """What is inside one step, over the global batch, by the names of `harness.runs.places`: the value at each place,
    the loss's gradient with respect to it, and the gradient of every parameter from the same pass."""

    forward: Tensors
    backward: Tensors
    gradients: Tensors


class Runner(Protocol):
    """One model in training. Built from `(case, weights, setting)`; `train_step` is called once a step, in order."""

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update by the global batch `tokens` [B, S+1], `loss_mask` [B, S]."""

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """The gradient of every parameter for the global batch, before clipping; nothing is updated."""

    def apply_gradients(self, gradients: Tensors) -> None:
        """One update by given gradients, without clipping, at the rate of the next step."""

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Every parameter by its Hugging Face name."""

    def alignment(self) -> dict[str, Any]:
        """Configuration and optimizer as they were built, in the keys of `harness.cases.alignment.alignment`."""

    def save(self, directory: Path) -> None:
        """Writes all that a run needs to continue bit for bit."""

    def load(self, directory: Path) -> None:
        """Continues from what `save` wrote."""

    def provenance(self) -> dict[str, Any]:
        """Versions and settings that the numbers depend on, as JSON values without time or host."""


Likelihoods = tuple[tuple[float, ...], float]  # of one document: its log-likelihoods, and its score


class Answerer(Protocol):
    """One model that runs inference, built from `(case, weights, setting)`.

    What it leaves: see `harness.comparison.inference`.
    """

    def evaluate(self, task: EvaluationTask, documents: Sequence[Any]) -> Iterable[Likelihoods]:
        """Log-likelihoods and score of every document of a task, in order, by lm-eval."""

    def answers(self, evaluation: Evaluation) -> dict[str, npt.NDArray[Any]]:
        """What it says to rows, prompts and conversations, by the names of `harness.comparison.inference`."""

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Every parameter by its Hugging Face name."""

    def alignment(self) -> dict[str, Any]:
        """The configuration as it was built, in the keys of `harness.cases.alignment.model_alignment`."""

    def provenance(self) -> dict[str, Any]:
        """Versions and settings that the answers depend on, as JSON values without time or host."""


@runtime_checkable
class Tapped(Protocol):
    """A runner that shows what is inside a step. Looking changes no bit of it; without `taps`, a diagnosis goes by
    the gradients of the parameters alone."""

    def taps(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Taps:
        """The places that can be reached, for the global batch; nothing is updated, and it may be asked again."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a runner is to run beside its case. `learning_rate_zero`: the schedule is replaced by 0 in every step.
    `rank`: which of the ranks of the case's layout this process is; None: it trains alone, whatever the layout.
    `tokenizer`: the directory by which one that is asked reads texts."""

    device: str
    threads: int
    learning_rate_zero: bool
    rank: int | None = None
    tokenizer: Path | None = None


RunnerFactory = Callable[[Case, Tensors, Setting], Runner]


AnswererFactory = Callable[[Case, Tensors, Setting], Answerer]
