"""Distances between numbers, and the shape of a curve: pure functions, in float64.

A value that is not finite gives NaN, and NaN is never dropped.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SPIKE_WINDOW = 20
# Half a unit in the last place of float32: no float32 result can be required to be closer to the exact one.
HALF_ULP = 2.0**-24


def absolute(reference: float, subject: float) -> float:
    """|subject - reference| in float64. NaN or infinity on either side gives NaN."""
    if not (math.isfinite(reference) and math.isfinite(subject)):
        return math.nan
    return abs(subject - reference)


def signed(reference: float, subject: float) -> float:
    """(subject - reference) / |reference| in float64, 0 if both are 0, infinite if only the reference is.

    NaN or infinity on either side gives NaN.
    """
    if not (math.isfinite(reference) and math.isfinite(subject)):
        return math.nan
    if reference == subject:
        return 0.0
    return (subject - reference) / abs(reference) if reference else math.copysign(math.inf, subject)


def relative(reference: float, subject: float) -> float:
    """|subject - reference| / |reference|; otherwise as `signed`."""
    return abs(signed(reference, subject))


def bits_differ(reference: float, subject: float) -> float:
    """0 if both floats have the same bits, else 1. Not-a-number is never the same as anything."""
    if math.isnan(reference) or math.isnan(subject):
        return 1.0
    return float(struct.pack("<d", reference) != struct.pack("<d", subject))


MEASURES: Mapping[str, Callable[[float, float], float]] = {
    "absolute": absolute, "relative": relative, "signed": signed, "differs": bits_differ,
}  # fmt: skip


def tensor_difference(reference: npt.NDArray[Any], subject: npt.NDArray[Any]) -> tuple[float, float]:
    """The difference of two tensors, in float64: (relative, maximum).

    relative: ||subject - reference|| / ||reference||; maximum: the largest element of |subject - reference| over the
    root mean square of the reference. Another shape or a non-finite element gives NaN; two zero tensors give 0.
    """
    if reference.shape != subject.shape:
        return math.nan, math.nan
    a, b = reference.astype(np.float64), subject.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.nan, math.nan
    difference, norm = b - a, float(np.linalg.norm(a))
    if not difference.any():
        return 0.0, 0.0
    if norm == 0.0:
        return math.inf, math.inf
    rms = norm / math.sqrt(a.size)
    return float(np.linalg.norm(difference)) / norm, float(np.abs(difference).max()) / rms


def root_mean_square(values: Sequence[float]) -> float:
    """The root of the mean of the squares of one or more values. NaN or infinity anywhere gives NaN or infinity."""
    return math.hypot(*values) / math.sqrt(len(values))


def fall(losses: Sequence[float]) -> float:
    """The fall of a loss: 1 - mean of its last tenth / mean of its first tenth. NaN if any step is not finite, or
    if the first tenth has the mean 0: nothing can be learned from there."""
    if not losses or not all(map(math.isfinite, losses)):
        return math.nan
    tenth = max(1, len(losses) // 10)
    first, last = (float(np.mean(part)) for part in (losses[:tenth], losses[-tenth:]))
    return 1.0 - last / first if first else math.nan


def trend(losses: Sequence[float]) -> float:
    """Kendall's tau-b between loss and step: -1 if every later step is lower, 0 for a flat curve, 1 for rising.

    NaN if any step is not finite; 0 if all are equal.

    Source: M. G. Kendall, Biometrika 33 (1945), the coefficient for rankings with ties. Written here to the bits of
    `scipy.stats.kendalltau`, because importing scipy.stats takes longer than everything else that judging does.
    """
    if len(losses) < 2 or not all(map(math.isfinite, losses)):
        return math.nan
    if min(losses) == max(losses):
        return 0.0
    values = np.array(losses, np.float64)
    equal = np.unique(values, return_counts=True)[1]
    pairs, tied = len(losses) * (len(losses) - 1) // 2, int((equal * (equal - 1) // 2).sum())
    tau = (pairs - tied - 2 * _falling_pairs(values)) / math.sqrt(pairs) / math.sqrt(pairs - tied)
    return min(1.0, max(-1.0, tau))


def _falling_pairs(values: npt.NDArray[np.float64]) -> int:
    """The number of pairs of places with the lower value at the later place."""
    if len(values) < 2:
        return 0
    earlier, later = values[: len(values) // 2], values[len(values) // 2 :]
    not_lower = int(np.searchsorted(np.sort(earlier), later, side="right").sum())
    return len(earlier) * len(later) - not_lower + _falling_pairs(earlier) + _falling_pairs(later)


def spike(losses: Sequence[float]) -> float:
    """The largest rise of a step above the median of up to 20 steps before it, relative to that median.

    NaN if any step is not finite; 0 if no step rises above.
    """
    if not losses or not all(map(math.isfinite, losses)):
        return math.nan
    highest = 0.0
    for step in range(1, len(losses)):
        before = _median(losses[max(0, step - SPIKE_WINDOW) : step])
        highest = max(highest, relative(before, losses[step]) if losses[step] > before else 0.0)
    return highest


def _median(values: Sequence[float]) -> float:
    """To the bits of `numpy.median`, which takes ten times as long for so few."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def error_ratio(reference: float, subject: float) -> float:
    """The subject's error divided by the reference's, both against the exact value.

    A reference that hits the exact value by chance would make any subject look bad, so its error counts as at least
    half a unit in the last place of float32. NaN if either is NaN.
    """
    return subject / max(reference, HALF_ULP) if math.isfinite(reference) else math.nan
