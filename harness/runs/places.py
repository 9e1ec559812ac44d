"""The places of a training step, in the order of the forward pass: where two implementations can be compared.

A place is a tensor inside the step that every implementation has, independent of its operators, named by the Hugging
Face name of the module that computes it. Seven have no such module: the rotated query and key (`rotary_emb.q`,
`rotary_emb.k`), the attention probabilities (`softmax`), the mixed values before the output projection (`mix`), the
residual stream between attention and MLP (`residual`), the input of `down_proj` (`mlp.act`), and the `loss`. The rotary
tables are one place, cosines over sines; they do not depend on the weights, so they have no gradient. The places are a
pure function of the configuration.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from qwen3_model.configuration_qwen3 import Qwen3Config

Direction = Literal["forward", "backward", "parameter"]
TOKENS, TABLES, LOSS, HEAD = "tokens", "model.rotary_emb", "loss", "lm_head"


@dataclass(frozen=True, kw_only=True)
class TapPoint:
    """One tensor of the step.

    `inputs` are the places that it is computed from, nearest first; `axes` names each axis and `shape` is its length,
    for rows [B, S]; `parameter` is the weight of its module. `gradient`: whether it depends on the weights.
    """

    name: str
    inputs: tuple[str, ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    parameter: str | None = None
    gradient: bool = True


def places(config: Qwen3Config, rows: int, length: int) -> tuple[TapPoint, ...]:
    """Every place of a step over `rows` rows of `length` tokens, each after its inputs.

    A tied head has no parameter here: the gradient of the shared weight is complete only at the embedding.
    """
    return tuple(_Step(config, rows, length).places())


@dataclass(frozen=True)
class _Step:
    config: Qwen3Config
    rows: int
    length: int

    def places(self) -> Iterator[TapPoint]:
        stream = "model.embed_tokens"
        yield self._hidden(stream, (), self.config.hidden_size, weighted=True)
        yield TapPoint(
            name=TABLES,
            inputs=(),
            axes=("table", "position", "channel"),
            shape=(2, self.length, self.config.head_dim),
            gradient=False,
        )
        for layer in range(self.config.num_hidden_layers):
            name = f"model.layers.{layer}"
            yield from self._attention(name, stream)
            yield from self._mlp(name)
            stream = name
        yield self._hidden("model.norm", (stream,), self.config.hidden_size, weighted=True)
        tied = self.config.tie_word_embeddings
        yield self._hidden(HEAD, ("model.norm",), self.config.vocab_size, weighted=not tied)
        yield TapPoint(name=LOSS, inputs=(HEAD,), axes=(), shape=())

    def _attention(self, layer: str, stream: str) -> Iterator[TapPoint]:
        config, name, norm = self.config, f"{layer}.self_attn", f"{layer}.input_layernorm"
        query, key = config.num_attention_heads, config.num_key_value_heads
        yield self._hidden(norm, (stream,), config.hidden_size, weighted=True)
        for part, heads in (("q", query), ("k", key), ("v", key)):
            yield self._hidden(f"{name}.{part}_proj", (norm,), heads * config.head_dim, weighted=True)
        for part, heads in (("q", query), ("k", key)):
            yield self._heads(f"{name}.{part}_norm", (f"{name}.{part}_proj",), heads)
        for part, heads in (("q", query), ("k", key)):
            yield self._rotated(f"{name}.rotary_emb.{part}", (f"{name}.{part}_norm", TABLES), heads)
        yield TapPoint(
            name=f"{name}.softmax",
            inputs=(f"{name}.rotary_emb.q", f"{name}.rotary_emb.k"),
            axes=("row", "head", "query position", "key position"),
            shape=(self.rows, query, self.length, self.length),
        )
        yield self._hidden(f"{name}.mix", (f"{name}.softmax", f"{name}.v_proj"), query * config.head_dim)
        yield self._hidden(f"{name}.o_proj", (f"{name}.mix",), config.hidden_size, weighted=True)
        yield self._hidden(name, (f"{name}.o_proj",), config.hidden_size)
        yield self._hidden(f"{layer}.residual", (name, stream), config.hidden_size)

    def _mlp(self, layer: str) -> Iterator[TapPoint]:
        config, name, norm = self.config, f"{layer}.mlp", f"{layer}.post_attention_layernorm"
        yield self._hidden(norm, (f"{layer}.residual",), config.hidden_size, weighted=True)
        for part in ("gate_proj", "up_proj"):
            yield self._hidden(f"{name}.{part}", (norm,), config.intermediate_size, weighted=True)
        yield self._hidden(f"{name}.act", (f"{name}.gate_proj", f"{name}.up_proj"), config.intermediate_size)
        yield self._hidden(f"{name}.down_proj", (f"{name}.act",), config.hidden_size, weighted=True)
        yield self._hidden(name, (f"{name}.down_proj",), config.hidden_size)
        yield self._hidden(layer, (name, f"{layer}.residual"), config.hidden_size)

    def _hidden(self, name: str, inputs: tuple[str, ...], width: int, *, weighted: bool = False) -> TapPoint:
        shape, parameter = (self.rows, self.length, width), f"{name}.weight" if weighted else None
        axes = ("row", "position", "channel")
        return TapPoint(name=name, inputs=inputs, axes=axes, shape=shape, parameter=parameter)

    def _heads(self, name: str, inputs: tuple[str, ...], heads: int) -> TapPoint:
        shape, axes = (self.rows, self.length, heads, self.config.head_dim), ("row", "position", "head", "channel")
        return TapPoint(name=name, inputs=inputs, axes=axes, shape=shape, parameter=f"{name}.weight")

    def _rotated(self, name: str, inputs: tuple[str, ...], heads: int) -> TapPoint:
        shape, axes = (self.rows, heads, self.length, self.config.head_dim), ("row", "head", "position", "channel")
        return TapPoint(name=name, inputs=inputs, axes=axes, shape=shape)
