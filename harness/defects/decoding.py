"""Defects of prefill, cache and decode: results with the cache differ from those without it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, ops

from harness.defects import defect
from harness.defects.attention import Tiled
from harness.defects.norms import KeyUnnormed, QueryUnnormed
from harness.defects.planting import exchange, layers
from harness.defects.planting_inference import ChangedDecode, decoding, set_epsilon
from harness.runners.mindspore_inference import MindSporeInference
from qwen3_model.modeling_qwen3 import LOWEST, Qwen3ForCausalLM, Qwen3RotaryEmbedding
from qwen3_model.modeling_qwen3_infer import Cache, Decode, Prefill, Qwen3ForInference

Array = npt.NDArray[Any]
Tokens = Sequence[int]
WINDOW = 32


class ColumnBefore(Decode):
    def placed(self, here: Tensor, x_BK1H: Tensor, kept_BKCH: Tensor) -> Tensor:
        shape, before = kept_BKCH.shape, ops.cat((here[:, :, 1:], here[:, :, :1]), 2)
        return ops.select(ops.broadcast_to(before, shape), ops.broadcast_to(x_BK1H, shape), kept_BKCH)


@defect(
    area="inference",
    imitates="A cache position that is derived from the cache's length one step before",
    source="https://github.com/huggingface/transformers/issues/36151",
    since="2026-11-25",
)
class CacheWrittenOneColumnOff(MindSporeInference):
    """Decode writes keys and values one column too early, over those of the previous token."""

    class model_class(Qwen3ForInference):
        def build_decode(self) -> Decode:
            return ColumnBefore(self.model)


@defect(
    area="inference",
    imitates="A cache offset that is not advanced when the first token is decoded",
    source="https://github.com/skyzh/tiny-llm/pull/46",
    since="2026-11-25",
)
class PositionNotAdvanced(MindSporeInference):
    """Decode gives the newest token the position of the previous token."""

    class model_class(Qwen3ForInference):
        def positions(self, columns: Array, first: Array) -> Array:
            return super().positions(columns - int(decoding(columns)), first)


@defect(
    area="inference",
    imitates="Positions counted by the length of the input, which is one token with a cache",
    source="https://github.com/Blaizzy/mlx-vlm/issues/1983",
    since="2026-11-25",
)
class RotaryFromZeroInDecode(MindSporeInference):
    """Decode rotates every newest token as if it were the first."""

    class model_class(Qwen3ForInference):
        def positions(self, columns: Array, first: Array) -> Array:
            found = super().positions(columns, first)
            return np.zeros_like(found) if decoding(columns) else found


@defect(
    area="inference",
    imitates="A batch of padded prompts without an attention mask",
    source="https://github.com/turboderp-org/exllamav2/issues/606",
    since="2026-11-25",
)
class LeftPaddingUnmasked(MindSporeInference):
    """Prompts attend to the padding before them."""

    class model_class(Qwen3ForInference):
        def mask(self, queries: Array, keys: int, first: Array) -> Array:
            return super().mask(queries, keys, np.zeros_like(first))


@defect(
    area="inference",
    imitates="A padding mask that is applied in the first step only",
    source="https://github.com/OpenNMT/OpenNMT-py/pull/2532",
    since="2026-11-25",
)
class PaddingSeenInDecode(MindSporeInference):
    """In decode every row attends to the padding before its prompt; the prompt itself does not."""

    class model_class(Qwen3ForInference):
        def mask(self, queries: Array, keys: int, first: Array) -> Array:
            return super().mask(queries, keys, np.zeros_like(first) if decoding(queries) else first)


@defect(
    area="inference",
    imitates="Position ids that all rows of a batch share, although their padding differs",
    source="https://github.com/unslothai/unsloth/pull/3795",
    since="2026-11-25",
)
class PromptPositionsCountPadding(MindSporeInference):
    """Positions of a prompt count its padding, those of its continuation do not; only distances matter, so counting
    padding in both would change nothing."""

    class model_class(Qwen3ForInference):
        def positions(self, columns: Array, first: Array) -> Array:
            return super().positions(columns, first if decoding(columns) else np.zeros_like(first))


class KeptRoundedPrefill(Prefill):
    """Keys and values are rounded to `dtype` for the cache; the prompt's own attention uses them unrounded."""

    dtype = ms.bfloat16

    def widened(self, x_BKSH: Tensor) -> Tensor:
        B, K, S, H = x_BKSH.shape
        rounded = ops.cast(ops.cast(x_BKSH, self.dtype), ms.float32)
        if self.capacity == S:
            return rounded
        return ops.cat((rounded, ops.zeros((B, K, self.capacity - S, H), ms.float32)), 2)


