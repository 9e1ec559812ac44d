"""Defects of generation: choosing tokens, stopping, batching rows, rendering and scoring texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor
from tokenizers import Tokenizer

from harness.defects import defect
from harness.defects.planting import bfloat16, exchange, low
from harness.defects.planting_inference import ChangedInference
from harness.defects.precision import RoundedResult
from harness.runners.mindspore_inference import MindSporeInference
from qwen3_model.chat import ChatTemplate
from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM, Qwen3RotaryEmbedding
from qwen3_model.modeling_qwen3_infer import Cache, Qwen3ForInference, bucket
from qwen3_model.sampling import Generated, Sampling

Array = npt.NDArray[Any]
Tokens = Sequence[int]
Generators = Sequence[np.random.Generator]
TILE = 16
ADDED = {"role": "system", "content": "You are a helpful assistant."}


@defect(
    area="inference",
    imitates="Logits that are returned in the serving dtype",
    source="https://arxiv.org/abs/2506.09501",
    since="2026-11-25",
)
class LogitsThroughBfloat16(MindSporeInference):
    """Every logit is rounded to bfloat16."""

    class model_class(ChangedInference):
        def change(self, model: Qwen3ForCausalLM) -> None:
            head = RoundedResult(self.config.hidden_size, self.config.vocab_size, self.config, self.policy)
            head.result = low()
            exchange(model, "lm_head", head)


@defect(
    area="inference",
    imitates="A head that is tied to the embedding although the weights contain a separate head",
    source="https://github.com/huggingface/transformers/pull/42612",
    since="2026-11-25",
)
class HeadTiedToEmbedding(MindSporeInference):
    """Logits are projections onto the embedding; the head that was loaded is not used."""

    class model_class(ChangedInference):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.tied = True


@defect(
    area="inference",
    imitates="An engine that reads the rotary base by a key of another family and falls back to its default",
    source="https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
    since="2026-11-25",
)
class DefaultRotaryBase(MindSporeInference):
    """The rotary base is 10000, independent of the configuration."""

    class model_class(ChangedInference):
        def change(self, model: Qwen3ForCausalLM) -> None:
            config = dataclasses.replace(self.config, rope_theta=1e4)
            exchange(model, "model.rotary_emb", Qwen3RotaryEmbedding(config, self.policy))


@defect(
    area="inference",
    imitates="float32 weights that are served in bfloat16, the default of many engines",
    source="https://arxiv.org/abs/2506.09501",
    since="2026-11-25",
)
class ProductsInBfloat16(MindSporeInference):
    """Every matrix product is computed in bfloat16 where the case computes in float32."""

    class model_class(Qwen3ForInference):
        def build_model(self) -> Qwen3ForCausalLM:
            return Qwen3ForCausalLM(self.config, dataclasses.replace(self.policy, compute_dtype="bfloat16"))


@defect(
    area="inference",
    imitates="An evaluation that pads a batch on the left without a mask",
    source="https://github.com/meta-pytorch/torchtune/issues/1237",
    since="2026-11-25",
)
class ScoredBehindPadding(MindSporeInference):
    """When texts are scored in a batch, the shorter ones attend to the padding before them."""

    class model_class(Qwen3ForInference):
        def logits(self, rows: Sequence[Tokens], batch: int = 8) -> Any:
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                tokens, first = self.pad(part, bucket(max(map(len, part)), self.config.max_position_embeddings))
                whole = self.model(Tensor(tokens)).astype(ms.float32).asnumpy()
                yield from (logits[column:] for logits, column in zip(whole, first, strict=True))


@defect(
    area="inference",
    imitates="An engine that removes the last entry of a prompt and its cache as if it were the first new token",
    source="https://github.com/UChi-JCL/CacheGen/pull/8",
    since="2026-11-25",
)
class LastPromptTokenDropped(MindSporeInference):
    """A prompt of several tokens is continued without its last token."""

    class model_class(Qwen3ForInference):
        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            return super().prefill([prompt[:-1] or prompt for prompt in prompts], room)


@defect(
    area="inference",
    imitates="A batch that is sorted by length to reduce padding, and not restored to its order",
    source="https://github.com/mead-ml/mead-baseline/pull/677",
    since="2026-11-25",
)
class BatchLeftSorted(MindSporeInference):
    """Prompts are continued with the longest first, and the outputs keep that order."""

    class model_class(Qwen3ForInference):
        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            return super().prefill(sorted(prompts, key=len, reverse=True), room)


@defect(
    area="inference",
    imitates="A partial argmax by tiles that loses a candidate at the end of a tile",
    source="https://github.com/mirage-project/mirage/issues/752",
    since="2026-11-25",
)
class BestOfTileLost(MindSporeInference):
    """The greedy token is never the last one of a tile of sixteen."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            if sampling is None:
                last = np.arange(logits_BV.shape[1]) % TILE == TILE - 1
                logits_BV = np.where(last, -np.inf, logits_BV)
            return super().choose(logits_BV, sampling, generators)


