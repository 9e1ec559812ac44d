"""A model of mindformers' training graph in Hugging Face's words: where each tensor lies, and how it was built.

What is here reads a model that is handed in; it imports neither mindformers nor MindSpore.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
NORMS = ("RMSNorm", "FusedRMSNorm")
ACTIVATIONS = {"swiglu": "silu"}  # by Hugging Face's name of what the gate goes through


@dataclass(frozen=True, kw_only=True)
class FusedRows:
    """Where a Hugging Face tensor lies: in which parameter of mindformers', and in which rows of it, in order."""

    parameter: str
    rows: npt.NDArray[np.int64]


def fused_rows(model: Any, tensors: Mapping[str, Array]) -> Iterator[tuple[str, FusedRows]]:
    """The place of each tensor, as mindformers' own conversion has it.

    It converts from Hugging Face alone, and fuses whole rows: numbers of rows are converted in place of the weights.
    """
    ends = np.cumsum([len(tensor) for tensor in tensors.values()])
    numbers = dict(zip(tensors, np.split(np.arange(ends[-1])[:, None], ends[:-1]), strict=True))
    converted = {name: fused.ravel() for name, fused in model.convert_weight_dict(dict(numbers)).items()}
    for name, column in numbers.items():
        (parameter,) = (fused for fused, held in converted.items() if column[0, 0] in held)
        order = np.argsort(converted[parameter])
        yield (
            name,
            FusedRows(parameter=parameter, rows=order[np.searchsorted(converted[parameter][order], column[:, 0])]),
        )


def as_asked(built: Any, asked: float) -> float:
    """The number that was asked for where float32 makes of it what was built, else what was built."""
    number = np.float32(built)
    return asked if number == np.float32(asked) else float(number)


def built_config(gpt: Any) -> dict[str, Any]:
    """The fields of `config.json` by which a model of mindformers' was built."""
    config, attention = gpt.config, gpt.decoder.layers[0].self_attention
    eps = {cell.eps for _, cell in gpt.cells_and_names() if type(cell).__name__ in NORMS}
    return {
        "vocab_size": gpt.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_hidden_size,
        "num_hidden_layers": len(gpt.decoder.layers),
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.kv_num_heads,
        "head_dim": attention.head_dim,
        "rms_norm_eps": eps.pop() if len(eps) == 1 else sorted(eps),
        "rope_theta": rotary_base(gpt),
        "hidden_act": ACTIVATIONS.get(activation := gpt.decoder.layers[0].mlp.activation_type, activation),
        "tie_word_embeddings": gpt.share_embeddings_and_output_weights,
        "attention_bias": attention.linear_qkv.has_bias,
        "attention_dropout": attention.core_attention.attention_dropout,
    }


def rotary_base(gpt: Any) -> float:
    """The base that is stated where the frequencies are base^(-2i/H) of it, else the one that they are of."""
    stated, width = gpt.rotary_base, gpt.config.kv_channels
    frequencies = gpt.rotary_pos_emb.inv_freq.asnumpy().astype(np.float64)
    exponents = np.arange(0, width, 2) / width
    if frequencies.shape == exponents.shape and np.allclose(frequencies, stated**-exponents, rtol=1e-5, atol=0.0):
        return float(stated)
    return float(frequencies[-1] ** -(1 / exponents[-1]))
