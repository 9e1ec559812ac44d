"""Qwen3 for inference: prefill and decode with a key-value cache, with the cells used in training.

Prompts of a batch are padded on the left, so the newest token of every row is in the last column and all rows write to
the same cache column. Padding is masked, and positions count from a row's first token. Lengths and capacities are
rounded up to buckets, so MindSpore compiles one graph per bucket instead of one per length.

The cache is an input and an output of a graph. Cells keep no state, so generations are independent of each other.

Shape legend: that of `modeling_qwen3`; C capacity of the cache, L layers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.equal_cells import share_equal_cells
from qwen3_model.modeling_qwen3 import LOWEST, PlainAttention, Qwen3Attention, Qwen3ForCausalLM
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.sampling import Generated, Growing, Sampling, Tokens
from qwen3_model.weights import load_into, load_safetensors

SMALLEST_BUCKET = 16
Array = npt.NDArray[Any]


def rounded(length: int) -> int:
    """The next power of two, from `SMALLEST_BUCKET` on."""
    return max(SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def check_positions(length: int, limit: int) -> None:
    """Raises ValueError where more positions are needed than the model has."""
    if length > limit:
        raise ValueError(f"{length} positions are needed, and the model has {limit}")


def bucket(length: int, limit: int) -> int:
    """The padded length: the next power of two, at most the number of the model's positions.

    Raises:
        ValueError: more positions are needed than the model has.
    """
    check_positions(length, limit)
    return min(rounded(length), limit)


def columns_for(width: int, room: int, limit: int) -> int:
    """The capacity of a cache for prompts that are `width` wide with padding, and `room` more tokens.

    Padding takes columns, not positions: near the limit there are more columns than the model has positions.
    """
    return bucket(width + room, limit) if width + room <= limit else limit + rounded(room)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Keys and values [B, K, C, H] of each layer in turn; `filled` columns are written.

    `first` [B] is the column of each row's first token.
    """

    kept: tuple[Tensor, ...]
    first: npt.NDArray[np.int32]
    filled: int
    capacity: int


class CachedForward(nn.Cell):
    """What prefill and decode share: rotary tables by position, the end of a layer, and the head."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        super().__init__(auto_prefix=False)
        self.model = model
        # The fused attention does not support a mask that differs between rows.
        plain = PlainAttention(model.config, model.policy)
        own = [layer.self_attn.attend for layer in model.model.layers]
        self.attends = nn.CellList([cell if isinstance(cell, PlainAttention) else plain for cell in own])

    def rotary(self, positions_BS: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, 1, S, H] of each row's own positions."""
        tables = self.model.model.rotary_emb
        cos = tables.round(ops.gather(tables.cos, positions_BS, 0))
        sin = tables.round(ops.gather(tables.sin, positions_BS, 0))
        return ops.expand_dims(cos, 1), ops.expand_dims(sin, 1)

    def value(self, attention: Qwen3Attention, normed_BSD: Tensor) -> Tensor:
        """[B, K, S, H]."""
        return attention.swap(attention.split_heads(attention.v_proj(normed_BSD)))

    def layer_end(self, layer: nn.Cell, hidden_BSD: Tensor, mixed_BNSH: Tensor) -> Tensor:
        """The residual stream after a layer, from the attention output of its heads."""
        mixed_BSNH = layer.self_attn.swap(mixed_BNSH)
        attended = layer.self_attn.o_proj(ops.reshape(mixed_BSNH, (*hidden_BSD.shape[:2], -1)))
        hidden_BSD = layer.residual(hidden_BSD + layer.residual(attended))
        return layer.residual(hidden_BSD + layer.residual(layer.mlp(layer.post_attention_layernorm(hidden_BSD))))

    def head(self, hidden_BSD: Tensor) -> Tensor:
        """Logits of the last column [B, V], float32."""
        B, S, D = hidden_BSD.shape
        # A slice on a CPU takes as long as six products of numbers.
        last_BD = self.model.model.norm(ops.reshape(hidden_BSD, (B, D)) if S == 1 else hidden_BSD[:, -1])
        if self.model.tied:
            return ops.cast(self.model.project(last_BD, self.model.model.embed_tokens.weight), ms.float32)
        return ops.cast(self.model.lm_head(last_BD), ms.float32)


