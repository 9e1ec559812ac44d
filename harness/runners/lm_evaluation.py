"""Evaluation by EleutherAI's lm-eval: the project's tasks, which need no network, and an adapter for `qwen3_model`.

A task's documents are handed to lm-eval as they are; its requests, its batches of Hugging Face's model and its scores
are its own. It returns log-likelihoods and score of every document.
"""

import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.evaluator import evaluate as run_lm_eval
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from harness.runners.protocol import Likelihoods
from harness.runs.trace import EvaluationTask

Array = npt.NDArray[Any]
Logits = Callable[[Sequence[Sequence[int]]], Sequence[Array]]  # rows of tokens -> [S, V] each

LM_EVAL = importlib.metadata.version("lm_eval")
PERPLEXITY = {"metric": "word_perplexity"}
ACCURACY = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
TASKS: dict[EvaluationTask, dict[str, Any]] = {
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [PERPLEXITY],
    },
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{word}}",
        "target_delimiter": "",
        "metric_list": [ACCURACY],
    },
    "ending": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "endings",
        "doc_to_target": "right",
        "target_delimiter": "",
        "metric_list": [ACCURACY],
    },
}


def configured(task: EvaluationTask, documents: Sequence[Any]) -> dict[str, Any]:
    """A task of the project as lm-eval takes one."""
    rows = [{"text": one} if isinstance(one, str) else asdict(one) for one in documents]

    def read(**_: Any) -> dict[str, datasets.Dataset]:
        return {"test": datasets.Dataset.from_list(rows)}

    return {"task": f"certify_{task}", "custom_dataset": read, "test_split": "test", **TASKS[task]}


def run_task(model: Any, task: EvaluationTask, documents: Sequence[Any]) -> dict[str, Any]:
    """lm-eval's own results of a model in a task, with every sample."""
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    tasks = TaskManager(include_defaults=False).load([configured(task, documents)])
    results = run_lm_eval(model, tasks, bootstrap_iters=0, log_samples=True)
    assert results is not None, "there is one process"
    return dict(results)


def evaluate(model: Any, task: EvaluationTask, documents: Sequence[Any]) -> Iterator[Likelihoods]:
    """Log-likelihoods and score of every document, in their order."""
    samples = run_task(model, task, documents)["samples"][f"certify_{task}"]
    for sample in sorted(samples, key=lambda one: one["doc_id"]):
        found = sample["filtered_resps"]
        if task == "text":
            likelihood = float(found[0])
            yield (likelihood,), likelihood
        else:
            yield tuple(float(one[0]) for one in found), float(sample["acc"])


@register_model("qwen3_model")
class LogitsLM(TemplateLM):
    """A model that gives logits, for lm-eval: `logits` takes rows of tokens and gives [S, V] for each.

    Log-likelihoods are those of a softmax in float64. Texts longer than the model's positions are read in windows, as
    lm-eval's adapter for Hugging Face reads them.
    """

    def __init__(self, logits: Logits, tokenizer: Any, max_length: int, batch_size: int) -> None:
        super().__init__()
        self._logits, self.tokenizer = logits, tokenizer
        self._max_length, self._batch_size = max_length, batch_size

    @property
    def eot_token_id(self) -> int:
        """The end of a document, by which a text begins too."""
        return int(self.tokenizer.eos_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text, without any around it."""
        return list(self.tokenizer.encode(string, add_special_tokens=False))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Of each whole text, every token predicted once."""
        windows = [
            (index, (("", ""), context, target))
            for index, request in enumerate(requests)
            for context, target in map(
                make_disjoint_window,
                get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self._max_length,
                    context_len=1,
                ),
            )
        ]
        found = self._loglikelihood_tokens([window for _, window in windows])
        totals = np.zeros(len(requests))
        for (index, _), (likelihood, _) in zip(windows, found, strict=True):
            totals[index] += likelihood
        return [float(total) for total in totals]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """The longest first: neighbours in a batch are of about one length, and the widest shape is compiled first."""
        order = sorted(range(len(requests)), key=lambda n: -len(requests[n][1]) - len(requests[n][2]))
        found: dict[int, tuple[float, bool]] = {}
        for begin in range(0, len(order), self._batch_size):
            batch = order[begin : begin + self._batch_size]
            rows = [(requests[n][1] + requests[n][2])[-self._max_length - 1 :] for n in batch]
            # rows of the last batch are repeated: one more shape would be compiled for it
            filled = [row[:-1] for row in rows] + [rows[-1][:-1]] * (self._batch_size - len(rows))
            for n, row, logits in zip(batch, rows, self._logits(filled), strict=False):
                found[n] = likelihood(logits, row, len(requests[n][2]))
        return [found[n] for n in range(len(requests))]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """No task of the project needs it.

        Raises:
            ValueError: always.
        """
        raise ValueError("The tasks of this project score log-likelihoods; this adapter generates no text.")


def likelihood(logits_SV: Array, row: Sequence[int], count: int) -> tuple[float, bool]:
    """Log-likelihood of the last `count` tokens of a row, and whether each is the best one; `logits_SV` are those of
    the row without its last token."""
    last = logits_SV[len(row) - 1 - count : len(row) - 1].astype(np.float64)
    targets = np.asarray(row[-count:])
    shifted = last - last.max(-1, keepdims=True)
    picked = np.take_along_axis(shifted, targets[:, None], -1)[:, 0] - np.log(np.exp(shifted).sum(-1))
    return float(picked.sum()), bool((last.argmax(-1) == targets).all())
