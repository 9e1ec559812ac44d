"""The tokens of a continuation: sampled or greedy, one by one, until a stop token. Needs NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = Sequence[int]
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is sampled: logits over `temperature`; of the `top_k` best (0: all) those that make up `top_p`."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not 0 < self.top_p <= 1 or self.top_k < 0 or self.seed < 0:
            raise ValueError(f"temperature must be above 0, top_p in (0, 1], top_k and seed not negative, got {self}")

    def kept(self, logits_V: Array) -> tuple[Array, Array]:
        """The tokens that can be drawn, the best first, and their probabilities in float64, which add up to 1.

        Equal scores are ordered by token id, so a seed gives the same tokens everywhere.

        Raises:
            ValueError: a logit is not a number, or the largest one is infinite.
        """
        scores = logits_V.astype(np.float64) / self.temperature
        if not np.isfinite(scores.max()):
            raise ValueError("no token can be drawn: the largest logit is not finite")
        tokens = self._best(scores)
        chances = np.exp(scores[tokens] - scores[tokens[0]])
        chances /= chances.sum()
        if self.top_p < 1:
            # the smallest set of best tokens that reaches top_p, including the one that crosses it
            count = int(np.searchsorted(np.cumsum(chances), self.top_p)) + 1
            tokens, chances = tokens[:count], chances[:count] / chances[:count].sum()
        return tokens, chances

    def draw(self, logits_V: Array, generator: np.random.Generator) -> int:
        """One token; see `kept` for the order and the errors."""
        tokens, chances = self.kept(logits_V)
        place = int(np.searchsorted(np.cumsum(chances), generator.random(), side="right"))
        return int(tokens[min(place, len(tokens) - 1)])

    def _best(self, scores: Array) -> Array:
        """The `top_k` best tokens in order, or all."""
        if not 0 < self.top_k < len(scores):
            return np.argsort(-scores, kind="stable")
        # sort the candidates only, not the whole vocabulary
        candidates = np.flatnonzero(scores >= np.partition(scores, -self.top_k)[-self.top_k])
        return candidates[np.argsort(-scores[candidates], kind="stable")[: self.top_k]]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A continuation.

    `margins` holds each token's `margin`. `stopped`: whether a stop token ended it; that token is not in `tokens`.
    """

    tokens: tuple[int, ...]
    margins: tuple[float, ...]
    stopped: bool


class Growing:
    """A continuation that gets its tokens one by one."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.margins: list[float] = []
        self.stopped = False

    def take(self, token: int, logits_V: Array, stop_tokens: Tokens) -> None:
        self.stopped = self.stopped or token in stop_tokens
        if not self.stopped:
            self.tokens.append(token)
            self.margins.append(margin(logits_V, token))

    def done(self) -> Generated:
        return Generated(tokens=tuple(self.tokens), margins=tuple(self.margins), stopped=self.stopped)


def margin(logits_V: Array, token: int) -> float:
    """A token's logit minus the best other logit; negative where another is better. NaN gives NaN."""
    below, above = logits_V[:token].max(initial=-np.inf), logits_V[token + 1 :].max(initial=-np.inf)
    return float(logits_V[token]) - float(np.maximum(below, above))