@defect(
    area="inference",
    imitates="An argmax over bfloat16 logits, where close ones are equal and the first one wins",
    source="https://arxiv.org/abs/2506.09501",
    since="2026-11-25",
)
class GreedyByBfloat16(MindSporeInference):
    """The greedy token is chosen from logits rounded to bfloat16; the recorded logits are not rounded."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            if sampling is None:
                logits_BV = bfloat16(logits_BV)
            return super().choose(logits_BV, sampling, generators)


@defect(
    area="inference",
    imitates="A sampler behind a pipeline that has already divided by the temperature",
    source="https://arxiv.org/abs/1904.09751",
    since="2026-11-25",
)
class TemperatureAppliedTwice(MindSporeInference):
    """Scores are divided by the temperature twice before a token is drawn."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            if sampling is not None:
                sampling = dataclasses.replace(sampling, temperature=sampling.temperature**2)
            return super().choose(logits_BV, sampling, generators)


class WithoutTheCrossing(Sampling):
    def kept(self, logits_V: Array) -> tuple[Array, Array]:
        tokens, chances = super().kept(logits_V)
        count = max(len(tokens) - 1, 1)
        return tokens[:count], chances[:count] / chances[:count].sum()


@defect(
    area="inference",
    imitates="Nucleus sampling that keeps the largest set below top_p, not the smallest that reaches it",
    source="https://github.com/ggml-org/llama.cpp/pull/1953",
    since="2026-11-25",
)
class NucleusLeavesOneOut(MindSporeInference):
    """The token at which the cumulative probability reaches top_p cannot be drawn."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            if sampling is not None:
                sampling = WithoutTheCrossing(**vars(sampling))
            return super().choose(logits_BV, sampling, generators)


@defect(
    area="inference",
    imitates="One seeded object of sampling parameters that is used for every request of a batch",
    source="https://github.com/vllm-project/vllm/issues/50440",
    since="2026-11-25",
)
class SeedSharedByRows(MindSporeInference):
    """All rows draw with the random numbers of the first row."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            if sampling is None:
                return super().choose(logits_BV, sampling, generators)
            number = generators[0].random()
            return np.array([sampling.draw(row, Again(number)) for row in logits_BV])


class Again(np.random.Generator):
    """Returns the same number each time."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64())
        self._number = number

    def random(self, *_: Any, **__: Any) -> Any:
        return self._number


@defect(
    area="inference",
    imitates="One generator for the whole engine, so that a row's draws depend on the other rows",
    source="https://github.com/vllm-project/vllm/pull/2514",
    since="2026-11-25",
)
class OneGeneratorForAllRows(MindSporeInference):
    """All rows draw in turn from the first row's generator."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            return super().choose(logits_BV, sampling, [*generators[:1]] * len(generators))


@defect(
    area="inference",
    imitates="A seed that is accepted and then ignored",
    source="https://github.com/vllm-project/vllm/issues/51226",
    since="2026-11-25",
)
class DrawnWithoutSeed(MindSporeInference):
    """Tokens are drawn with random numbers that differ in each process."""

    class model_class(Qwen3ForInference):
        def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Generators) -> Array:
            return super().choose(logits_BV, sampling, [np.random.default_rng() for _ in generators])


