"""Runs of the real subject that break on purpose; what computes something wrong is in `harness.defects`.

Each is a runner for `certify run --subject tests.support.faults:NAME`.
"""

import dataclasses
import os
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.cases.case import Case
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Numbers, Setting, Tensors
from tests.support.hostile_runners import job_of_this_process


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
    """A training run is killed at step 12, once: a file in its directory states that it has happened."""

    def happens(self, numbers: Numbers) -> Numbers:
        flag = Path(job_of_this_process().directory) / "killed"
        # Not the run at learning rate 0: which of the two that go at a time comes first there is a race.
        if not self.setting.learning_rate_zero and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return numbers

    def load(self, directory: Path) -> None:
        super().load(directory)
        self.taken = 10
