"""The record of a tapped run: whether tapping changed any bit, and its cost.

A tapped run stores the tensors of a probe (`gradient.NAME`, `updated.NAME`), and `forward.PLACE` and `backward.PLACE`
for each place: the tensors themselves, or for a case that keeps none their sketches.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.records import parse, read_json

TAPS = "taps.json"
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class TapRecord:
    """`missing`: why no place was recorded. `differing`: the parameters whose gradients in the tapped and in the plain
    step differ in a bit. The seconds are the shortest of a few calls for one step's gradients, without compilation; a
    case that keeps no tensors is not timed. `loss_of_logits`: the exact loss of the logits that the step had."""

    missing: str | None
    differing: tuple[str, ...] = ()
    plain_seconds: float | None = None
    tapped_seconds: float | None = None
    loss_of_logits: float | None = None

    @property
    def cost(self) -> float | None:
        """The tapped step as a multiple of the plain one."""
        if not self.plain_seconds or self.tapped_seconds is None:
            return None
        return self.tapped_seconds / self.plain_seconds


def read_taps(directory: Path) -> TapRecord:
    """The record in a run's directory.

    Raises:
        EvidenceError: it is missing or was edited.
    """
    taps: TapRecord = parse(TapRecord, read_json(directory / TAPS), directory / TAPS)
    return taps


def exact_loss(logits: Array, targets: Array, mask: Array, count: float) -> float:
    """-sum over counted targets of log softmax(logits)[target], over `count`, in float64.

    Args:
        logits: [B, S, V], or [S, V].
        targets: [B, S], or [S].
        mask: 1 where a target counts.
        count: what the sum is divided by.
    """
    if logits.ndim == 3:  # a row at a time: the logits of a large vocabulary are the largest tensors of a step
        return sum(exact_loss(*row, count) for row in zip(logits, targets, mask, strict=True))
    wide = logits.astype(np.float64)
    largest = wide.max(-1, keepdims=True)
    log_sum = np.log(np.exp(wide - largest).sum(-1)) + largest[..., 0]
    picked = np.take_along_axis(wide, targets[..., None].astype(np.int64), -1)[..., 0]
    return float(((log_sum - picked) * mask).sum()) / count
