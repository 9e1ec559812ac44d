"""The difference of two scores over the same documents, and its upper bound: paired statistics, in float64.

A small evaluation cannot show that two models have equal scores, so each difference comes with an upper bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES, SEED = 10_000, 20250101


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A measured difference, and the upper bound of its absolute value at 95 % confidence."""

    value: float
    bound: float


def discordance_bound(reference: Sequence[float], subject: Sequence[float]) -> Interval:
    """For scores 0 and 1: the absolute difference of the means, and the exact upper limit of the share of documents
    that only one side has right. No difference of the two scores exceeds that share.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934), for the discordant pairs of McNemar's test.
    """
    pairs = np.array([reference, subject])
    discordant, count = int((pairs[0] != pairs[1]).sum()), pairs.shape[1]
    value = abs(float(pairs[1].mean() - pairs[0].mean()))
    if discordant == count:
        return Interval(value=value, bound=1.0)
    from scipy.special import (
        betaincinv,
    )  # here, because importing it takes a third of the time that `certify verify` may take

    return Interval(value=value, bound=float(betaincinv(discordant + 1, count - discordant, CONFIDENCE)))


def perplexity_difference(reference: Sequence[float], subject: Sequence[float], words: Sequence[int]) -> Interval:
    """For log-likelihoods of texts: |perplexity per word / the reference's - 1|, where perplexity is
    exp(-sum of log-likelihoods / sum of words); and its upper limit by the percentiles of a paired bootstrap over the
    texts. With fewer than ten texts the limit is infinite.

    Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    gained, lengths = np.subtract(subject, reference), np.array(words, np.float64)
    try:
        value = abs(math.expm1(-float(gained.sum() / lengths.sum())))
    except OverflowError:
        value = math.inf
    if len(words) < 10:
        return Interval(value=value, bound=math.inf)
    random = np.random.RandomState(SEED)
    taken = random.multinomial(len(words), np.full(len(words), 1 / len(words)), RESAMPLES)
    drawn = np.expm1(-(taken @ gained) / (taken @ lengths))
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value=value, bound=max(abs(float(low)), abs(float(high)), value))
