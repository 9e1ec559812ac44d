"""Clues: each fault planted in an invented tensor is recognised, and noise is not."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.diagnosis.clues import Scene, clue, loss_clue
from harness.runs.taps import exact_loss

Array = npt.NDArray[Any]
HIDDEN, HEADS = ("row", "position", "channel"), ("row", "head", "position", "channel")
EXACT = np.random.RandomState(0).standard_normal((2, 8, 16))
TURNED = np.random.RandomState(1).standard_normal((2, 4, 8, 16))
OTHER = np.random.RandomState(2).standard_normal((2, 8, 16))


def scene(subject: Array, exact: Array = EXACT, *, name: str = "model.norm", **more: Any) -> Scene:
    given = {"inputs": {}, "elsewhere": {}, "axes": HIDDEN if exact.ndim == 3 else HEADS, **more}
    reference = exact.astype(np.float32)
    return Scene(name=name, subject=subject, exact=exact, reference=reference, allowed=1e-5, **given)


def single(tensor: Array) -> Array:
    return tensor.astype(np.float32)


def changed(tensor: Array, where: Any, by: float) -> Array:
    copy = single(tensor)
    copy[where] += by
    return copy


def bfloat16(tensor: Array) -> Array:
    bits = single(tensor).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (changed(EXACT, (1, 2, 3), np.nan), "1 of 256 elements are not finite, first at row 1, position 2, channel 3"),
        (np.zeros_like(single(EXACT)), "zero everywhere"),
        (single(1.01 * EXACT), "every element is 1.01 times"),
        (single(-EXACT), "opposite sign"),
        (single(OTHER), "it holds the values of model.layers.0.mlp"),
        (single(np.roll(EXACT, 1, 1)), "each position holds the values of the one before it"),
        (single(np.roll(EXACT, 8, 2)), "halves of each channel axis are exchanged"),
        (bfloat16(EXACT), "bfloat16"),
        (single(EXACT).astype(np.float16).astype(np.float32), "float16"),
        (single(EXACT * np.linspace(0.9, 1.1, 16)), "each channel has a factor of its own"),
        (single(EXACT * np.linspace(0.9, 0.99, 16).reshape(2, 8, 1)), "each vector has a factor of its own"),
        (changed(EXACT, (slice(None), 7), 0.5), "only position 7 is wrong"),
        (single(EXACT[:, :4]), "it has the shape [2, 4, 16] instead of [2, 8, 16]"),
    ],
)
def test_a_planted_fault_is_recognised(subject: Array, words: str) -> None:
    found = clue(scene(subject, elsewhere={"model.layers.0.mlp": OTHER, "model.norm": EXACT}))
    assert found is not None and words in found


def test_a_tensor_that_is_its_input_is_recognised_in_another_layout() -> None:
    own = single(TURNED)
    for taken in (own, own.swapaxes(1, 2)):
        inputs = {"k_norm": np.ascontiguousarray(taken)}
        found = clue(scene(own, OTHER.reshape(2, 4, 8, 4).repeat(4, -1), inputs=inputs))
        assert found == "it is identical to its input"


def test_heads_in_another_order_are_recognised() -> None:
    found = clue(scene(single(TURNED[:, [1, 0, 3, 2]]), TURNED))
    assert found == "the heads are in another order: [1, 0, 3, 2]"


@pytest.mark.parametrize(("pairs", "words"), [("same", "a wrong angle"), ("interleaved", "other channels are paired")])
def test_a_wrong_rotation_is_recognised(pairs: str, words: str) -> None:
    angle = np.linspace(0, 3, 8)[:, None] * np.linspace(1, 0.1, 8)
    exact = rotate(TURNED, angle, half=True)
    wrong = rotate(TURNED, 2 * angle if pairs == "same" else angle, half=pairs == "same")
    found = clue(scene(single(wrong), exact, name="model.layers.0.self_attn.rotary_emb.q"))
    assert found is not None and words in found


def tables(base: float, positions: Array) -> Array:
    half = np.outer(positions, base ** (-2.0 * np.arange(8) / 16))
    angles = np.concatenate([half, half], -1)
    return np.stack([np.cos(angles), np.sin(angles)])


@pytest.mark.parametrize(
    ("base", "positions", "words"),
    [
        (1e4, np.arange(12), "they are made with rope_theta 10000 instead of 1e+06"),
        (1e6, np.arange(12) % 4, "positions start again after every 4 tokens"),
        (1e6, np.arange(12) + 1, "each position holds the values of the one after it"),
    ],
)
def test_wrong_rotary_tables_are_recognised(base: float, positions: Array, words: str) -> None:
    right = tables(1e6, np.arange(12))
    axes = ("table", "position", "channel")
    given_ = scene(single(tables(base, positions)), right, name="model.rotary_emb", axes=axes)
    assert clue(given_) == words


def rotate(x: Array, angle: Array, *, half: bool) -> Array:
    first, second = (x[..., :8], x[..., 8:]) if half else (x[..., ::2], x[..., 1::2])
    a, b = first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)
    return np.concatenate([a, b], -1) if half else np.stack([a, b], -1).reshape(x.shape)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda scores, visible: softmax(scores), "causal mask"),
        (lambda scores, visible: softmax(np.where(visible, 1.5 * scores, -np.inf)), "every score is 1.5 times"),
        (lambda scores, visible: 0.5 * softmax(np.where(visible, scores, -np.inf)), "every element is 0.5 times"),
    ],
)
def test_wrong_probabilities_are_recognised(fault: Any, words: str) -> None:
    scores, visible = np.random.RandomState(3).standard_normal((2, 4, 8, 8)), np.tril(np.ones((8, 8), bool))
    exact = softmax(np.where(visible, scores, -np.inf))
    axes = ("row", "head", "query position", "key position")
    found = clue(scene(single(fault(scores, visible)), exact, name="model.layers.0.self_attn.softmax", axes=axes))
    assert found is not None and words in found


def softmax(scores: Array) -> Array:
    each = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(each / each.sum(-1, keepdims=True))


@given(st.integers(10, 2**31), st.floats(1e-3, 1.0))
def test_noise_gives_no_clue(seed: int, size: float) -> None:
    noise = np.random.RandomState(seed).standard_normal(EXACT.shape)
    assert clue(scene(single(EXACT + size * noise), elsewhere={"model.layers.0.mlp": OTHER})) is None


LOGITS = np.random.RandomState(4).standard_normal((2, 6, 11))
TOKENS = np.random.RandomState(5).randint(0, 11, (2, 7))
MASK = np.array([[1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1]], np.uint8)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (exact_loss(LOGITS, TOKENS[:, :-1], MASK, MASK.sum()), "targets are not shifted"),
        (exact_loss(LOGITS, TOKENS[:, 1:], np.ones_like(MASK), MASK.size), "mask is not used"),
        (exact_loss(LOGITS, TOKENS[:, 1:], MASK, MASK.size), "divided by all targets"),
        (exact_loss(LOGITS, TOKENS[:, 1:], MASK, 1.0), "a sum, not divided"),
        (exact_loss(LOGITS, TOKENS[:, 1:], MASK, MASK.sum()) * 1.001, None),
    ],
)
def test_a_wrong_loss_is_recognised(loss: float, words: str | None) -> None:
    found = loss_clue(loss, LOGITS, TOKENS, MASK, 1e-6)
    assert found is None if words is None else found is not None and words in found
