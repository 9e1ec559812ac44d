"""lm-eval's scores: of the project's adapter beside its own for Hugging Face, and of what is recorded beside both."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from harness.corpus.tokenizer_files import EOD, byte_tokenizer
from harness.runners.lm_evaluation import LogitsLM, evaluate, likelihood, run_task
from harness.runs.evaluation import Passage, Question, words
from harness.runs.trace import EvaluationTask
from tests.model.qwen3_cases import random_weights, shaped
from tests.parity.hf_reference import reference

CONFIG = shaped("tiny", max_position_embeddings=64)
WORDS = ["the", "model", "reads", "a", "text", "and", "says", "what", "comes", "next", "of", "all", "words"]


def sentence(random: np.random.Generator, length: int) -> str:
    return " ".join(random.choice(WORDS, length))


def documents(task: EvaluationTask, count: int = 12) -> tuple[Any, ...]:
    random = np.random.default_rng(3)
    if task == "text":
        return tuple(sentence(random, 3 + 4 * index) for index in range(count))  # some are longer than the model reads
    if task == "last_word":
        return tuple(Passage(context=sentence(random, 6), word=f" {random.choice(WORDS)}") for _ in range(count))
    return tuple(
        Question(context=sentence(random, 5), endings=tuple(f" {sentence(random, 2)}" for _ in range(4)), right=n % 4)
        for n in range(count)
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    (directory / "tokenizer.json").write_text(json.dumps(byte_tokenizer({256: EOD})))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eod>", "pad_token": "<eod>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return AutoTokenizer.from_pretrained(directory)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return reference(CONFIG, random_weights(CONFIG)).eval()


@pytest.fixture(scope="module")
def theirs(model: torch.nn.Module, tokenizer: Any) -> HFLM:
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=5, device="cpu")


@pytest.fixture(scope="module")
def ours(model: torch.nn.Module, tokenizer: Any) -> LogitsLM:
    def logits(rows: Any) -> list[np.ndarray]:
        with torch.no_grad():
            return [model(torch.tensor([row])).logits[0].numpy() for row in rows]

    return LogitsLM(logits, tokenizer, CONFIG.max_position_embeddings, batch_size=5)


@pytest.mark.parametrize("task", ["text", "last_word", "ending"])
def test_the_adapter_scores_documents_as_the_one_for_hugging_face(
    task: EvaluationTask, ours: LogitsLM, theirs: HFLM
) -> None:
    asked = documents(task)
    for (own, score), (other, expected) in zip(evaluate(ours, task, asked), evaluate(theirs, task, asked), strict=True):
        assert own == pytest.approx(other, rel=1e-5)
        assert score == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("task", ["last_word", "ending"])
def test_the_part_that_is_right_is_lm_evals_accuracy(task: EvaluationTask, theirs: HFLM) -> None:
    asked = documents(task)
    scores = [score for _, score in evaluate(theirs, task, asked)]
    told = run_task(theirs, task, asked)["results"][f"certify_{task}"]["acc,none"]
    assert np.mean(scores) == pytest.approx(told) and set(scores) <= {0.0, 1.0}


def test_the_perplexity_of_a_word_is_lm_evals(theirs: HFLM) -> None:
    asked = documents("text")
    total = math.fsum(score for _, score in evaluate(theirs, "text", asked))
    told = run_task(theirs, "text", asked)["results"]["certify_text"]["word_perplexity,none"]
    assert math.exp(-total / sum(map(words, asked))) == pytest.approx(told, rel=1e-6)


def test_bytes_are_read_as_bytes_are_trained_on(tokenizer: Any) -> None:
    for text in ("", "plain", "  two  spaces\n\n", "héllo 你好 \x00\x7f\xa0 ½"):
        assert tokenizer.encode(text, add_special_tokens=False) == list(text.encode())
        assert tokenizer.decode(list(text.encode()), clean_up_tokenization_spaces=False) == text


def test_a_likelihood_that_is_not_finite_stays_so() -> None:
    logits = np.zeros((3, 5), np.float32)
    assert likelihood(logits, [1, 2, 3, 4], 2) == (pytest.approx(-2 * math.log(5)), False)
    logits[1, 0] = np.nan
    assert math.isnan(likelihood(logits, [1, 2, 3, 4], 2)[0])
