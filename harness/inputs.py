"""The inputs of a case, drawn once and handed to both sides as files, by digest.

Takes a case, gives `weights.safetensors` (initial weights under Hugging Face's names) and `batches.safetensors`
(tokens and loss masks of every step), and the record of what they are.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from harness.case import Case
from harness.corpus.batches import draw_batches
from harness.digest import digest_tensors
from harness.errors import EvidenceError
from qwen3_model.configuration_qwen3 import Qwen3Config

WEIGHTS = "weights.safetensors"
BATCHES = "batches.safetensors"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What both sides are handed: digests of weights and batches, and where the tokens came from."""

    weights: str
    batches: str
    corpus: str
    corpus_sha256: str
    corpus_tokens: int
    tokenizer_sha256: str | None
    epochs: int
    parameters: int
    target_tokens: int


def parameter_shapes(config: Qwen3Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a Hugging Face Qwen3 checkpoint, in the order of the forward pass.

    Stated here and not asked of the subject, so that a parameter that the subject lacks is noticed.
    """
    width, head = config.hidden_size, config.head_dim
    query, key = config.num_attention_heads * head, config.num_key_value_heads * head
    yield "model.embed_tokens.weight", (config.vocab_size, width)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (width,)
        yield f"{prefix}.self_attn.q_proj.weight", (query, width)
        yield f"{prefix}.self_attn.k_proj.weight", (key, width)
        yield f"{prefix}.self_attn.v_proj.weight", (key, width)
        yield f"{prefix}.self_attn.q_norm.weight", (head,)
        yield f"{prefix}.self_attn.k_norm.weight", (head,)
        yield f"{prefix}.self_attn.o_proj.weight", (width, query)
        yield f"{prefix}.post_attention_layernorm.weight", (width,)
        yield f"{prefix}.mlp.gate_proj.weight", (config.intermediate_size, width)
        yield f"{prefix}.mlp.up_proj.weight", (config.intermediate_size, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, config.intermediate_size)
    yield "model.norm.weight", (width,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, width)


def draw_weights(case: Case) -> dict[str, npt.NDArray[np.float32]]:
    """Initial weights, float32. Each tensor has a generator of its own, seeded by case seed and name.

    `RandomState` and not `Generator`: NumPy froze the stream of the former for good (NEP 19).
    """
    return {name: _draw(case, name, shape) for name, shape in parameter_shapes(case.model)}


def _draw(case: Case, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    words = hashlib.sha256(f"{case.initialization.seed}/{name}".encode()).digest()
    normal = np.random.RandomState(np.frombuffer(words, dtype="<u4")).standard_normal(shape)
    if len(shape) == 1:
        return (1.0 + case.initialization.norm_std * normal).astype(np.float32)
    return (case.model.initializer_range * normal).astype(np.float32)


def draw_inputs(case: Case, directory: Path) -> Inputs:
    """Draws and writes both files of a case.

    Raises:
        InputError: the corpus or tokenizer cannot be used.
    """
    batches, weights = draw_batches(case), draw_weights(case)
    tensors: dict[str, npt.NDArray[Any]] = {"tokens": batches.tokens, "loss_mask": batches.loss_mask}
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / WEIGHTS)
    save_file(tensors, directory / BATCHES)
    return Inputs(
        weights=digest_tensors(weights),
        batches=digest_tensors(tensors),
        corpus=batches.description,
        corpus_sha256=batches.corpus_sha256,
        corpus_tokens=batches.corpus_tokens,
        tokenizer_sha256=batches.tokenizer_sha256,
        epochs=batches.epochs,
        parameters=sum(tensor.size for tensor in weights.values()),
        target_tokens=int(batches.loss_mask.sum()),
    )


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file.

    Raises:
        EvidenceError: the file is missing, cut or of another format.
    """
    try:
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EvidenceError(f"The tensors {path} cannot be read: {error}.") from None
    return tensors