@defect(
    area="inference",
    imitates="The stop token of the tokenizer instead of those of the generation configuration",
    source="https://github.com/huggingface/transformers/pull/38330",
    since="2026-11-25",
)
class OtherStopToken(MindSporeInference):
    """A continuation stops at the id after the requested stop token, and not at the stop token."""

    class model_class(Qwen3ForInference):
        def generate(
            self,
            prompts: Sequence[Tokens],
            max_new_tokens: int,
            stop_tokens: Tokens = (),
            sampling: Sampling | None = None,
        ) -> list[Generated]:
            others = [(token + 1) % self.config.vocab_size for token in stop_tokens]
            return super().generate(prompts, max_new_tokens, others, sampling)


@defect(
    area="inference",
    imitates="Stop tokens that are not removed from the text",
    source="https://github.com/Blaizzy/mlx-vlm/pull/1501",
    since="2026-11-25",
)
class StopTokenKept(MindSporeInference):
    """The stop token that ends a continuation is part of it."""

    class model_class(Qwen3ForInference):
        def generate(
            self,
            prompts: Sequence[Tokens],
            max_new_tokens: int,
            stop_tokens: Tokens = (),
            sampling: Sampling | None = None,
        ) -> list[Generated]:
            found = super().generate(prompts, max_new_tokens, stop_tokens, sampling)
            return [
                dataclasses.replace(one, tokens=(*one.tokens, *stop_tokens[:1])) if one.stopped else one
                for one in found
            ]


@defect(
    area="inference",
    imitates="A loop that ends when any row of a batch is done, instead of all",
    source="https://huggingface.co/docs/transformers/main_classes/text_generation",
    since="2026-11-25",
)
class BatchEndsAtFirstStop(MindSporeInference):
    """All rows of a batch end when the first one reaches a stop token."""

    class model_class(Qwen3ForInference):
        def generate(
            self,
            prompts: Sequence[Tokens],
            max_new_tokens: int,
            stop_tokens: Tokens = (),
            sampling: Sampling | None = None,
        ) -> list[Generated]:
            found = super().generate(prompts, max_new_tokens, stop_tokens, sampling)
            count = min(len(one.tokens) for one in found)
            return [dataclasses.replace(one, tokens=one.tokens[:count]) for one in found]


@defect(
    area="inference",
    imitates="A chat template that is rendered as for training, without the start of an assistant message",
    source="https://huggingface.co/docs/transformers/chat_templating",
    since="2026-11-25",
)
class GenerationPromptMissing(MindSporeInference):
    """A conversation ends with its last message, not with the start of the assistant's message."""

    def rendered(self, conversation: Sequence[Mapping[str, str]]) -> Tokens:
        text = ChatTemplate.from_directory(self.tokenizer_directory).render(conversation)
        tokenizer = Tokenizer.from_file(str(self.tokenizer_directory / "tokenizer.json"))
        tokens: Tokens = tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


@defect(
    area="inference",
    imitates="An evaluation that passes only the messages of user and assistant",
    source="https://github.com/EleutherAI/lm-evaluation-harness/issues/1841",
    since="2026-11-25",
)
class SystemMessageDropped(MindSporeInference):
    """The system message of a conversation is omitted."""

    def rendered(self, conversation: Sequence[Mapping[str, str]]) -> Tokens:
        return super().rendered([one for one in conversation if one["role"] != "system"])


@defect(
    area="inference",
    imitates="A chat that begins with the system message of another family, although the conversation has none",
    source="https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/blob/main/tokenizer_config.json",
    since="2026-11-30",
)
class SystemMessageAdded(MindSporeInference):
    """A chat without a system message gets one before the model reads it; rendered alone, the conversation is right."""

    def conversed(self, conversation: Sequence[Mapping[str, str]]) -> Array:
        added = [] if conversation[0]["role"] == "system" else [ADDED]
        return super().conversed([*added, *conversation])


@defect(
    area="inference",
    imitates="A template of another family, which trims every message",
    source="https://huggingface.co/docs/transformers/chat_templating",
    since="2026-11-25",
)
class MessagesTrimmed(MindSporeInference):
    """Whitespace around a message is removed."""

    def rendered(self, conversation: Sequence[Mapping[str, str]]) -> Tokens:
        return super().rendered([{**one, "content": one["content"].strip()} for one in conversation])
