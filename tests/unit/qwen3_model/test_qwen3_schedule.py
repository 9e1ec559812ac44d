"""Schedules: values written out, and checked arguments."""

import pytest

from qwen3_model.schedule import ConstantSchedule, ConstantWithWarmup, CosineWithMinLr


def test_constant_is_constant() -> None:
    assert [ConstantSchedule(peak=1e-4).learning_rate(step) for step in (1, 2, 1000)] == [1e-4] * 3


def test_first_step_with_warmup_has_rate_zero() -> None:
    assert ConstantWithWarmup(peak=1e-4, warmup_steps=4).learning_rate(1) == 0.0
    assert CosineWithMinLr(peak=1e-4, warmup_steps=4, total_steps=10, min_lr=0.0).learning_rate(1) == 0.0


def test_warmup_rises_linearly_to_the_peak() -> None:
    schedule = ConstantWithWarmup(peak=8.0, warmup_steps=4)
    assert [schedule.learning_rate(step) for step in range(1, 8)] == [0.0, 2.0, 4.0, 6.0, 8.0, 8.0, 8.0]


def test_no_warmup_starts_at_the_peak() -> None:
    assert ConstantWithWarmup(peak=3.0, warmup_steps=0).learning_rate(1) == 3.0


def test_cosine_falls_from_the_peak_to_the_minimum() -> None:
    schedule = CosineWithMinLr(peak=1.0, warmup_steps=2, total_steps=10, min_lr=0.1)
    assert schedule.learning_rate(3) == 1.0
    assert schedule.learning_rate(7) == pytest.approx(0.55, rel=1e-15)
    assert schedule.learning_rate(11) == pytest.approx(0.1, rel=1e-15)


def test_all_invalid_numbers_are_one_error() -> None:
    with pytest.raises(ValueError, match="peak") as error:
        CosineWithMinLr(peak=-1.0, warmup_steps=-2, total_steps=10, min_lr=float("nan"))
    assert {"peak", "warmup_steps", "min_lr"} <= {line.split(":")[0] for line in str(error.value).splitlines()[1:]}


def test_minimum_above_the_peak_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"min_lr: 2\.0 is above the peak 1\.0"):
        CosineWithMinLr(peak=1.0, warmup_steps=0, total_steps=10, min_lr=2.0)
