"""Draws the inputs of a case once, for both sides.

Takes a case, writes initial weights and token batches, and gives the record of what they are.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save, save_file

from harness.case import Case
from harness.corpus.batches import Batches, draw_batches
from harness.digest import digest_tensors
from harness.files import whole_file
from harness.inputs import BATCHES, WEIGHTS, Inputs
from qwen3_model.configuration_qwen3 import Qwen3Config


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


def batch_tensors(batches: Batches) -> dict[str, npt.NDArray[Any]]:
    """The tensors that a run reads: tokens int32 [steps, B, S + 1], loss_mask uint8 [steps, B, S]."""
    return {"tokens": batches.tokens, "loss_mask": batches.loss_mask}


def write_batches(tensors: dict[str, npt.NDArray[Any]], path: Path, *, overwrite: bool) -> None:
    """Writes batches as one safetensors file, whole or not at all.

    Raises:
        InputError: the file exists and `overwrite` is not set, or it cannot be written.
    """
    with whole_file(path, overwrite=overwrite) as file:
        file.write(save(tensors))


def draw_inputs(case: Case, directory: Path) -> Inputs:
    """Draws and writes both files of a case.

    Raises:
        InputError: the corpus or tokenizer cannot be used.
    """
    batches, weights = draw_batches(case), draw_weights(case)
    tensors = batch_tensors(batches)
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
