"""The laws of inference: a cache changes nothing, nor do padding, neighbours or buckets; a seed draws the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_model.modeling_qwen3_infer import Generated, Qwen3ForInference, Sampling, bucket
from tests.model.qwen3_cases import BF16, random_weights, shaped

CONFIG = shaped("tiny", max_position_embeddings=256)
TIED = shaped("tiny-tied", max_position_embeddings=64)
ERROR = 2e-5  # of logits of some units, two layers, float32


def prompt(length: int, seed: int = 1) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, CONFIG.vocab_size, length)]


@pytest.fixture(scope="module")
def model() -> Qwen3ForInference:
    found = Qwen3ForInference(CONFIG)
    found.load_weights(random_weights(CONFIG))
    return found


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_token_after_token_the_cache_gives_the_logits_of_the_whole(model: Qwen3ForInference, length: int) -> None:
    tokens = prompt(length + 6)
    (whole,) = model.logits([tokens])
    after, cache = model.prefill([tokens[:length]], room=6)
    assert error(after[0], whole[length - 1]) < ERROR
    for step in range(6):
        after, cache = model.decode(np.array([tokens[length + step]]), cache)
        assert error(after[0], whole[length + step]) < ERROR


def test_rows_of_a_batch_do_not_see_each_other_or_their_padding(model: Qwen3ForInference) -> None:
    prompts = [prompt(3, 1), prompt(17, 2), prompt(9, 3)]
    together, cache = model.prefill(prompts, room=4)
    for row, one in enumerate(prompts):
        alone, _ = model.prefill([one], room=4)
        assert error(together[row], alone[0]) < ERROR
    after, _ = model.decode(np.array([5, 6, 7]), cache)
    for row, token in enumerate((5, 6, 7)):
        (whole,) = model.logits([[*prompts[row], token]])
        assert error(after[row], whole[-1]) < ERROR


def test_a_batch_is_continued_as_each_of_its_rows_is(model: Qwen3ForInference) -> None:
    prompts = [prompt(length, length) for length in (2, 11, 30)]
    together = model.generate(prompts, 24)
    for row, one in enumerate(prompts):
        (alone,) = model.generate([one], 24)
        assert together[row].tokens == alone.tokens and len(alone.tokens) == 24


def test_a_tied_head_is_continued_by_the_embedding() -> None:
    found = Qwen3ForInference(TIED)
    found.load_weights(random_weights(TIED))
    tokens = [token % TIED.vocab_size for token in prompt(12)]
    (whole,) = found.logits([tokens])
    after, _ = found.prefill([tokens], room=1)
    assert error(after[0], whole[-1]) < ERROR


def test_bfloat16_is_continued_too() -> None:
    found = Qwen3ForInference(CONFIG, BF16)
    found.load_weights(random_weights(CONFIG))
    tokens = prompt(20)
    (whole,) = found.logits([tokens])
    after, cache = found.prefill([tokens[:16]], room=4)
    for step in range(4):
        after, cache = found.decode(np.array([tokens[16 + step]]), cache)
    assert error(after[0], whole[-1]) < 0.03


def test_a_stop_token_ends_its_row_and_no_other(model: Qwen3ForInference) -> None:
    prompts = [prompt(8, 1), prompt(8, 2)]
    free = model.generate(prompts, 16)
    stop = free[0].tokens[5]
    assert stop not in free[1].tokens, "choose another seed"
    first = free[0].tokens.index(stop)
    ended, other = model.generate(prompts, 16, stop_tokens=[stop])
    assert ended == Generated(tokens=free[0].tokens[:first], margins=free[0].margins[:first], stopped=True)
    assert other == free[1] and not other.stopped


def test_margins_are_those_of_the_best_over_the_next(model: Qwen3ForInference) -> None:
    (found,) = model.generate([prompt(8)], 8)
    (whole,) = model.logits([[*prompt(8), *found.tokens]])
    for step, (token, margin) in enumerate(zip(found.tokens, found.margins, strict=True)):
        ordered = np.sort(whole[7 + step])
        assert token == int(np.argmax(whole[7 + step])) and margin == pytest.approx(ordered[-1] - ordered[-2], abs=1e-3)


def test_a_seed_draws_the_same_tokens_and_another_seed_others(model: Qwen3ForInference) -> None:
    def drawn(seed: int) -> list[Generated]:
        return model.generate([prompt(8), prompt(12)], 12, sampling=Sampling(temperature=1.5, seed=seed))

    assert drawn(3) == drawn(3) != drawn(4)
    (alone,) = model.generate([prompt(8)], 12, sampling=Sampling(temperature=1.5, seed=3))
    assert drawn(3)[0].tokens == alone.tokens, "a row does not depend on who is beside it"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-20, 20), min_size=2, max_size=20),
    st.floats(0.1, 4),
    st.integers(0, 5),
    st.floats(0.05, 1),
    st.integers(0, 1000),
)
def test_what_is_drawn_is_among_the_best_that_are_asked_for(
    scores: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    token = sampling.draw(np.array(scores, np.float32), np.random.default_rng(seed))
    better = sum(score > scores[token] for score in np.array(scores, np.float32).tolist())
    assert 0 <= token < len(scores) and (top_k == 0 or better < top_k)
    chances = np.exp((np.array(scores, np.float32).astype(float) - max(scores)) / temperature)
    chances /= chances.sum()
    above = sum(
        chance for chance, score in zip(chances, scores, strict=True) if np.float32(score) > np.float32(scores[token])
    )
    assert above < top_p + 1e-6


def test_temperature_near_0_is_greedy(model: Qwen3ForInference) -> None:
    (greedy,) = model.generate([prompt(8)], 8)
    (cold,) = model.generate([prompt(8)], 8, sampling=Sampling(temperature=1e-6))
    assert cold.tokens == greedy.tokens


def test_one_graph_serves_every_length_of_a_bucket(model: Qwen3ForInference) -> None:
    assert [bucket(n, 256) for n in (1, 16, 17, 100, 200, 256)] == [16, 16, 32, 128, 256, 256]
    before = len(model._prefills)
    for length in (33, 40, 50, 64):
        model.prefill([prompt(length)], room=10)
    assert len(model._prefills) - before <= 1


def test_the_last_positions_of_the_model_are_used_and_none_beyond(model: Qwen3ForInference) -> None:
    tokens = prompt(256)
    (whole,) = model.logits([tokens])
    after, cache = model.prefill([tokens[:250]], room=6)
    for token in tokens[250:]:
        after, cache = model.decode(np.array([token]), cache)
    assert error(after[0], whole[-1]) < ERROR
    with pytest.raises(ValueError, match="cache is full"):
        model.decode(np.array([0]), cache)
    with pytest.raises(ValueError, match="257 positions are asked for, and the model has 256"):
        model.prefill([tokens], room=1)
    with pytest.raises(ValueError, match="every prompt needs a token"):
        model.prefill([[]], room=1)
