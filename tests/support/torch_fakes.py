"""Fakes that several processes make together, started by `torchrun`; one does something wrong at a step."""

import os
import signal
import time
from typing import Any

import torch

from harness.cases.case import Case
from harness.runners.protocol import Numbers, Setting, Tensors
from tests.support.fake_runners import Fake


class Together(Fake):
    """Each step sums a number over all processes, so none goes on without the others."""

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        super().__init__(case, weights, setting)
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        self.rank = torch.distributed.get_rank()
        print(f"this is process {self.rank}", flush=True)

    def train_step(self, tokens: Any, loss_mask: Any) -> Numbers:
        numbers = super().train_step(tokens, loss_mask)
        torch.distributed.all_reduce(torch.ones(1))
        return numbers

    def at_step(self, numbers: Numbers) -> Numbers:
        if self.rank == 1:
            self.wrong()
        return numbers

    def wrong(self) -> None: ...


class OneKilled(Together):
    def wrong(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class OneHangs(Together):
    def wrong(self) -> None:
        time.sleep(3600)
