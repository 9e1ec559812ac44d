"""`CertifyCosine`: mindformers' cosine schedule with warm-up, each rate computed in float64 and rounded once.

    lr_schedule:
      type: CertifyCosine

mindformers' own `CosineWithWarmUpLR` computes in float32, up to 4.2e-7 off in 1,000 steps, and the standards let a rate
be 2e-7 off. This one has the same arguments, as far as a case has them, and gives the rates of the case.

Source: mindformers 1.9.0, core/lr/lr_schedule.py.
"""

from typing import Any

import numpy as np
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindspore import Tensor, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from harness.base.errors import InputError
from qwen3_model.schedule import CosineWithMinLr

WITHOUT_EFFECT = {"num_cycles": 0.5, "warmup_lr_init": 0}  # the values that a case means


@MindFormerRegister.register(MindFormerModuleType.LR)
class CertifyCosine(LearningRateSchedule):
    """Rates by the number of updates already done; see `qwen3_model.schedule.CosineWithMinLr`.

    Args:
        learning_rate: After the warm-up.
        total_steps: Of the whole run; mindformers gives it where the file does not.
        warmup_steps: Over which the rate rises from 0.
        warmup_ratio: The share of all steps that is warm-up, in place of `warmup_steps`.
        lr_end: At the end.

    Raises:
        InputError: an argument means a schedule that is no case's.
    """

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        warmup_steps: int | None = None,
        warmup_ratio: float | None = None,
        lr_end: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__()
        if odd := sorted(name for name, value in others.items() if value not in (None, WITHOUT_EFFECT.get(name))):
            raise InputError(f"lr_schedule: CertifyCosine takes no {', '.join(odd)}.")
        warmup = int(warmup_ratio * total_steps) if warmup_ratio is not None else warmup_steps or 0
        exact = CosineWithMinLr(peak=learning_rate, warmup_steps=warmup, total_steps=total_steps, min_lr=lr_end)
        rates = [exact.learning_rate(step) for step in range(1, total_steps + 2)]  # and the one that stays
        self.warmup_lr_init = 0.0  # mindformers logs it
        self.rates = Tensor(np.array(rates, np.float32))
        self.last = Tensor(np.int32(total_steps))

    def construct(self, global_step: Tensor) -> Tensor:
        """The rate of the update after `global_step` others."""
        return ops.gather(self.rates, ops.minimum(global_step, self.last), 0)
