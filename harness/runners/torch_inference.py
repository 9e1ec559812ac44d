"""The reference that is asked: Hugging Face's Qwen3 with its own `generate`, and lm-eval's own adapter for it."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from harness.cases.case import Case
from harness.runners.hugging_face import cache_of, config_of, rendered, transformers
from harness.runners.inference_worker import TEMPERATURE, TOP_K, TOP_P, answers, uniforms
from harness.runners.lm_evaluation import LM_EVAL, evaluate
from harness.runners.protocol import Likelihoods, Setting, Tensors
from harness.runners.torch_reference import build_model, precision
from harness.runners.torch_training import prepare_torch, torch_provenance
from harness.runs.alignment import model_alignment
from harness.runs.evaluation import Evaluation
from harness.runs.trace import EvaluationTask

Array = npt.NDArray[Any]
Tokens = Sequence[int]


class TorchInference:
    """See `harness.runners.protocol.Answerer`."""

    attention = "eager"

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        assert setting.tokenizer is not None, "every run of inference has a tokenizer"
        self._device = prepare_torch(case, setting)
        self._case, self._asked, self._setting = case, case.inference_section, setting
        self.model = build_model(case, weights, self.attention, self._device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(
            str(setting.tokenizer), local_files_only=True, trust_remote_code=False
        )

    @functools.cached_property
    def adapter(self) -> HFLM:
        """lm-eval's own."""
        return HFLM(
            pretrained=self.model, tokenizer=self.tokenizer, batch_size=self._asked.batch_size, device=str(self._device)
        )

    def evaluate(self, task: EvaluationTask, documents: Sequence[Any]) -> Iterable[Likelihoods]:
        with precision(self._case, self._device):
            yield from list(evaluate(self.adapter, task, documents))

    def answers(self, evaluation: Evaluation) -> dict[str, Array]:
        with torch.no_grad(), precision(self._case, self._device):
            return answers(self, evaluation, self._asked)

    def logits(self, rows: Sequence[Tokens]) -> list[Array]:
        return [
            self.model(input_ids=self._tensor([row]), use_cache=False).logits[0].float().cpu().numpy() for row in rows
        ]

    def cached_logits(self, rows: Sequence[Tokens]) -> list[Array]:
        cache, found = cache_of(self.model), []
        tokens = self._tensor(rows)
        for position in range(tokens.shape[1]):
            output = self.model(input_ids=tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
            found.append(output.logits[:, 0].float())
        return list(torch.stack(found, 1).cpu().numpy())

    def next_logits(self, prompts: Sequence[Tokens]) -> list[Array]:
        return list(self._generated(prompts, 1, []).logits[0].float().cpu().numpy())

    def decoded(self, prompts: Sequence[Tokens], then: Sequence[Tokens]) -> list[Array]:
        """With the positions that `generate` gives padded rows."""
        tokens, seen = self._padded(prompts)
        given = self._tensor(then)
        cache, found = cache_of(self.model), []
        positions = (seen.cumsum(-1) - 1).clamp(min=0)
        for step in range(given.shape[1] + 1):
            output = self.model(
                input_ids=tokens,
                attention_mask=seen,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            found.append(output.logits[:, -1].float())
            if step < given.shape[1]:
                tokens, positions = given[:, step : step + 1], positions[:, -1:] + 1
                seen = torch.cat((seen, torch.ones_like(tokens)), 1)
        return list(torch.stack(found, 1).cpu().numpy())

    def conversed(self, conversation: Sequence[Mapping[str, str]]) -> Array:
        return self.next_logits([self.rendered(conversation)])[0]

    @contextlib.contextmanager
    def reading(self) -> Iterator[list[Tokens]]:
        """Looks at every call of the model itself; one with a cache that holds something continues a prompt."""
        fed: list[Tokens] = []

        def read(_: Any, __: Any, given: Mapping[str, Any]) -> None:
            tokens, cache, seen = given["input_ids"], given.get("past_key_values"), given.get("attention_mask")
            if cache is None or cache.get_seq_length() == 0:
                seen = torch.ones_like(tokens) if seen is None else seen
                fed.extend(row[kept.bool()].tolist() for row, kept in zip(tokens, seen, strict=True))

        handle = self.model.register_forward_pre_hook(read, with_kwargs=True)
        try:
            yield fed
        finally:
            handle.remove()

    def continued(self, prompts: Sequence[Tokens], count: int, stop: Tokens) -> list[Tokens]:
        width = max(map(len, prompts))
        found = self._generated(prompts, count, stop).sequences[:, width:].tolist()
        return [row[: next((n for n, token in enumerate(row) if token in stop), len(row))] for row in found]

    def sampled(self, prompts: Sequence[Tokens], count: int) -> list[Tokens]:
        """One token at a time, since `generate` draws by PyTorch's own numbers: what may be drawn, and with which
        chance, is by Hugging Face's warpers."""
        rows, numbers = [list(prompt) for prompt in prompts], [uniforms(n) for n in range(len(prompts))]
        warpers = (TemperatureLogitsWarper(TEMPERATURE), TopKLogitsWarper(TOP_K), TopPLogitsWarper(TOP_P))
        for _ in range(count):
            for row, draw in zip(rows, numbers, strict=True):
                scores = self.model(input_ids=self._tensor([row]), use_cache=False).logits[:, -1].double()
                for warper in warpers:
                    scores = warper(None, scores)
                row.append(drawn(torch.softmax(scores[0], -1).cpu().numpy(), draw.random()))
        return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]

    def rendered(self, conversation: Sequence[Mapping[str, str]]) -> Tokens:
        return rendered(self.tokenizer, conversation)

    def _tensor(self, rows: Sequence[Tokens]) -> torch.Tensor:
        return torch.tensor(rows, device=self._device)

    def _padded(self, prompts: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts padded on the left, and which tokens are theirs."""
        width = max(map(len, prompts))
        tokens = self._tensor([[0] * (width - len(one)) + list(one) for one in prompts])
        return tokens, self._tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])

    def _generated(self, prompts: Sequence[Tokens], count: int, stop: Tokens) -> Any:
        tokens, seen = self._padded(prompts)
        return self.model.generate(
            tokens,
            attention_mask=seen,
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=list(stop) or None,
            pad_token_id=stop[0] if stop else 0,
            return_dict_in_generate=True,
            output_logits=True,
        )

    def parameters(self) -> dict[str, Array]:
        """Copies, by Hugging Face name; a tied head is the embedding."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.model.named_parameters()}

    def alignment(self) -> dict[str, Any]:
        return model_alignment(
            config_of(self.model), {name: tensor.shape for name, tensor in self.parameters().items()}
        )

    def provenance(self) -> dict[str, Any]:
        return {
            **torch_provenance(self._device),
            "transformers": transformers.__version__,
            "attention": self.attention,
            "lm_eval": LM_EVAL,
        }


def drawn(chances_V: Array, number: float) -> int:
    """The token at which the sum of the chances, the largest first, exceeds a number in [0, 1)."""
    order = np.argsort(-chances_V, kind="stable")
    at = int(np.searchsorted(np.cumsum(chances_V[order]), number, side="right"))
    return int(order[min(at, int((chances_V > 0).sum()) - 1)])


class FusedAttentionInference(TorchInference):
    """With PyTorch's fused attention: as correct, with other roundings."""

    attention = "sdpa"
