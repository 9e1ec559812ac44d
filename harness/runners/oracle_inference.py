"""The oracle that is asked: the same mathematics in float64, each token from the whole of what is before it."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoTokenizer

from harness.cases.case import Case
from harness.runners.inference_worker import GREEDY
from harness.runners.lm_evaluation import LM_EVAL, LogitsLM, evaluate
from harness.runners.oracle import logits
from harness.runners.protocol import Likelihoods, Setting, Tensors
from harness.runners.torch_training import prepare_torch, torch_provenance
from harness.runs.alignment import model_alignment
from harness.runs.evaluation import DECODED, Evaluation
from harness.runs.trace import EvaluationTask

Array = npt.NDArray[Any]
Tokens = Sequence[int]


class OracleInference:
    """See `harness.runners.protocol.Answerer`. Gives what has an exact value: logits, and greedy continuations."""

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        assert setting.tokenizer is not None, "every run of inference has a tokenizer"
        self._device = prepare_torch(case, setting)
        self._config, self._asked = case.model, case.inference_section
        self._weights = {
            name: torch.from_numpy(np.array(w, np.float64)).to(self._device) for name, w in weights.items()
        }
        self._initial = dict(weights)
        tokenizer = AutoTokenizer.from_pretrained(
            str(setting.tokenizer), local_files_only=True, trust_remote_code=False
        )
        positions = case.model.max_position_embeddings
        self._adapter = LogitsLM(self.logits, tokenizer, positions, self._asked.batch_size)

    def evaluate(self, task: EvaluationTask, documents: Sequence[Any]) -> Iterable[Likelihoods]:
        return evaluate(self._adapter, task, documents)

    def logits(self, rows: Sequence[Tokens]) -> list[Array]:
        """[S, V] of each row, float64; padded on the right, where nothing looks."""
        width = max(map(len, rows))
        tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self._device)
        with torch.no_grad():
            found = logits(self._config, self._weights, tokens).cpu().numpy()
        return [one[: len(row)] for one, row in zip(found, rows, strict=True)]

    def answers(self, evaluation: Evaluation) -> dict[str, Array]:
        left = {f"logits.{n}": np.ascontiguousarray(one) for n, one in enumerate(self.logits(evaluation.rows))}
        for n, prompt in enumerate(evaluation.prompts):
            tokens, steps = list(prompt), []
            for _ in range(self._asked.max_new_tokens):
                steps.append(self.logits([tokens])[0][-1])
                tokens.append(int(np.argmax(steps[-1])))
            left[f"{GREEDY}.{n}"] = np.array(tokens[len(prompt) :], np.int32)
            left[f"{GREEDY}_logits.{n}"] = np.stack(steps)
        # One at a time: the logits of a large vocabulary take much memory in float64.
        for n, given in enumerate(evaluation.given or ()):
            whole = self.logits([[*given.prompt, *given.then]])[0]
            left[f"{DECODED}.{n}"] = np.ascontiguousarray(whole[len(given.prompt) - 1 :])
        return left

    def parameters(self) -> dict[str, Array]:
        """The weights as they came; float64 holds each of them exactly."""
        return {name: tensor.cpu().numpy().astype(self._initial[name].dtype) for name, tensor in self._weights.items()}

    def alignment(self) -> dict[str, Any]:
        return model_alignment(
            self._config.to_hf(), {name: tuple(tensor.shape) for name, tensor in self._weights.items()}
        )

    def provenance(self) -> dict[str, Any]:
        return {**torch_provenance(self._device), "dtype": "float64", "lm_eval": LM_EVAL}
