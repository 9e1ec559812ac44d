"""What the runs of a case of inference are asked and answer, invented: no framework and no corpus is behind it."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.records import write_json
from harness.cases.case import Case
from harness.cases.sections import Inference
from harness.corpus.held_out import CONVERSATIONS
from harness.corpus.tokenizer_files import CHAT_TEMPLATE, EOD, FAST, byte_tokenizer
from harness.runs.evaluation import (
    DECODED,
    DECODED_BATCH,
    EVALUATION,
    FED,
    TOKENIZER,
    Evaluation,
    GivenPrompt,
    Passage,
    Question,
    digest_document,
)
from harness.runs.trace import EvaluationTask, Scored

Tensors = dict[str, npt.NDArray[Any]]

END, STOP, SPEECH = 256, ord("h"), b"Snow falls on the hill, and the hill is white. "
ENDINGS = (" rained.", " snowed.", " froze over.", " thawed.")
BEST = 9.0  # the logit of a token that is continued with; every other is below 8
ROUNDING = {"oracle": 0.0, "reference": 5e-8, "subject": 6e-8}  # relative, of what a side computes
TASKS: tuple[EvaluationTask, ...] = ("text", "last_word", "ending")


def example_evaluation(case: Case) -> Evaluation:
    """Rows and prompts out of one sentence; texts, passages and questions that differ in a number."""
    asked = _asked(case)
    texts = tuple(f"On day {n} snow fell on the hill, and on day {n + 1} it was gone." for n in range(asked.texts))
    return Evaluation(
        rows=tuple(_spoken(case.data.seq_length, n) for n in range(asked.rows)),
        prompts=tuple(_spoken(length, n) for n, length in enumerate(asked.prompts)),
        stop_token=STOP,
        texts=texts,
        passages=tuple(Passage(context=f"On day {n} there was", word=" snow") for n in range(asked.documents)),
        questions=tuple(
            Question(context=f"On day {n} it", endings=ENDINGS, right=n % len(ENDINGS)) for n in range(asked.documents)
        ),
        conversations=CONVERSATIONS,
        text_tokens=sum(len(text.encode()) for text in texts),
        unigram_nats=3.1,
        given=tuple(
            GivenPrompt(prompt=_spoken(length, n), then=_spoken(asked.decoded_tokens, n + length))
            for n, length in enumerate(asked.given_lengths)
        ),
        conversation_tokens=tuple(tuple(json.dumps(one).encode()) for one in CONVERSATIONS),
    )


def write_evaluation(directory: Path, case: Case) -> None:
    """The files of `harness.corpus.held_out`: what is asked, and the tokenizer of bytes."""
    write_json(directory / EVALUATION, json.loads(json.dumps(dataclasses.asdict(example_evaluation(case)))))
    (directory / TOKENIZER).mkdir()
    write_json(directory / TOKENIZER / "tokenizer.json", byte_tokenizer({END: EOD}))
    config = {"chat_template": CHAT_TEMPLATE, "tokenizer_class": FAST, "eos_token": EOD, "pad_token": EOD}
    write_json(directory / TOKENIZER / "tokenizer_config.json", config)


def example_scored(run: str, number: int, evaluation: Evaluation) -> Scored:
    """A document's line; the sides are some 1e-8 apart, and right in the same documents."""
    task, index = _placed(number, evaluation)
    document = evaluation.documents(task)[index]
    aside = 1 + ROUNDING[run.partition("-")[0]] * math.sin(5.1 * number)
    likelihoods = tuple(aside * value for value in _likelihoods(task, document, index))
    right = {"text": likelihoods[0], "last_word": float(index % 3 != 0), "ending": float(index % 4 != 1)}
    words = len(document.split()) if isinstance(document, str) else 1
    return Scored(
        step=number,
        task=task,
        log_likelihoods=likelihoods,
        score=right[task],
        words=words,
        document=_digest(document),
    )


_digest = functools.cache(digest_document)


def example_answers(run: str, case: Case) -> Tensors:
    """All that a side leaves; the tokens are the same on all sides, the logits rounded by each in its own way."""
    exact = run.startswith("oracle")
    kinds = KINDS_OF_ORACLE if exact else tuple(kind for kind in KINDS if kind != "greedy_logits")
    side = run.partition("-")[0]
    every = {**_of_rows(side, case), **_of_prompts(side, case), **_of_conversations(), **_of_given(side, case)}
    return {name: tensor for name, tensor in every.items() if name.partition(".")[0] in kinds}


