"""Learning-rate schedules as pure functions of the step, in plain Python floats.

Steps count from 1. With warm-up the first step's rate is 0, as in transformers and mindformers: the rate depends on
the number of updates already done.
"""

import math
from dataclasses import asdict, dataclass
from typing import Protocol


class ScheduleConfig(Protocol):
    """Anything that gives a step its learning rate."""

    def learning_rate(self, step: int) -> float:
        """The rate that update number `step` (from 1) uses."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule:
    """One rate for all steps."""

    peak: float

    def __post_init__(self) -> None:
        _check(self)

    def learning_rate(self, step: int) -> float:
        """The peak, at every step."""
        return self.peak


@dataclass(frozen=True, kw_only=True)
class ConstantWithWarmup:
    """A linear rise from 0 over `warmup_steps`, then the peak.

    Source: transformers 4.57.1, `get_constant_schedule_with_warmup`.
    """

    peak: float
    warmup_steps: int

    def __post_init__(self) -> None:
        _check(self)

    def learning_rate(self, step: int) -> float:
        """peak * min(1, (step - 1) / warmup_steps)."""
        return self.peak * _warmup(step - 1, self.warmup_steps)


@dataclass(frozen=True, kw_only=True)
class CosineWithMinLr:
    """A linear rise from 0, then half a cosine from the peak down to `min_lr` at `total_steps`.

    Source: transformers 4.57.1, `get_cosine_with_min_lr_schedule_with_warmup`.
    """

    peak: float
    warmup_steps: int
    total_steps: int
    min_lr: float

    def __post_init__(self) -> None:
        _check(self)

    def learning_rate(self, step: int) -> float:
        """The rate of the given step; after `total_steps` the cosine continues, as in transformers."""
        done = step - 1
        if done < self.warmup_steps:
            return self.peak * _warmup(done, self.warmup_steps)
        progress = (done - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        floor = self.min_lr / self.peak
        return self.peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)) * (1 - floor) + floor)


def _warmup(done: int, warmup_steps: int) -> float:
    return done / warmup_steps if done < warmup_steps else 1.0


def _check(schedule: ConstantSchedule | ConstantWithWarmup | CosineWithMinLr) -> None:
    """Raises ValueError that lists every negative or non-finite number and a cosine that cannot be computed."""
    values = asdict(schedule)
    problems = [
        f"{name}: must be finite and not negative, got {value!r}"
        for name, value in values.items()
        if not 0 <= value < math.inf
    ]
    if isinstance(schedule, CosineWithMinLr):
        if schedule.peak == 0:
            problems.append("peak: a cosine schedule needs a peak above 0")
        if schedule.min_lr > schedule.peak:
            problems.append(f"min_lr: {schedule.min_lr!r} is above the peak {schedule.peak!r}")
    if problems:
        raise ValueError("\n".join([f"{type(schedule).__name__}:", *problems]))
