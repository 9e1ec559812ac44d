"""Faults planted by hand in the real subject, one at a time: a run with one must not pass.

Each is a runner for `certify run --subject tests.support.faults:NAME`.
"""

import dataclasses
import os
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn

from harness.case import Case
from harness.runners import Numbers, Setting, Tensors
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM
from qwen3_model.modeling_qwen3_train import Qwen3Trainer


class RotaryBase(MindSporeSubject):
    """rope_theta 1e4 where the case has 1e6."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            return Qwen3ForCausalLM(dataclasses.replace(self.config, rope_theta=1e4), self.policy)


class NormEpsilon(MindSporeSubject):
    """rms_norm_eps 1e-5 where the case has 1e-6."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            return Qwen3ForCausalLM(dataclasses.replace(self.config, rms_norm_eps=1e-5), self.policy)


class Unnormed(nn.Cell):
    """Keeps the weight of the norm that it replaces and leaves its input as it is."""

    def __init__(self, norm: nn.Cell) -> None:
        super().__init__()
        self.weight = norm.weight

    def construct(self, x: Tensor) -> Tensor:
        return x


class MissingKeyNorm(MindSporeSubject):
    """The k norm of the last layer does nothing."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            attention = model.model.layers[len(model.model.layers) - 1].self_attn
            name = attention.k_norm.weight.name
            attention.k_norm = Unnormed(attention.k_norm)
            attention.k_norm.weight.name = name  # a cell that is exchanged later names its parameters anew
            return model


class LabelsNotShifted(MindSporeSubject):
    """The target of a position is its own token."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
            return tokens[:, :-1], tokens[:, :-1]


class DecayOnNorms(MindSporeSubject):
    """Weight decay applies to the norms too."""

    class trainer(Qwen3Trainer):
        def decays(self, name: str) -> bool:
            return True


class _ChangedCase(MindSporeSubject, ABC):
    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        super().__init__(self.changed(case), weights, setting)

    @abstractmethod
    def changed(self, case: Case) -> Case: ...


class Beta2(_ChangedCase):
    """beta2 0.999 where the case has 0.95."""

    def changed(self, case: Case) -> Case:
        return case.with_changes(optimizer={**case.optimizer.model_dump(), "betas": (case.optimizer.betas[0], 0.999)})


class ClippingOff(_ChangedCase):
    """No clipping."""

    def changed(self, case: Case) -> Case:
        return case.with_changes(training={**case.training.model_dump(), "clip_grad": None})


class ScheduleLate(MindSporeSubject):
    """Every learning rate comes one step late."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return super().learning_rate(max(1, step - 1))


class _AtStep(MindSporeSubject, ABC):
    """Does something at one step of every run."""

    at = 12

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        super().__init__(case, weights, setting)
        self.setting, self.taken = setting, 0

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        self.taken += 1
        numbers = super().train_step(tokens, loss_mask)
        return self.happens(numbers) if self.taken == self.at else numbers

    @abstractmethod
    def happens(self, numbers: Numbers) -> Numbers: ...


class NotANumber(_AtStep):
    """The loss is not a number at step 12."""

    def happens(self, numbers: Numbers) -> Numbers:
        return dataclasses.replace(numbers, loss=float("nan"))


class Hangs(_AtStep):
    """Step 12 never ends."""

    def happens(self, numbers: Numbers) -> Numbers:
        time.sleep(3600)
        return numbers


class KilledOnce(_AtStep):
    """A training run is killed at step 12, once: the file that the variable names says that it has happened."""

    def happens(self, numbers: Numbers) -> Numbers:
        flag = Path(os.environ["KILLED_ONCE"])
        # Not the run at learning rate 0: which of the two that go at a time comes first there is a race.
        if not self.setting.learning_rate_zero and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return numbers

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.taken = 10
