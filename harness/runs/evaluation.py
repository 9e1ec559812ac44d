"""The inputs of an inference case, as one file that all sides read: the record, and how to read it.

`evaluation.json` holds token rows, prompts, texts and questions; `tokenizer/`, next to it, is the Hugging Face
directory of the tokenizer. `harness.corpus.held_out` writes both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_bytes, digest_file, digest_json
from harness.base.errors import EvidenceError
from harness.base.records import LATER, parse, read_json
from harness.runs.trace import EvaluationTask

EVALUATION, TOKENIZER = "evaluation.json", "tokenizer"
DECODED, DECODED_BATCH, FED = "decoded", "decoded_batch", "fed"  # kinds of what a run leaves
TASKS: tuple[EvaluationTask, ...] = ("text", "last_word", "ending")  # in the order in which they are scored
Message = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A passage without its last word, and that word with the whitespace before it."""

    context: str
    word: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """A passage without its ending, some candidate endings, and the index of the right one."""

    context: str
    endings: tuple[str, ...]
    right: int


@dataclass(frozen=True, kw_only=True)
class GivenPrompt:
    """A prompt, and the tokens that are decoded one by one after it, whatever a model predicts."""

    prompt: tuple[int, ...]
    then: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The inputs of an inference case.

    `rows` [R, S] are tokens for which every logit is compared; `prompts` are continued in one batch. `stop_token` is a
    token that occurs often. `text_tokens` counts the tokens of `texts`, and `unigram_nats` is their entropy: the loss
    per token of a model that knows only their frequencies. `conversation_tokens` are those of each conversation.
    Evaluations that were drawn earlier have neither `given` nor `conversation_tokens`.
    """

    rows: tuple[tuple[int, ...], ...]
    prompts: tuple[tuple[int, ...], ...]
    stop_token: int
    texts: tuple[str, ...]
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    conversations: tuple[tuple[dict[str, str], ...], ...]
    text_tokens: int
    unigram_nats: float
    given: tuple[GivenPrompt, ...] | None = field(default=None, metadata=LATER)
    conversation_tokens: tuple[tuple[int, ...], ...] | None = field(default=None, metadata=LATER)

    def fed(self) -> dict[str, npt.NDArray[np.int32]]:
        """The tokens that a model reads, by prompt, in the order in which a run leaves them as `fed.N`."""
        if self.conversation_tokens is None:
            return {}
        return {
            **{f"prompt {n}": np.array(one, np.int32) for n, one in enumerate(self.prompts)},
            **{f"given prompt {n}": np.array(one.prompt, np.int32) for n, one in enumerate(self.given or ())},
            **{f"conversation {n}": np.array(one, np.int32) for n, one in enumerate(self.conversation_tokens)},
        }

    def documents(self, task: EvaluationTask) -> tuple[Any, ...]:
        """The documents of a task, in the order in which they are scored."""
        return {"text": self.texts, "last_word": self.passages, "ending": self.questions}[task]


def words(text: str) -> int:
    """How many words a text has, as lm-eval's WikiText task counts them."""
    return max(1, len(text.split()))


def documents_of(evaluation: Evaluation) -> dict[str, tuple[str, int]]:
    """Digest and number of words of every document, keyed by task and by number over all tasks, as in a run's trace."""
    every = [(task, document) for task in TASKS for document in evaluation.documents(task)]
    return {
        f"{task} {number}": (digest_document(document), words(document) if task == "text" else 1)
        for number, (task, document) in enumerate(every, 1)
    }


def digest_document(document: str | Passage | Question) -> str:
    """Digest of one document."""
    return digest_json(document if isinstance(document, str) else vars(document))


def digest_evaluation(directory: Path) -> str:
    """Digest of a directory's evaluation and tokenizer.

    Raises:
        EvidenceError: a file cannot be read.
    """
    try:
        tokenizer = {path.name: digest_file(path) for path in sorted((directory / TOKENIZER).iterdir())}
        return digest_json({EVALUATION: digest_bytes((directory / EVALUATION).read_bytes()), TOKENIZER: tokenizer})
    except OSError as error:
        raise EvidenceError(f"The evaluation in {directory} cannot be read: {error.strerror}.") from None


def read_evaluation(directory: Path) -> Evaluation:
    """The evaluation in a directory of inputs.

    Raises:
        EvidenceError: the file is missing or is not an evaluation.
    """
    path = directory / EVALUATION
    found: Evaluation = parse(Evaluation, read_json(path), path)
    return found
