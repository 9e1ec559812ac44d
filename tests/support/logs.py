"""Log lines as the programs write them, from numbers: their layout is theirs, the numbers are ours."""

from collections.abc import Sequence

RATE = 0.001
PREFIX = "2026-11-25 02:10:33,912 - mindformers[mindformers/core/callback/callback.py:748] - INFO - "


def losses(steps: int, first: int = 1) -> list[float]:
    """A loss that falls, by step."""
    return [6.0 - 0.01 * step for step in range(first, first + steps)]


def mindformers(
    step: int, loss: float | str, of: int = 20, epoch: int = 1, epochs: int = 1, norm: str = "1.31049"
) -> str:
    """A line of mindformers 1.x."""
    printed = loss if isinstance(loss, str) else f"{loss:5.6f}"
    return (
        f"{PREFIX}{{ Epoch:[{epoch:3d}/{epochs:3d}], step:[{step:5d}/{of:5d}], loss: {printed}, per_step_time: 103ms, "
        f"lr: {RATE}, overflow cond: False, loss_scale: 1.0, global_norm: [{norm}], train_throughput_per_npu: 3.1T"
    )


def mindformers_2(step: int, loss: float | None, of: int = 20) -> str:
    """A line of mindformers 2.x."""
    printed = "N/A (non-last PP stage, see the last rank)" if loss is None else f"{loss:10.6f}"
    return (
        f"{PREFIX}{{ step:[{step:5d}/{of:5d}], loss: {printed}, per_step_time:  13570ms, throughput: 1.0, "
        f"lr: {RATE:e}, grad_norm:  13.831877, loss_scale: 1.0 }}"
    )


def megatron(iteration: int, loss: float, of: int = 100, norm: str = "0.231", skipped: int = 0) -> str:
    """An iteration line of Megatron-LM."""
    return (
        f" [2026-11-25 02:10:33] iteration {iteration:8d}/{of:8d} | consumed samples: {iteration * 4:12d} | "
        f"elapsed time per iteration (ms): 865.2 | learning rate: {RATE:.6E} | global batch size: {4:5d} | "
        f"lm loss: {loss:.6E} | loss scale: 1.0 | grad norm: {norm} | number of skipped iterations: {skipped:3d} | "
        "number of nan iterations:   0 |"
    )


def lines(*parts: str | Sequence[str]) -> str:
    """A file of lines, other output among them."""
    flat = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    return "\n".join(["[INFO] build dataset", *flat, f"{PREFIX}  5.0% |██    | 1.2 samples/s/p  0:02:10 }}", ""])
