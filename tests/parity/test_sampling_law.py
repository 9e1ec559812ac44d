"""Which tokens can be drawn and how likely each is: as transformers warps logits before it draws, apart from ties."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from qwen3_model.sampling import Sampling
from tests.support.properties import examples

# Of each dtype that transformers may warp in: how near a rank or a sum may come to a limit before rounding decides,
# and how far apart chances may be.
NEAR = {torch.float64: 1e-11, torch.float32: 1e-4}
APART = {torch.float64: 1e-12, torch.float32: 1e-5}

LOGITS = st.one_of(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    # as a model has them: many, of which few matter
    st.builds(
        lambda seed, count, spread: (spread * np.random.default_rng(seed).standard_normal(count)).astype(np.float32),
        st.integers(0, 2**32 - 1),
        st.integers(1, 2000),
        st.floats(0.1, 8),
    ),
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0.2, 4),
    top_k=st.one_of(st.just(0), st.integers(1, 60)),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
)


def warped(logits: np.ndarray, sampling: Sampling, dtype: torch.dtype) -> np.ndarray:
    """The chances of all tokens, by the warpers in the order in which `generate` applies them."""
    scores = torch.tensor(logits, dtype=dtype)[None]
    warpers = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    for warper in warpers:
        scores = warper(None, scores)
    return torch.softmax(scores, -1)[0].double().numpy()


def rounding_decides(logits: np.ndarray, sampling: Sampling, near: float) -> bool:
    """Whether two scores at the last rank are equal, or what the best make up is at `top_p`."""
    scores = np.sort(logits.astype(np.float64) / sampling.temperature)[::-1]
    tied = 0 < sampling.top_k < len(scores) and scores[sampling.top_k - 1] - scores[sampling.top_k] < near
    chances = np.exp(scores[: sampling.top_k or None] - scores[0])
    sums = np.cumsum(chances) / chances.sum()
    last = min(int(np.searchsorted(sums, sampling.top_p)), len(sums) - 1)
    of_equals = last + 1 < len(chances) and scores[last] - scores[last + 1] < near
    return tied or (sampling.top_p < 1 and bool(of_equals or np.abs(sums - sampling.top_p).min() < near))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@settings(max_examples=examples(300), deadline=None)
@given(logits=LOGITS, sampling=SAMPLINGS)
def test_what_can_be_drawn_and_how_likely_is_as_in_transformers(
    dtype: torch.dtype, logits: list[float], sampling: Sampling
) -> None:
    given_logits = np.array(logits, np.float32)
    assume(not rounding_decides(given_logits, sampling, NEAR[dtype]))
    expected = warped(given_logits, sampling, dtype)
    tokens, chances = sampling.kept(given_logits)
    found = np.zeros(len(given_logits))
    found[tokens] = chances
    assert np.abs(found - expected).max() < APART[dtype]
    assert set(np.flatnonzero(expected)) <= set(tokens.tolist()), "none that they keep is missing"
    assert found[expected == 0].max(initial=0.0) < np.finfo(np.float32).tiny, "none that they drop can be drawn"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6, top_k=20, top_p=0.95),
        Sampling(top_k=3),
        Sampling(temperature=2.0, top_p=0.7),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_they_are_likely(sampling: Sampling) -> None:
    logits = np.random.default_rng(1).standard_normal(40).astype(np.float32) * 2
    expected = warped(logits, sampling, torch.float64)
    draws = 20_000
    generator = np.random.default_rng(2)
    counts = np.bincount([sampling.draw(logits, generator) for _ in range(draws)], minlength=len(logits))
    deviations = np.sqrt(draws * expected * (1 - expected))
    assert np.all(np.abs(counts - draws * expected) <= 4.5 * deviations + 1e-9)
    assert np.all(counts[expected == 0] == 0)


def test_of_equal_scores_the_lower_tokens_are_kept() -> None:
    tokens, chances = Sampling(top_k=2).kept(np.array([0.0, 1.0, 1.0, 1.0], np.float32))
    assert tokens.tolist() == [1, 2] and chances.tolist() == [0.5, 0.5]
