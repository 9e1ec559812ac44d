"""Defects of decode that show only after prompts of some lengths, in a full cache, or where one row is alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, ops

from harness.defects import defect
from harness.defects.planting import exchange
from harness.defects.planting_inference import ChangedDecodeAlone, decoding, set_epsilon
from harness.runners.mindspore_inference import MindSporeInference
from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM, Qwen3RotaryEmbedding
from qwen3_model.modeling_qwen3_infer import Cache, Decode, Qwen3ForInference

Array = npt.NDArray[Any]
Tokens = Sequence[int]
BUCKET = 32


@defect(
    area="inference",
    imitates="A cache offset that is not advanced between a prompt and the first token that is decoded",
    source="https://github.com/skyzh/tiny-llm/pull/46",
    since="2026-11-30",
)
class FirstDecodedPositionOff(MindSporeInference):
    """The first token after a prompt that is alone gets the position of the prompt's last token; later ones are right.

    A batch of several rows is decoded rightly.
    """

    class model_class(Qwen3ForInference):
        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            logits, cache = super().prefill(prompts, room)
            self.width = cache.filled
            return logits, cache

        def positions(self, columns: Array, first: Array) -> Array:
            after_prompt = decoding(columns) and len(first) == 1 and columns[0] == self.width
            return super().positions(columns - int(after_prompt), first)


@defect(
    area="inference",
    imitates="A table of buckets that is searched for the first entry that is not below a length, from the wrong side",
    source="https://docs.python.org/3/library/bisect.html",
    since="2026-11-30",
)
class BucketBelowAtBorder(MindSporeInference):
    """A prompt of exactly 32 tokens gets the bucket of 16, so the model reads only its second half."""

    class model_class(Qwen3ForInference):
        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            cut = [prompt[-BUCKET // 2 :] if len(prompt) == BUCKET else prompt for prompt in prompts]
            return super().prefill(cut, room)


@defect(
    area="inference",
    imitates="A padding mask that is built only where more than one token is padded",
    source="https://github.com/turboderp-org/exllamav2/issues/606",
    since="2026-11-30",
)
class SinglePaddingSeen(MindSporeInference):
    """A prompt that is one token shorter than its bucket attends to the padding before it; others do not."""

    class model_class(Qwen3ForInference):
        def mask(self, queries: Array, keys: int, first: Array) -> Array:
            return super().mask(queries, keys, np.where(first == 1, 0, first))


class LastColumnWraps(Decode):
    def placed(self, here: Tensor, x_BK1H: Tensor, kept_BKCH: Tensor) -> Tensor:
        without_last = ops.cat((here[:, :, :-1], ops.zeros_like(here[:, :, -1:])), 2)
        return super().placed(without_last, x_BK1H, kept_BKCH)


@defect(
    area="inference",
    imitates="A ring buffer of keys and values that wraps one column too early",
    source="https://huggingface.co/docs/transformers/cache_explanation",
    since="2026-11-30",
)
class LastCacheColumnWraps(MindSporeInference):
    """The token of the cache's last column is written over the first column; a cache that is not full is right."""

    class model_class(Qwen3ForInference):
        def build_decode(self) -> Decode:
            return LastColumnWraps(self.model)


@defect(
    area="inference",
    imitates="A fused norm for one row with its own default epsilon",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    since="2026-11-30",
)
class NormEpsilonInDecodeAlone(MindSporeInference):
    """Where one row is decoded alone, every norm has the epsilon 1e-5 where the case has 1e-6."""

    class model_class(ChangedDecodeAlone):
        def change(self, model: Qwen3ForCausalLM) -> None:
            set_epsilon(model, 1e-5)


@defect(
    area="inference",
    imitates="A decode kernel for one row that falls back to the default rotary base of another family",
    source="https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
    since="2026-11-30",
)
class RotaryBaseInDecodeAlone(MindSporeInference):
    """Where one row is decoded alone, the rotary base is 10000, independent of the configuration."""

    class model_class(ChangedDecodeAlone):
        def change(self, model: Qwen3ForCausalLM) -> None:
            config = dataclasses.replace(self.config, rope_theta=1e4)
            exchange(model, "model.rotary_emb", Qwen3RotaryEmbedding(config, self.policy))
