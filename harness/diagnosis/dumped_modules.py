"""The names of modules in a dump of msprobe, and the places that their inputs and outputs are.

One table for Hugging Face's names, which `qwen3_model` has too, and for those of mindformers. mindformers computes
query, key and value in one projection, and gate and up in another: these have no place of their own. Its tensors have
the position before the row.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Taken = Literal["output", "input"]


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """A place of a layer, or outside of the layers, and the module whose output or first input it is, in both."""

    place: str
    hugging_face: str | None
    mindformers: str | None
    taken: Taken = "output"


# Source: transformers 4.57.1, modeling_qwen3.py; mindformers 1.9.0, parallel_core/training_graph. The output of
# `self_attn` is in both that of its projection: the residual is added after it.
OUTSIDE: tuple[ModuleRow, ...] = (
    ModuleRow(place="model.embed_tokens", hugging_face="embed_tokens", mindformers="word_embeddings"),
    ModuleRow(place="model.rotary_emb", hugging_face="rotary_emb", mindformers=None),
    ModuleRow(place="model.norm", hugging_face="norm", mindformers="final_layernorm"),
    ModuleRow(place="lm_head", hugging_face="lm_head", mindformers="output_layer"),
)
OF_A_LAYER: tuple[ModuleRow, ...] = (
    ModuleRow(place="input_layernorm", hugging_face="input_layernorm", mindformers="input_layernorm"),
    ModuleRow(place="self_attn.q_proj", hugging_face="self_attn.q_proj", mindformers=None),
    ModuleRow(place="self_attn.k_proj", hugging_face="self_attn.k_proj", mindformers=None),
    ModuleRow(place="self_attn.v_proj", hugging_face="self_attn.v_proj", mindformers=None),
    ModuleRow(place="self_attn.q_norm", hugging_face="self_attn.q_norm", mindformers="self_attention.q_layernorm"),
    ModuleRow(place="self_attn.k_norm", hugging_face="self_attn.k_norm", mindformers="self_attention.k_layernorm"),
    ModuleRow(
        place="self_attn.mix", hugging_face="self_attn.o_proj", mindformers="self_attention.linear_proj", taken="input"
    ),
    ModuleRow(place="self_attn.o_proj", hugging_face="self_attn.o_proj", mindformers="self_attention.linear_proj"),
    ModuleRow(place="self_attn", hugging_face="self_attn", mindformers="self_attention"),
    ModuleRow(
        place="residual",
        hugging_face="post_attention_layernorm",
        mindformers="pre_mlp_layernorm",
        taken="input",
    ),
    ModuleRow(
        place="post_attention_layernorm",
        hugging_face="post_attention_layernorm",
        mindformers="pre_mlp_layernorm",
    ),
    ModuleRow(place="mlp.gate_proj", hugging_face="mlp.gate_proj", mindformers=None),
    ModuleRow(place="mlp.up_proj", hugging_face="mlp.up_proj", mindformers=None),
    ModuleRow(place="mlp.act", hugging_face="mlp.down_proj", mindformers="mlp.linear_fc2", taken="input"),
    ModuleRow(place="mlp.down_proj", hugging_face="mlp.down_proj", mindformers="mlp.linear_fc2"),
    ModuleRow(place="mlp", hugging_face="mlp", mindformers="mlp"),
    ModuleRow(place="", hugging_face="", mindformers=""),
)
# A value that is added to others past its module: what comes back through the module is a part of its gradient.
PARTIAL = ("residual",)
LAYER = re.compile(r"(?:.*\.)?layers\.(\d{1,9})(?:\.(.+))?")


def rows_of(module: str) -> Iterator[tuple[str, Taken]]:
    """The places that a module gives, by the path of the module from any root; nothing for another module."""
    if found := LAYER.fullmatch(module):
        layer, own = f"model.layers.{int(found[1])}", found[2] or ""
        for row in OF_A_LAYER:
            if own in (row.hugging_face, row.mindformers):
                yield f"{layer}.{row.place}".rstrip("."), row.taken
        return
    own = module.rpartition(".")[2]
    for row in OUTSIDE:
        if own in (row.hugging_face, row.mindformers):
            yield row.place, row.taken


def module_of(place: str) -> tuple[str, Taken] | None:
    """The module of a place by Hugging Face's name, and what of it the place is; None where no module has it."""
    if found := LAYER.fullmatch(place):
        for row in OF_A_LAYER:
            if row.place == (found[2] or "") and row.hugging_face is not None:
                return f"model.layers.{found[1]}.{row.hugging_face}".rstrip("."), row.taken
        return None
    outside = next((row for row in OUTSIDE if row.place == place), None)
    return (place, outside.taken) if outside is not None else None
