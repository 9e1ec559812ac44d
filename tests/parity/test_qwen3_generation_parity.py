"""Continuations beside those of Hugging Face's `generate`, from the same weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen3_model.modeling_qwen3_infer import Qwen3ForInference
from qwen3_model.weights import save_safetensors
from tests.model.qwen3_cases import random_weights, shaped
from tests.parity.hf_reference import reference
from tests.support.full import full

CONFIG = shaped("tiny", max_position_embeddings=2048, eos_token_id=None)


def prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    draw = np.random.default_rng(5)
    return [[int(token) for token in draw.integers(1, CONFIG.vocab_size, length)] for length in lengths]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Qwen3ForInference, torch.nn.Module]:
    directory: Path = tmp_path_factory.mktemp("weights")
    weights = random_weights(CONFIG)
    (directory / "config.json").write_text(json.dumps(CONFIG.to_hf()))
    save_safetensors(weights, directory)
    return Qwen3ForInference.from_directory(directory), reference(CONFIG, weights).eval()


def theirs(model: torch.nn.Module, asked: list[list[int]], count: int) -> tuple[list[list[int]], np.ndarray]:
    """Greedy continuations of left-padded prompts, and the logits after the prompts."""
    width = max(map(len, asked))
    tokens = torch.tensor([[0] * (width - len(one)) + one for one in asked])
    seen = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in asked])
    with torch.no_grad():
        found = model.generate(
            tokens, attention_mask=seen, max_new_tokens=count, do_sample=False, pad_token_id=0,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    return found.sequences[:, width:].tolist(), found.logits[0].numpy()


ONE_PROMPT = full(held_by="tests/parity/test_qwen3_generation_parity.py::test_256_greedy_tokens_are_those_of_generate")


@pytest.mark.parametrize("lengths", [(3, 21, 8), *(pytest.param(one, marks=ONE_PROMPT) for one in [(1,), (40,)])])
def test_256_greedy_tokens_are_those_of_generate(
    pair: tuple[Qwen3ForInference, torch.nn.Module], lengths: tuple[int, ...]
) -> None:
    ours, model = pair
    asked = prompts(lengths)
    expected, logits = theirs(model, asked, 256)
    first, _ = ours.prefill(asked, room=1)
    assert np.abs(first - logits).max() < 2e-5 * np.abs(logits).max()
    for row, found in enumerate(ours.generate(asked, 256)):
        apart = next((n for n, (a, b) in enumerate(zip(found.tokens, expected[row], strict=True)) if a != b), None)
        assert apart is None or found.margins[apart] < 1e-3, "they part, and not at a near tie"


def test_no_position_of_a_long_context_is_further_from_theirs_than_another(
    pair: tuple[Qwen3ForInference, torch.nn.Module],
) -> None:
    ours, model = pair
    (tokens,) = prompts((2048,))
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    (whole,) = ours.logits([tokens])
    apart = np.abs(whole - expected).max(-1) / np.abs(expected).max()
    assert apart.max() < 2e-5 and apart[-256:].max() < 4 * apart[:256].max()
    after, cache = ours.prefill([tokens[:2044]], room=4)
    for position in range(2044, 2048):
        assert np.abs(after[0] - expected[position - 1]).max() < 2e-5 * np.abs(expected).max()
        after, cache = ours.decode(np.array([tokens[position]]), cache)
    assert np.abs(after[0] - expected[-1]).max() < 2e-5 * np.abs(expected).max()