class KeptRoundedDecode(Decode):
    dtype = ms.bfloat16

    def placed(self, here: Tensor, x_BK1H: Tensor, kept_BKCH: Tensor) -> Tensor:
        shape, rounded = kept_BKCH.shape, ops.cast(ops.cast(x_BK1H, self.dtype), ms.float32)
        return ops.select(ops.broadcast_to(here, shape), ops.broadcast_to(rounded, shape), kept_BKCH)


@defect(
    area="inference",
    imitates="A cache in the serving dtype, independent of the model's compute dtype",
    source="https://docs.vllm.ai/en/latest/features/quantization/quantized_kvcache.html",
    since="2026-11-25",
)
class CacheBfloat16(MindSporeInference):
    """The cache holds bfloat16 where the case computes in float32."""

    class model_class(Qwen3ForInference):
        def build_prefill(self, capacity: int) -> Prefill:
            return KeptRoundedPrefill(self.model, capacity)

        def build_decode(self) -> Decode:
            return KeptRoundedDecode(self.model)


class KeptHalfPrefill(KeptRoundedPrefill):
    dtype = ms.float16


class KeptHalfDecode(KeptRoundedDecode):
    dtype = ms.float16


@defect(
    area="inference",
    imitates="A cache allocated in float16, the default of many inference engines",
    source="https://docs.vllm.ai/en/latest/features/quantization/quantized_kvcache.html",
    since="2026-11-25",
)
class CacheFloat16(MindSporeInference):
    """The cache holds float16 where the case computes in float32."""

    class model_class(Qwen3ForInference):
        def build_prefill(self, capacity: int) -> Prefill:
            return KeptHalfPrefill(self.model, capacity)

        def build_decode(self) -> Decode:
            return KeptHalfDecode(self.model)