class Prefill(CachedForward):
    """Prompts [B, S] -> logits after their last token [B, V], and each layer's keys and values, padded to C columns."""

    def __init__(self, model: Qwen3ForCausalLM, capacity: int) -> None:
        super().__init__(model)
        self.capacity = capacity

    def construct(self, tokens_BS: Tensor, positions_BS: Tensor, mask_B1SS: Tensor) -> tuple[Tensor, ...]:
        inner = self.model.model
        cos, sin = self.rotary(positions_BS)
        hidden_BSD = inner.residual(inner.embed_tokens(tokens_BS))
        kept: tuple[Tensor, ...] = ()
        for index, layer in enumerate(inner.layers):
            normed_BSD = layer.input_layernorm(hidden_BSD)
            key, value = layer.self_attn.key(normed_BSD, cos, sin), self.value(layer.self_attn, normed_BSD)
            kept = (*kept, self.widened(key), self.widened(value))
            mixed = self.attends[index].masked(layer.self_attn.query(normed_BSD, cos, sin), key, value, mask_B1SS)
            hidden_BSD = self.layer_end(layer, hidden_BSD, mixed)
        return (self.head(hidden_BSD), *kept)

    def widened(self, x_BKSH: Tensor) -> Tensor:
        """[B, K, C, H], padded with zeros."""
        B, K, S, H = x_BKSH.shape
        if self.capacity == S:
            return x_BKSH
        return ops.cat((x_BKSH, ops.zeros((B, K, self.capacity - S, H), x_BKSH.dtype)), 2)


class Decode(CachedForward):
    """The newest token of each row [B, 1] and the cache -> logits after it [B, V], and the cache.

    `here` [1, 1, C, 1] is true at the column that is written; the mask [B, 1, 1, C] hides padding and later columns.
    """

    def construct(
        self, tokens_B1: Tensor, positions_B1: Tensor, here: Tensor, mask_B11C: Tensor, *kept: Tensor
    ) -> tuple[Tensor, ...]:
        inner = self.model.model
        cos, sin = self.rotary(positions_B1)
        hidden_B1D = inner.residual(inner.embed_tokens(tokens_B1))
        written: tuple[Tensor, ...] = ()
        for index, layer in enumerate(inner.layers):
            normed_B1D = layer.input_layernorm(hidden_B1D)
            key = self.placed(here, layer.self_attn.key(normed_B1D, cos, sin), kept[2 * index])
            value = self.placed(here, self.value(layer.self_attn, normed_B1D), kept[2 * index + 1])
            written = (*written, key, value)
            mixed = self.attends[index].masked(layer.self_attn.query(normed_B1D, cos, sin), key, value, mask_B11C)
            hidden_B1D = self.layer_end(layer, hidden_B1D, mixed)
        return (self.head(hidden_B1D), *written)

    def placed(self, here: Tensor, x_BK1H: Tensor, kept_BKCH: Tensor) -> Tensor:
        """The cached tensor with the newest column written."""
        # A select would read the whole cache several times. The column is the same in all layers: one node for all.
        column = ops.reshape(ops.argmax(ops.cast(here, ms.float32), 2), (1, 1, 1, 1))
        return ops.tensor_scatter_elements(kept_BKCH, ops.broadcast_to(column, x_BK1H.shape), x_BK1H, 2)


