"""What a run leaves of its logits in place of them, of a size that does not grow with the vocabulary.

For each position: a sketch of the logits, for their error; a sketch of the square roots of the probabilities that
follow from them, for the divergence; and the likeliest tokens with their logits, for what is chosen.

Of two predictions p and q that are close, sum(p * log(p / q)) is 2 * sum((sqrt(p) - sqrt(q))^2), up to terms of third
order in their difference: the divergence of Kullback and Leibler from a distance, which sketches estimate.

Source: S. Amari, "Information Geometry and Its Applications", Springer 2016, section 3.5, for the second order.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.runs.sketches import SKETCH, sketch

LIKELIEST = 64  # tokens of which the logits are left
CHANCES, TOKENS, LOGITS = "#chances", "#tokens", "#logits"  # what follows the name of a tensor in a file
LABEL = "logits"  # whose signs all have: what two ways of computing the same logits leave is compared too
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SketchedLogits:
    """What is left of the logits of S positions: the buckets of both sketches [S, buckets], the sums of the squares of
    the logits [S], and the likeliest tokens, the likeliest first, with their logits [S, tokens]."""

    buckets: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    chances: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int32]
    logits: Array

    def __len__(self) -> int:
        return len(self.squares)

    def at(self, position: int) -> "SketchedLogits":
        """Those of one position."""
        one = slice(position, position + 1)
        return SketchedLogits(**{name: part[one] for name, part in vars(self).items()})


def recorded(name: str, logits: Array) -> dict[str, Array]:
    """What a run leaves of logits [S, V] or [V], as the tensors of a file: `sketched_logits` reads them.

    `NAME#sketch` is float64 [S, 1 + buckets]: the sum of the squares, then the buckets; `NAME#chances` float64
    [S, buckets]; `NAME#tokens` int32 and `NAME#logits`, in the dtype of the logits, are [S, tokens]. Of logits that are
    not finite, the sketch is not finite.
    """
    rows = np.atleast_2d(logits)
    found = [sketch(LABEL, row) for row in rows]
    chances = [sketch(f"{LABEL}{CHANCES}", np.sqrt(softmax(row))).buckets for row in rows]
    # stable: of equal logits the first, as argmax has it
    likeliest = np.argsort(-rows, axis=-1, kind="stable")[:, :LIKELIEST]
    return {
        f"{name}{SKETCH}": np.stack([np.concatenate(([one.squares], one.buckets)) for one in found]),
        f"{name}{CHANCES}": np.stack(chances),
        f"{name}{TOKENS}": likeliest.astype(np.int32),
        f"{name}{LOGITS}": np.take_along_axis(rows, likeliest, -1),
    }


def sketched_logits(left: Mapping[str, Array], name: str) -> SketchedLogits | None:
    """Those of a name from what a run left; None if it left none, or not all of it for as many positions."""
    names = [f"{name}{part}" for part in (SKETCH, CHANCES, TOKENS, LOGITS)]
    parts = [left[one] for one in names if one in left and left[one].ndim == 2 and left[one].shape[1]]
    if len(parts) != len(names) or len({len(part) for part in parts}) != 1:
        return None
    both, chances, tokens, logits = parts
    return SketchedLogits(buckets=both[:, 1:], squares=both[:, 0], chances=chances, tokens=tokens, logits=logits)


def softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    result: npt.NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return result


def relative_error(exact: SketchedLogits, found: SketchedLogits) -> float:
    """The norm of the difference over all positions, divided by that of the exact logits; NaN if they do not fit."""
    if exact.buckets.shape != found.buckets.shape:
        return math.nan
    norm = math.sqrt(math.fsum(exact.squares))
    between = float(np.linalg.norm(exact.buckets - found.buckets))
    if norm == 0.0:
        return 0.0 if between == 0.0 else math.inf
    return between / norm


def divergence(exact: SketchedLogits, found: SketchedLogits) -> float:
    """The largest divergence of a prediction from the exact one, over positions, in nats; NaN if they do not fit."""
    if exact.chances.shape != found.chances.shape:
        return math.nan
    return float(np.max(2 * np.square(exact.chances - found.chances).sum(-1)))


def regret(exact: SketchedLogits, found: SketchedLogits) -> float:
    """The exact logit of the likeliest token minus that of the token found likeliest, at the worst position; NaN if
    they do not fit. See `logit_of`."""
    if len(exact) != len(found) or not np.isfinite(found.squares).all():
        return math.nan
    return max(float(exact.logits[at, 0]) - logit_of(exact, at, int(found.tokens[at, 0])) for at in range(len(exact)))


def agreement(one: SketchedLogits, other: SketchedLogits) -> float:
    """The fraction of the positions at which both have the same likeliest token; NaN if they do not fit."""
    return float(np.mean(one.tokens[:, 0] == other.tokens[:, 0])) if len(one) == len(other) else math.nan


def logit_of(exact: SketchedLogits, position: int, token: int) -> float:
    """The logit of a token; of one that is not among the likeliest, the smallest that is left: it is at most that."""
    at = np.flatnonzero(exact.tokens[position] == token)
    return float(exact.logits[position, at[0] if at.size else -1])