@defect(
    area="inference",
    imitates="Layers without their index, so that all of them write to one entry of the cache",
    source="https://huggingface.co/docs/transformers/cache_explanation",
    since="2026-11-25",
)
class LayersShareOneCache(MindSporeInference):
    """Every layer continues with the cached keys and values of the last layer."""

    class model_class(Qwen3ForInference):
        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            logits, cache = super().prefill(prompts, room)
            return logits, of_last_layer(cache)

        def decode(self, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
            logits, after = super().decode(tokens, cache)
            return logits, of_last_layer(after)


def of_last_layer(cache: Cache) -> Cache:
    return dataclasses.replace(cache, kept=cache.kept[-2:] * (len(cache.kept) // 2))


@defect(
    area="inference",
    imitates="Batch indices that two parts of an engine interpret differently",
    source="https://github.com/OpenNMT/CTranslate2/issues/1425",
    since="2026-11-25",
)
class CacheRowsMixed(MindSporeInference):
    """After the prompts each row continues with the keys and values of the previous row."""

    class model_class(Qwen3ForInference):
        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            logits, cache = super().prefill(prompts, room)
            kept = tuple(Tensor(np.roll(one.asnumpy(), 1, axis=0)) for one in cache.kept)
            return logits, dataclasses.replace(cache, kept=kept)


@defect(
    area="inference",
    imitates="A pool of caches that still holds the keys and values of a finished conversation",
    source="https://github.com/ggml-org/llama.cpp/issues/27148",
    since="2026-11-25",
)
class CacheOfAnEarlierBatch(MindSporeInference):
    """A batch continues with the keys and values of the first batch of its size, if there was one."""

    class model_class(Qwen3ForInference):
        @functools.cached_property
        def pool(self) -> dict[tuple[int, int], tuple[Tensor, ...]]:
            return {}

        def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
            logits, cache = super().prefill(prompts, room)
            kept = self.pool.setdefault((len(prompts), cache.capacity), cache.kept)
            return logits, dataclasses.replace(cache, kept=kept)


@defect(
    area="inference",
    imitates="A causal mask whose diagonal is aligned for a cache that already holds a token",
    source="https://github.com/Dao-AILab/flash-attention#21-change-behavior-of-causal-flag",
    since="2026-11-25",
)
class PrefillSeesNextToken(MindSporeInference):
    """Every token of a prompt except the last also attends to the next one; scoring without a cache is right."""

    class model_class(Qwen3ForInference):
        def mask(self, queries: Array, keys: int, first: Array) -> Array:
            return super().mask(queries if decoding(queries) else queries + 1, keys, first)


@defect(
    area="inference",
    imitates="A mask for the length of the cache before the newest token was added",
    source="https://huggingface.co/docs/transformers/cache_explanation",
    since="2026-11-25",
)
class NewestKeyHidden(MindSporeInference):
    """In decode the newest token attends to all earlier tokens, but not to itself."""

    class model_class(Qwen3ForInference):
        def mask(self, queries: Array, keys: int, first: Array) -> Array:
            found = super().mask(queries, keys, first)
            if decoding(queries):
                found[..., queries] = LOWEST
            return found


@defect(
    area="inference",
    imitates="sliding_window is applied to the cache although use_sliding_window is false",
    source="https://github.com/huggingface/transformers/issues/38002",
    since="2026-11-25",
)
class SlidingWindowInDecode(MindSporeInference):
    """In decode the newest token attends to the last 32 columns only."""

    class model_class(Qwen3ForInference):
        def mask(self, queries: Array, keys: int, first: Array) -> Array:
            far = np.maximum(first, queries[0] - WINDOW + 1)
            return super().mask(queries, keys, far if decoding(queries) else first)


@defect(
    area="inference",
    imitates="Keys and values tiled for grouped queries, only in the decode kernel",
    source="https://github.com/onnx/onnx/pull/7274",
    since="2026-11-25",
)
class HeadsTiledInDecode(MindSporeInference):
    """In decode query heads use the key heads in turn, not in consecutive groups."""

    class model_class(ChangedDecode):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend = Tiled(self.config, self.policy)


class ScaledScoresInDecode(ChangedDecode):
    """`factor` is the scale that is used, as a multiple of the right one."""

    factor: float

    def change(self, model: Qwen3ForCausalLM) -> None:
        for _, layer in layers(model):
            layer.self_attn.attend.scaling *= self.factor


@defect(
    area="inference",
    imitates="A decode kernel whose scale is taken from a head width that is padded for the hardware",
    source="https://arxiv.org/abs/1706.03762",
    since="2026-11-25",
    size=0.01,
)
class ScaleOnePercentInDecode(MindSporeInference):
    """In decode scores are 1 % too large in every layer."""

    class model_class(ScaledScoresInDecode):
        factor = 1.01


@defect(
    area="inference",
    imitates="A decode kernel whose scale was written with three digits",
    source="https://arxiv.org/abs/1706.03762",
    since="2026-11-25",
    size=0.001,
)
class ScaleOnePerMilleInDecode(MindSporeInference):
    """In decode scores are 0.1 % too large in every layer."""

    class model_class(ScaledScoresInDecode):
        factor = 1.001


@defect(
    area="inference",
    imitates="A fused norm of the inference engine with its own default epsilon",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    since="2026-11-25",
)
class NormEpsilonInDecode(MindSporeInference):
    """In decode every norm has the epsilon 1e-5 where the case has 1e-6."""

    class model_class(ChangedDecode):
        def change(self, model: Qwen3ForCausalLM) -> None:
            set_epsilon(model, 1e-5)


@defect(
    area="inference",
    imitates="Qwen2's attention copied to Qwen3 in a separate implementation of decode",
    source="https://arxiv.org/abs/2505.09388",
    since="2026-11-25",
)
class KeyNormMissingInDecode(MindSporeInference):
    """In decode the k norm of one layer does nothing, so the cache mixes normed and unnormed keys."""

    class model_class(ChangedDecode):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.1.self_attn", KeyUnnormed(self.config, self.policy))


@defect(
    area="inference",
    imitates="Query-key normalization whose query half is missing in decode",
    source="https://arxiv.org/abs/2010.04245",
    since="2026-11-25",
)
class QueryNormMissingInDecode(MindSporeInference):
    """In decode the q norms of all layers do nothing."""

    class model_class(ChangedDecode):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for place, _ in layers(model):
                exchange(model, f"{place}.self_attn", QueryUnnormed(self.config, self.policy))


@defect(
    area="inference",
    imitates="Rotary tables kept in the dtype of the model's weights, where large angles lose their last digits",
    source="https://github.com/EleutherAI/gpt-neox/issues/1003",
    since="2026-11-25",
)
class RotaryTablesBfloat16InDecode(MindSporeInference):
    """In decode the cos and sin tables are rounded to bfloat16."""

    class model_class(ChangedDecode):
        def change(self, model: Qwen3ForCausalLM) -> None:
            tables = Qwen3RotaryEmbedding(self.config, dataclasses.replace(self.policy, rotary_dtype="bfloat16"))
            exchange(model, "model.rotary_emb", tables)
