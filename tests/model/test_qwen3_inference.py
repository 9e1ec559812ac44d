"""The laws of inference: a cache changes nothing, nor do padding, neighbours or buckets; a seed draws the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_model.modeling_qwen3_infer import Qwen3ForInference, bucket
from qwen3_model.sampling import Generated, Sampling, margin
from tests.model.qwen3_cases import BF16, random_weights, shaped
from tests.support.full import full
from tests.support.properties import examples

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


OTHER_LENGTHS = full(
    held_by="tests/model/test_qwen3_inference.py::test_token_after_token_the_cache_gives_the_logits_of_the_whole"
)
ONE_BUCKET = full(
    held_by="tests/model/test_qwen3_inference.py::test_a_bucket_is_compiled_once_whatever_the_lengths_in_it"
)


@pytest.mark.parametrize("length", [15, 17, *(pytest.param(one, marks=OTHER_LENGTHS) for one in (1, 16, 40))])
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
    for step, (token, over) in enumerate(zip(found.tokens, found.margins, strict=True)):
        ordered = np.sort(whole[7 + step])
        assert token == int(np.argmax(whole[7 + step])) and over == pytest.approx(ordered[-1] - ordered[-2], abs=1e-3)


def test_a_seed_draws_the_same_tokens_and_another_seed_others(model: Qwen3ForInference) -> None:
    def drawn(seed: int) -> list[Generated]:
        return model.generate([prompt(8), prompt(12)], 12, sampling=Sampling(temperature=1.5, seed=seed))

    assert drawn(3) == drawn(3) != drawn(4)
    (alone,) = model.generate([prompt(8)], 12, sampling=Sampling(temperature=1.5, seed=3))
    assert drawn(3)[0].tokens == alone.tokens, "a row does not depend on who is beside it"


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=20),
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
    better = sum(score > scores[token] for score in scores)
    assert 0 <= token < len(scores) and (top_k == 0 or better < top_k)
    chances = np.exp((np.array(scores) - max(scores)) / temperature)
    above = sum(chance for chance, score in zip(chances, scores, strict=True) if score > scores[token])
    assert above < top_p * chances.sum() + 1e-6


def test_temperature_near_0_is_greedy(model: Qwen3ForInference) -> None:
    (greedy,) = model.generate([prompt(8)], 8)
    (cold,) = model.generate([prompt(8)], 8, sampling=Sampling(temperature=1e-6))
    assert cold.tokens == greedy.tokens


def graphs(model: Qwen3ForInference) -> int:
    """How many graphs were compiled so far."""
    return sum(len(cell.compile_cache) for cell in (model.model, *model._prefills.values(), *model._decodes.values()))


@pytest.mark.parametrize(
    "lengths",
    [
        pytest.param((33, 40, 50, 64), id="in the middle", marks=ONE_BUCKET),
        pytest.param((200, 210, 216), id="near the limit"),
    ],
)
def test_a_bucket_is_compiled_once_whatever_the_lengths_in_it(
    model: Qwen3ForInference, lengths: tuple[int, ...]
) -> None:
    before = graphs(model)
    for length in lengths:
        model.generate([prompt(length, seed) for seed in range(5)], 40 - length % 3)
    assert graphs(model) - before == 2, "one of prompts, one of tokens"


def test_without_a_cache_a_bucket_is_compiled_once_too(model: Qwen3ForInference) -> None:
    before = graphs(model)
    for length in (65, 90, 128):
        list(model.logits([prompt(length)] * 3))
    assert graphs(model) - before == 1


def test_buckets_are_powers_of_two_within_the_limit() -> None:
    assert [bucket(n, 250) for n in (0, 1, 16, 17, 100, 200, 250)] == [16, 16, 16, 32, 128, 250, 250]


def test_rows_are_computed_some_at_a_time_and_come_back_in_order(model: Qwen3ForInference) -> None:
    rows = [prompt(length, length) for length in (3, 30, 1, 17, 8)]
    found = list(model.logits(rows, batch=2))
    assert [len(one) for one in found] == [3, 30, 1, 17, 8]
    for row, one in zip(rows, found, strict=True):
        assert error(one, next(model.logits([row]))) < ERROR


def test_weights_that_are_loaded_later_are_used_by_graphs_that_were_compiled_before() -> None:
    found = Qwen3ForInference(CONFIG)
    outcomes = []
    for seed in (0, 1, 0):
        found.load_weights(random_weights(CONFIG, seed))
        outcomes.append(found.generate([prompt(8)], 8)[0].tokens)
    assert outcomes[0] == outcomes[2] != outcomes[1]
    assert graphs(found) == 2


def test_caches_of_one_model_do_not_see_each_other(model: Qwen3ForInference) -> None:
    (first,), (second,) = model.generate([prompt(8, 1)], 6), model.generate([prompt(9, 2)], 6)
    rows = [model.prefill([prompt(8, 1)], room=6), model.prefill([prompt(9, 2)], room=6)]
    tokens: list[list[int]] = [[], []]
    for _ in range(6):
        for row, (logits, cache) in enumerate(rows):
            chosen = model.choose(logits, None, [])
            tokens[row].append(int(chosen[0]))
            rows[row] = model.decode(chosen, cache)
    assert tokens == [list(first.tokens), list(second.tokens)]


@pytest.mark.parametrize("token", [-1, CONFIG.vocab_size])
def test_a_token_beyond_the_vocabulary_is_refused(model: Qwen3ForInference, token: int) -> None:
    _, cache = model.prefill([prompt(8)], room=1)
    for refused in (
        lambda: model.prefill([[token]], room=1),
        lambda: model.decode(np.array([token]), cache),
        lambda: list(model.logits([[token]])),
    ):
        with pytest.raises(ValueError, match="tokens must be from 0 to 319"):
            refused()


def test_the_last_positions_of_the_model_are_used_and_none_beyond(model: Qwen3ForInference) -> None:
    tokens = prompt(256)
    (whole,) = model.logits([tokens])
    after, cache = model.prefill([tokens[:250]], room=6)
    for token in tokens[250:]:
        after, cache = model.decode(np.array([token]), cache)
    assert error(after[0], whole[-1]) < ERROR
    with pytest.raises(ValueError, match="257 positions are needed, and the model has 256"):
        model.decode(np.array([0]), cache)
    with pytest.raises(ValueError, match="257 positions are needed, and the model has 256"):
        model.prefill([tokens], room=1)
    with pytest.raises(ValueError, match="every prompt needs a token"):
        model.prefill([[]], room=1)


def test_a_full_cache_is_refused(model: Qwen3ForInference) -> None:
    _, cache = model.prefill([prompt(16)], room=0)
    with pytest.raises(ValueError, match="the cache is full: 16 columns"):
        model.decode(np.array([0]), cache)


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"seed": -1}],
)
def test_an_invalid_sampling_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Sampling(**wrong)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_nothing_is_drawn_from_logits_that_are_not_finite(broken: float) -> None:
    with pytest.raises(ValueError, match="no token can be drawn"):
        Sampling().draw(np.array([0.0, broken, 1.0]), np.random.default_rng(0))


class Always(np.random.Generator):
    """Draws the largest number there is below 1."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def random(self, *_: object, **__: object) -> float:
        return 1 - 2**-53


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=300), st.sampled_from([1.0, 1 - 2**-53, 0.5]))
def test_the_largest_random_number_draws_a_token_too(scores: list[float], top_p: float) -> None:
    assert 0 <= Sampling(top_p=top_p).draw(np.array(scores), Always()) < len(scores)


def test_a_margin_is_to_the_best_of_the_others_and_not_a_number_where_one_is() -> None:
    logits = np.array([1.0, 4.0, 2.5], np.float32)
    assert [margin(logits, token) for token in range(3)] == [-3.0, 1.5, -1.5]
    assert np.isnan(margin(np.array([1.0, np.nan], np.float32), 0))
