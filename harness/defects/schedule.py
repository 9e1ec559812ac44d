"""Defects of the schedule: a step uses another rate than its own.

Most report the wrong rate, which is easy to detect; the last three report the right rate and use another.
"""

import dataclasses
from abc import ABC, abstractmethod

from harness.defects import defect
from harness.defects.planting import Array
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import step_scalars
from qwen3_model.schedule import CosineWithMinLr, ScheduleConfig


@defect(
    area="schedule",
    imitates="scheduler.step() after the first update that should have used it",
    source="https://github.com/facebookresearch/deit/issues/145",
    reported="2022-01-28",
    since="2026-11-24",
)
class ScheduleLate(MindSporeSubject):
    """Every learning rate comes one step late."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return super().learning_rate(max(1, step - 1))


@defect(
    area="schedule",
    imitates="scheduler.step() before optimizer.step(), which skips the first rate",
    source="https://docs.pytorch.org/docs/stable/optim.html",
    since="2026-11-24",
)
class ScheduleEarly(MindSporeSubject):
    """Every learning rate comes one step early."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return super().learning_rate(step + 1)


class OtherCosine(Qwen3Trainer, ABC):
    """Follows another cosine where the case has one."""

    @abstractmethod
    def other(self, schedule: CosineWithMinLr) -> ScheduleConfig: ...

    def learning_rate(self, step: int) -> float:
        requested = self.schedule
        used = self.other(requested) if isinstance(requested, CosineWithMinLr) else requested
        return used.learning_rate(step)


@defect(
    area="schedule",
    imitates="A warm-up that starts from a tenth of the peak",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    since="2026-11-24",
)
class WarmupFromTenth(MindSporeSubject):
    """The warm-up begins at a tenth of the peak, not at 0."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            rate, requested = super().learning_rate(step), self.schedule
            if isinstance(requested, CosineWithMinLr) and step <= requested.warmup_steps:
                return 0.1 * requested.peak + 0.9 * rate
            return rate


@defect(
    area="schedule",
    imitates="The cosine schedule without a minimum",
    source="https://arxiv.org/abs/1608.03983",
    since="2026-11-24",
)
class CosineToZero(MindSporeSubject):
    """The cosine falls to 0, not to the case's lowest rate."""

    class trainer(OtherCosine):
        def other(self, schedule: CosineWithMinLr) -> ScheduleConfig:
            return dataclasses.replace(schedule, min_lr=0.0)


@defect(
    area="schedule",
    imitates="A decay over all steps that starts after the warm-up",
    source="https://arxiv.org/abs/1608.03983",
    since="2026-11-24",
)
class CosineOverOtherTotal(MindSporeSubject):
    """The cosine ends too late, by the number of warm-up steps."""

    class trainer(OtherCosine):
        def other(self, schedule: CosineWithMinLr) -> ScheduleConfig:
            return dataclasses.replace(schedule, total_steps=schedule.total_steps + schedule.warmup_steps)


@defect(
    area="schedule",
    imitates="A schedule's type that is not recognised, so that only its warm-up is left",
    source="https://huggingface.co/docs/transformers/main_classes/optimizer_schedules",
    since="2026-11-24",
)
class ConstantAfterWarmup(MindSporeSubject):
    """The rate stays at the peak after the warm-up."""

    class trainer(OtherCosine):
        def other(self, schedule: CosineWithMinLr) -> ScheduleConfig:
            return dataclasses.replace(schedule, min_lr=schedule.peak)


@defect(
    area="schedule",
    imitates="A schedule that is stepped once per epoch",
    source="https://github.com/salesforce/LAVIS/issues/72",
    since="2026-11-24",
)
class Staircase(MindSporeSubject):
    """The rate changes every tenth step only."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return super().learning_rate((step - 1) // 10 * 10 + 1)


@defect(
    area="schedule",
    imitates="A rate scaled by a batch size that includes an incomplete batch",
    source="https://arxiv.org/abs/1706.02677",
    since="2026-11-24",
    size=0.01,
)
class RateOnePercent(MindSporeSubject):
    """Every learning rate is 1 % too large."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return 1.01 * super().learning_rate(step)


@defect(
    area="schedule",
    imitates="A rate kept in low precision",
    source="https://arxiv.org/abs/1710.03740",
    since="2026-11-24",
    size=0.001,
)
class RateOnePerMille(MindSporeSubject):
    """Every learning rate is 0.1 % too large."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return 1.001 * super().learning_rate(step)


class RateUsed(Qwen3Trainer):
    """Reports the right rate and uses `factor` times it."""

    factor: float

    def scalars(self, step: int) -> Array:
        return step_scalars(self.optimizer_config, step, self.factor * self.learning_rate(step))


@defect(
    area="schedule",
    imitates="A scale that the optimizer applies to the rate that the schedule reports",
    source="https://arxiv.org/abs/1706.02677",
    since="2026-11-24",
    size=0.01,
)
class UsedRateOnePercent(MindSporeSubject):
    """Every update uses a rate 1 % above the reported one."""

    class trainer(RateUsed):
        factor = 1.01


@defect(
    area="schedule",
    imitates="A scale that the optimizer applies to the rate that the schedule reports",
    source="https://arxiv.org/abs/1706.02677",
    since="2026-11-24",
    size=0.001,
)
class UsedRateOnePerMille(MindSporeSubject):
    """Every update uses a rate 0.1 % above the reported one."""

    class trainer(RateUsed):
        factor = 1.001


@defect(
    area="schedule",
    imitates="A rate that is logged from the schedule and reaches the optimizer one step later",
    source="https://docs.pytorch.org/docs/stable/optim.html",
    since="2026-11-24",
)
class UsedRateLate(MindSporeSubject):
    """Every update uses the rate of the previous step; the right one is reported."""

    class trainer(Qwen3Trainer):
        def scalars(self, step: int) -> Array:
            return step_scalars(self.optimizer_config, step, self.learning_rate(max(1, step - 1)))


@defect(
    area="schedule",
    imitates="scheduler.step() after each micro-batch, not after each update",
    source="https://github.com/meta-llama/llama-cookbook/issues/27",
    reported="2023-07-21",
    since="2026-11-30",
    case="qwen3-tied-fp32",
)
class ScheduleByMicroBatch(MindSporeSubject):
    """The schedule advances by the number of micro-batches in each step."""

    class trainer(Qwen3Trainer):
        def learning_rate(self, step: int) -> float:
            return super().learning_rate((step - 1) * self.gradient_accumulation_steps + 1)
