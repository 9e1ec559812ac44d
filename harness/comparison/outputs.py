"""What a run left of its logits and tokens, by number, and the numbers of two predictions; they judge nothing.

Logits are arrays [S, V], of the positions of a row, or [V], after a prompt; or what was left in place of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.distance import tensor_difference
from harness.comparison.measurement import Tensors
from harness.runs import predictions
from harness.runs.predictions import SketchedLogits, sketched_logits

Array = npt.NDArray[Any]
Logits = Array | SketchedLogits


def numbered(tensors: Tensors, kind: str) -> dict[int, Array]:
    """The tensors `KIND.N` by N."""
    return {n: tensors[f"{kind}.{n}"] for n in _numbers(tensors, kind) if f"{kind}.{n}" in tensors}


def logits_of(tensors: Tensors, kind: str) -> dict[int, Logits]:
    """The logits `KIND.N` by N, or what was left in place of them."""
    found = {n: tensors.get(f"{kind}.{n}", sketched_logits(tensors, f"{kind}.{n}")) for n in _numbers(tensors, kind)}
    return {n: one for n, one in found.items() if one is not None}


def at_position(logits: Logits, position: int) -> Logits:
    """Those of one position of a row."""
    return logits.at(position) if isinstance(logits, SketchedLogits) else logits[position]


def _numbers(tensors: Tensors, kind: str) -> set[int]:
    """Each N of which something is left."""
    numbers = (rest.partition("#")[0] for first, _, rest in (name.partition(".") for name in tensors) if first == kind)
    return {int(number) for number in numbers if number.isdecimal()}


def first_difference(a: Array, b: Array) -> int | None:
    """The first place at which two rows of tokens differ, also if one ends there; None if they are equal."""
    common = min(len(a), len(b))
    differing = np.flatnonzero(a[:common] != b[:common])
    if differing.size:
        return int(differing[0])
    return None if len(a) == len(b) else common


@dataclass(frozen=True)
class Way:
    """A number of two predictions, from their logits and from what was left in place of them."""

    of_logits: Callable[[Array, Array], float]
    of_sketches: Callable[[SketchedLogits, SketchedLogits], float]


def both(way: Way, a: Logits | None, b: Logits | None) -> float:
    """NaN if one side has no logits, or others were left."""
    if a is None or b is None or not len(a):
        return math.nan
    if isinstance(a, SketchedLogits) and isinstance(b, SketchedLogits):
        return way.of_sketches(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape:
        return way.of_logits(a, b)
    return math.nan


def divergence(exact_SV: Array, found_SV: Array) -> float:
    """The largest Kullback-Leibler divergence of a prediction from the exact one, over positions, in nats and float64.
    A value that is not finite gives NaN."""
    exact, found = (_log_softmax(logits) for logits in (exact_SV, found_SV))
    return float(np.max((np.exp(exact) * (exact - found)).sum(-1)))


def _log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result


def largest_regret(exact_SV: Array, found_SV: Array) -> float:
    """The exact logit of the best token minus that of the token found best, at the worst position."""
    if not np.isfinite(found_SV).all():
        return math.nan
    chosen = np.take_along_axis(exact_SV, found_SV.argmax(-1)[:, None], -1)[:, 0]
    return float(np.max(exact_SV.max(-1) - chosen))


def _agreement(a_SV: Array, b_SV: Array) -> float:
    return float(np.mean(a_SV.argmax(-1) == b_SV.argmax(-1)))


ERROR = Way(lambda a, b: tensor_difference(a, b)[0], predictions.relative_error)
DIVERGENCE = Way(divergence, predictions.divergence)
REGRET = Way(largest_regret, predictions.regret)
AGREEMENT = Way(_agreement, predictions.agreement)