class OneShape(nn.Cell):
    """A cell that is always called with arguments of the same shapes and dtypes.

    In this phase MindSpore reuses the graph of the first call without checking the arguments and every inner cell; that
    check takes as long as the graph of a small model.
    """

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.phase = "increment"

    def construct(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        return self.cell(*arguments)


class Qwen3ForInference:
    """A model that continues prompts. The small methods are what a variant overrides."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy | None = None) -> None:
        self._enter_mode()
        self.config = config
        self.policy = policy or PrecisionPolicy()
        self.model = self.build_model()
        self.model.set_train(False)
        share_equal_cells(self.model)
        self._prefills: dict[int, Prefill] = {}
        self._decode = self.build_decode()
        self._decodes: dict[tuple[int, int], OneShape] = {}
        # Called with the tokens [B, S] and the mask [B, 1, S, S] that a prefill graph gets, before it runs.
        self.on_prefill: Callable[[Array, Array], None] | None = None

    @classmethod
    def from_directory(cls, directory: str | Path, policy: PrecisionPolicy | None = None) -> "Qwen3ForInference":
        """The model of a directory with `config.json` and safetensors, as Hugging Face saves it.

        Raises:
            Qwen3ConfigError: the configuration is not a supported Qwen3.
            WeightsError: weights are missing, unexpected or misshapen.
        """
        found = cls(Qwen3Config.from_hf(directory), policy)
        found.load_weights(load_safetensors(directory))
        return found

    def load_weights(self, tensors: dict[str, Array]) -> None:
        """Sets every parameter; see `load_into` for the errors."""
        load_into(self.model, tensors)

    def build_model(self) -> Qwen3ForCausalLM:
        """The cells that compute."""
        return Qwen3ForCausalLM(self.config, self.policy)

    def build_prefill(self, capacity: int) -> Prefill:
        """The prefill graph for one cache capacity."""
        return Prefill(self.model, capacity)

    def build_decode(self) -> Decode:
        """The decode graph, for one more token."""
        return Decode(self.model)

    def pad(self, prompts: Sequence[Tokens], width: int) -> tuple[Array, Array]:
        """Prompts on the right of [B, width], and the column of each one's first token [B]."""
        tokens = np.zeros((len(prompts), width), np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt) :] = prompt
        return tokens, np.array([width - len(prompt) for prompt in prompts], np.int32)

    def positions(self, columns: Array, first: Array) -> Array:
        """[B, S]: counted from each row's first token; padding before it is at 0."""
        return np.maximum(columns[None, :] - first[:, None], 0).astype(np.int32)

    def mask(self, queries: Array, keys: int, first: Array) -> Array:
        """[B, 1, S, keys]: 0 where a query's column may see a key's, the lowest float32 for the future and for padding.

        A padded query attends to itself only: a row with every score masked would have no largest score.
        """
        columns = np.arange(keys)[None, None, :]
        ahead = columns > queries[None, :, None]
        padding = (columns < first[:, None, None]) & (columns != queries[None, :, None])
        return np.where(ahead | padding, np.float32(LOWEST), np.float32(0.0))[:, None]

    def prefill(self, prompts: Sequence[Tokens], room: int) -> tuple[Array, Cache]:
        """The logits after each prompt [B, V], and a cache with room for `room` more tokens.

        Raises:
            ValueError: a prompt is empty or has a token outside the vocabulary, or prompt and room exceed the model's
                positions.
        """
        if not prompts or not all(prompts):
            raise ValueError("every prompt needs a token")
        limit = self.config.max_position_embeddings
        longest = max(map(len, prompts))
        check_positions(longest + room, limit)
        width = bucket(longest, limit)
        capacity = columns_for(width, room, limit)
        tokens, first = self.pad(prompts, width)
        columns = np.arange(width)
        if capacity not in self._prefills:
            self._prefills[capacity] = self.build_prefill(capacity)
        self._enter_mode()
        mask = self.mask(columns, width, first)
        if self.on_prefill is not None:
            self.on_prefill(tokens, mask)
        logits, *kept = self._prefills[capacity](
            self._checked(tokens), _tensor(self.positions(columns, first)), _tensor(mask)
        )
        return logits.asnumpy(), Cache(kept=tuple(kept), first=first, filled=width, capacity=capacity)

    def decode(self, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
        """The logits after one more token of each row [B, V], and the cache with it.

        Raises:
            ValueError: the cache is full, a row has used all positions, or a token is outside the vocabulary.
        """
        if cache.filled == cache.capacity:
            raise ValueError(f"the cache is full: {cache.capacity} columns")
        check_positions(cache.filled - int(cache.first.min()) + 1, self.config.max_position_embeddings)
        column = np.array([cache.filled])
        here = (np.arange(cache.capacity) == cache.filled)[None, None, :, None]
        shape = (len(cache.first), cache.capacity)
        if shape not in self._decodes:
            self._decodes[shape] = OneShape(self._decode)
        self._enter_mode()
        logits, *kept = self._decodes[shape](
            self._checked(np.asarray(tokens)[:, None]),
            _tensor(self.positions(column, cache.first)),
            _tensor(here),
            _tensor(self.mask(column, cache.capacity, cache.first)),
            *cache.kept,
        )
        after = Cache(kept=tuple(kept), first=cache.first, filled=cache.filled + 1, capacity=cache.capacity)
        return logits.asnumpy(), after

    def logits(self, rows: Sequence[Tokens], batch: int = 8) -> Iterator[Array]:
        """The logits at every position of each row [S, V], without a cache; `batch` rows are computed at a time.

        Rows are padded on the right, which no earlier token attends to.

        Raises:
            ValueError: a row has more tokens than the model has positions, or a token outside the vocabulary.
        """
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            width = bucket(max(map(len, part)), self.config.max_position_embeddings)
            tokens = np.zeros((len(part), width), np.int32)
            for row, found in enumerate(part):
                tokens[row, : len(found)] = found
            self._enter_mode()
            whole = self.model(self._checked(tokens)).astype(ms.float32).asnumpy()
            yield from (whole[row, : len(found)] for row, found in enumerate(part))

    def generate(
        self,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        stop_tokens: Tokens = (),
        sampling: Sampling | None = None,
    ) -> list[Generated]:
        """Continues each prompt, greedily or by sampling.

        Each row draws from its own generator, so a row's tokens do not depend on the other rows of the batch.
        """
        generators = [np.random.default_rng([sampling.seed, row]) for row in range(len(prompts))] if sampling else []
        rows = [Growing() for _ in prompts]
        logits, cache = self.prefill(prompts, max_new_tokens)
        for step in range(max_new_tokens):
            chosen = self.choose(logits, sampling, generators)
            for row, token, logits_V in zip(rows, chosen, logits, strict=True):
                row.take(int(token), logits_V, stop_tokens)
            if step + 1 == max_new_tokens or all(row.stopped for row in rows):
                break
            logits, cache = self.decode(chosen, cache)
        return [row.done() for row in rows]

    def choose(self, logits_BV: Array, sampling: Sampling | None, generators: Sequence[np.random.Generator]) -> Array:
        """The next token of each row [B]."""
        if sampling is None:
            return np.argmax(logits_BV, -1)
        return np.array([sampling.draw(row, one) for row, one in zip(logits_BV, generators, strict=True)])

    def _checked(self, tokens: Array) -> Tensor:
        """Tokens for a graph: on a CPU a gather gives zeros for a token outside the vocabulary, and no error."""
        if tokens.astype(np.uint64).max() >= self.config.vocab_size:  # a negative one is very large then
            raise ValueError(f"tokens must be from 0 to {self.config.vocab_size - 1}")
        return _tensor(tokens.astype(np.int32))

    def _enter_mode(self) -> None:
        # The mode belongs to the process, so other code may have changed it. Reading it is faster than setting it.
        if ms.get_context("mode") != ms.GRAPH_MODE:
            ms.set_context(mode=ms.GRAPH_MODE)


def _tensor(array: Array) -> Tensor:
    """The array's memory as a tensor, without a copy: a copy takes seven times as long."""
    return Tensor.from_numpy(np.ascontiguousarray(array))