KINDS = (
    "logits", "cached", "alone", "batch", "greedy", "greedy_logits", "stopped", "sampled", "template", DECODED,
    DECODED_BATCH, FED,
)  # fmt: skip
KINDS_OF_ORACLE = ("logits", "greedy", "greedy_logits", DECODED)


def _of_rows(side: str, case: Case) -> Tensors:
    left: Tensors = {}
    for row in range(_asked(case).rows):
        exact = _logits(f"row {row}", (case.data.seq_length, case.model.vocab_size))
        for kind in ("logits", "cached"):
            left[f"{kind}.{row}"] = _rounded(exact, side, f"{kind} {row}")
    return left


def _of_prompts(side: str, case: Case) -> Tensors:
    left, asked = Tensors(), _asked(case)
    for prompt in range(len(asked.prompts)):
        greedy = np.array(_spoken(asked.max_new_tokens, 9 + prompt), np.int32)
        exact = _logits(f"prompt {prompt}", (asked.max_new_tokens, case.model.vocab_size))
        exact[np.arange(len(greedy)), greedy] = BEST
        left[f"greedy.{prompt}"], left[f"greedy_logits.{prompt}"] = greedy, exact
        for kind in ("alone", "batch"):
            left[f"{kind}.{prompt}"] = _rounded(exact[0], side, f"{kind} {prompt}")
        left[f"stopped.{prompt}"] = greedy[: int(np.argmax(greedy == STOP))]
        left[f"sampled.{prompt}"] = greedy[::-1][: asked.sampled_tokens].copy()
    return left


def _of_conversations() -> Tensors:
    return {
        f"template.{number}": np.frombuffer(json.dumps(conversation).encode(), np.uint8).astype(np.int32)
        for number, conversation in enumerate(CONVERSATIONS)
    }


def _of_given(side: str, case: Case) -> Tensors:
    """What is decoded after each given prompt, and what the model read."""
    evaluation, asked = example_evaluation(case), _asked(case)
    left = {f"{FED}.{n}": tokens for n, tokens in enumerate(evaluation.fed().values())}
    for number in range(len(evaluation.given)):
        exact = _logits(f"given {number}", (1 + asked.decoded_tokens, case.model.vocab_size))
        for kind in (DECODED, DECODED_BATCH):
            left[f"{kind}.{number}"] = _rounded(exact, side, f"{kind} {number}")
    return left


def _asked(case: Case) -> Inference:
    assert case.inference is not None, "a case of inference"
    return case.inference


def _spoken(length: int, begin: int) -> tuple[int, ...]:
    return tuple((SPEECH * (2 + (begin + length) // len(SPEECH)))[begin : begin + length])


def _placed(number: int, evaluation: Evaluation) -> tuple[EvaluationTask, int]:
    """Task and index of a document by its number over all tasks, from 1."""
    index = number - 1
    for task in TASKS:
        if index < len(evaluation.documents(task)):
            return task, index
        index -= len(evaluation.documents(task))
    raise AssertionError(f"there is no document {number}")


def _likelihoods(task: EvaluationTask, document: Any, index: int) -> tuple[float, ...]:
    wave = 0.3 * math.sin(1.7 * index)
    if task == "text":
        return (-(1.2 + wave) * len(document),)
    if task == "last_word":
        return (-2.5 - wave,)
    best = document.right if index % 4 != 1 else (document.right + 1) % len(document.endings)
    return tuple(-7.0 - wave - 2.0 * (ending != best) for ending in range(len(document.endings)))


def _logits(label: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.tanh(_noise(label, shape)) * 7.5


def _rounded(exact: npt.NDArray[np.float64], side: str, label: str) -> npt.NDArray[Any]:
    if side == "oracle":
        return exact.copy()
    return (exact * (1 + ROUNDING[side] * _noise(f"{side} {label}", exact.shape))).astype(np.float32)


def _noise(label: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.random.RandomState(list(label.encode())).standard_normal(shape)
