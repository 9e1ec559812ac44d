"""Schedules against transformers' own, step by step and bit by bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from qwen3_model.schedule import ConstantSchedule, ConstantWithWarmup, CosineWithMinLr, ScheduleConfig

PEAK = 3e-4


def rates(make: Callable[..., Any], count: int, **arguments: object) -> list[float]:
    """The rates that torch's optimizer holds at each of `count` steps."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer, **arguments)
    held = []
    for _ in range(count):
        held.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return held


def ours(schedule: ScheduleConfig, count: int) -> list[float]:
    return [schedule.learning_rate(step) for step in range(1, count + 1)]


def test_constant() -> None:
    assert ours(ConstantSchedule(peak=PEAK), 5) == rates(transformers.get_constant_schedule, 5)


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_constant_with_warmup(warmup: int) -> None:
    expected = rates(transformers.get_constant_schedule_with_warmup, 20, num_warmup_steps=warmup)
    assert ours(ConstantWithWarmup(peak=PEAK, warmup_steps=warmup), 20) == expected


@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
@pytest.mark.parametrize("minimum", [0.0, 3e-5, PEAK])
def test_cosine_with_minimum(warmup: int, minimum: float) -> None:
    expected = rates(
        transformers.get_cosine_with_min_lr_schedule_with_warmup,
        60,
        num_warmup_steps=warmup,
        num_training_steps=50,
        min_lr=minimum,
    )
    schedule = CosineWithMinLr(peak=PEAK, warmup_steps=warmup, total_steps=50, min_lr=minimum)
    assert ours(schedule, 60) == expected
