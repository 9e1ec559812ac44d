"""A line for each step in the log of a rank, in mindformers' own form, so that `tail -f worker_15.log` shows what its
users know. The trace is the evidence; these lines have fewer digits.

Source: mindformers 1.9.0, `MFLossMonitor.print_output_info`.
"""

import datetime

from harness.runs.trace import Step
from qwen3_model.parallel_config import ParallelConfig


def prints_steps(layout: ParallelConfig, rank: int | None) -> bool:
    """Whether a process prints its steps: of several ranks those of the last stage, which have the loss."""
    return rank is not None and layout.coordinates(rank).stage == layout.pipeline_stage - 1


def step_line(step: Step, steps: int, seconds: float, now: datetime.datetime) -> str:
    """The line of a step."""
    fields = (
        f"Epoch:[{1:3d}/{1:3d}]",
        f"step:[{step.step:5d}/{steps:5d}]",
        f"loss: {step.loss:.6f}",
        f"per_step_time: {round(seconds * 1000)}ms",
        f"lr: {step.learning_rate!r}",
        "overflow cond: False",
        "loss_scale: 1.0",
        f"global_norm: [{step.grad_norm:.7g}]",
    )
    return f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d} - INFO - {{ {', '.join(fields)} }}"
