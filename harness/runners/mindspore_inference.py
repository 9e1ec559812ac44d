"""The subject of inference: `qwen3_model` on MindSpore. `model_class` is what a variant overrides."""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from harness.cases.case import Case
from harness.runners.inference_worker import SEED, TEMPERATURE, TOP_K, TOP_P, answers
from harness.runners.mindspore_subject import prepare_process
from harness.runners.profile import recorded
from harness.runners.protocol import Likelihoods, Setting, Tensors
from harness.runs.alignment import model_alignment
from harness.runs.evaluation import Evaluation
from harness.runs.trace import EvaluationTask
from qwen3_model.chat import ChatTemplate
from qwen3_model.modeling_qwen3_infer import Qwen3ForInference
from qwen3_model.sampling import Sampling

Array = npt.NDArray[Any]
Tokens = Sequence[int]


class MindSporeInference:
    """See `harness.runners.protocol.Answerer`."""

    model_class: type[Qwen3ForInference] = Qwen3ForInference

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        assert setting.tokenizer is not None, "every run of inference has a tokenizer"
        prepare_process(setting.device, setting.threads)
        self._case, self._asked, self._setting = case, case.inference_section, setting
        self.tokenizer_directory = setting.tokenizer
        self.model = self.build_model(case)
        self.model.load_weights(dict(weights))

    def build_model(self, case: Case) -> Qwen3ForInference:
        """What answers, with weights of its own."""
        return self.model_class(case.model, case.precision)

    @functools.cached_property
    def adapter(self) -> Any:
        """The model for lm-eval, which brings PyTorch into this process."""
        from transformers import AutoTokenizer

        from harness.runners.lm_evaluation import LogitsLM

        tokenizer = AutoTokenizer.from_pretrained(
            str(self.tokenizer_directory), local_files_only=True, trust_remote_code=False
        )
        positions = self._case.model.max_position_embeddings
        return LogitsLM(self.logits, tokenizer, positions, self._asked.batch_size)

    def evaluate(self, task: EvaluationTask, documents: Sequence[Any]) -> Iterable[Likelihoods]:
        from harness.runners.lm_evaluation import evaluate

        return evaluate(self.adapter, task, documents)

    def answers(self, evaluation: Evaluation) -> dict[str, Array]:
        return answers(self, evaluation, self._asked)

    def logits(self, rows: Sequence[Tokens]) -> list[Array]:
        return list(self.model.logits(rows))

    def cached_logits(self, rows: Sequence[Tokens]) -> list[Array]:
        return self.decoded([row[:1] for row in rows], [row[1:] for row in rows])

    def decoded(self, prompts: Sequence[Tokens], then: Sequence[Tokens]) -> list[Array]:
        tokens = np.array(then, np.int32)
        after, cache = self.model.prefill(prompts, room=tokens.shape[1])
        found = [after]
        for step in range(tokens.shape[1]):
            after, cache = self.model.decode(tokens[:, step], cache)
            found.append(after)
        return list(np.stack(found, 1))

    def conversed(self, conversation: Sequence[Mapping[str, str]]) -> Array:
        return self.next_logits([self.rendered(conversation)])[0]

    @contextlib.contextmanager
    def reading(self) -> Iterator[list[Tokens]]:
        """What the last token of a prompt may see, as the graph gets it."""
        fed: list[Tokens] = []

        def read(tokens_BS: Array, mask_B1SS: Array) -> None:
            fed.extend(row[seen == 0].tolist() for row, seen in zip(tokens_BS, mask_B1SS[:, 0, -1], strict=True))

        self.model.on_prefill = read
        try:
            yield fed
        finally:
            self.model.on_prefill = None

    def next_logits(self, prompts: Sequence[Tokens]) -> list[Array]:
        after, _ = self.model.prefill(prompts, room=1)
        return list(after)

    def continued(self, prompts: Sequence[Tokens], count: int, stop: Tokens) -> list[Tokens]:
        return [found.tokens for found in self.model.generate(prompts, count, stop_tokens=stop)]

    def sampled(self, prompts: Sequence[Tokens], count: int) -> list[Tokens]:
        sampling = Sampling(temperature=TEMPERATURE, top_k=TOP_K, top_p=TOP_P, seed=SEED)
        return [found.tokens for found in self.model.generate(prompts, count, sampling=sampling)]

    def rendered(self, conversation: Sequence[Mapping[str, str]]) -> Tokens:
        text = ChatTemplate.from_directory(self.tokenizer_directory).render(conversation, add_generation_prompt=True)
        tokenizer = Tokenizer.from_file(str(self.tokenizer_directory / "tokenizer.json"))
        tokens: Tokens = tokenizer.encode(text, add_special_tokens=False).ids
        return tokens

    def parameters(self) -> dict[str, Array]:
        """Copies, by Hugging Face name."""
        return {one.name: one.asnumpy().copy() for one in self.model.model.get_parameters()}

    def alignment(self) -> dict[str, Any]:
        shapes = {name: tensor.shape for name, tensor in self.parameters().items()}
        return model_alignment(self.model.config.to_hf(), shapes)

    def provenance(self) -> dict[str, Any]:
        emulated = self._setting.device == "CPU" and self._case.precision.compute_dtype == "bfloat16"
        return {
            "mindspore": ms.__version__,
            "device": self._setting.device,
            "mode": "GRAPH",
            "threads": self._setting.threads,
            "bfloat16": "rounding around float32 operators" if emulated else "native",
            **recorded(self._setting.device, os.environ),
        }
