"""Draws the inputs of a case once, for both sides: initial weights, token batches, and a record of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save, save_file

from harness.base.digest import digest_tensors
from harness.base.errors import InputError
from harness.base.whole_files import whole_file
from harness.cases.case import Case, Checkpoint
from harness.cases.task import TaskName
from harness.corpus.batches import Batches, draw_batches
from harness.corpus.documents import check_digest, source_path
from harness.corpus.held_out import draw_evaluation
from harness.runs.inputs import BATCHES, WEIGHTS, Inputs, seeded
from qwen3_model.configuration_qwen3 import parameter_shapes
from qwen3_model.weights import WeightsError, load_safetensors

# Further inputs of a task's runs, besides weights and batches; each is drawn into the directory of the inputs.
DRAWN_IN_ADDITION: Mapping[TaskName, tuple[Callable[[Case, Path], None], ...]] = {
    "pretrain": (),
    "inference": (draw_evaluation,),
}


def draw_weights(case: Case) -> dict[str, npt.NDArray[np.float32]]:
    """Initial weights, float32, read from the case's checkpoint if it has one. Otherwise each tensor is drawn from a
    generator of its own, seeded by the case's seed and the tensor's name.

    Raises:
        InputError: the checkpoint cannot be read, or belongs to another model.
    """
    if case.checkpoint is not None:
        return _checkpoint(case, case.checkpoint)
    return {name: _draw(case, name, shape) for name, shape in parameter_shapes(case.model)}


def _checkpoint(case: Case, weights: Checkpoint) -> dict[str, npt.NDArray[np.float32]]:
    directory, shapes = source_path("checkpoint", weights.path), dict(parameter_shapes(case.model))
    try:
        tensors = load_safetensors(directory)
    except WeightsError as error:
        raise InputError(str(error)) from None
    if case.model.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)  # some files store the embedding twice
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := sorted(name for name in {*shapes, *found} if shapes.get(name) != found.get(name)):
        raise InputError(f"{directory} is not a checkpoint of the case's model: {', '.join(wrong[:5])} do not match.")
    check_digest(weights.sha256, digest_tensors(tensors), f"The checkpoint {directory}")
    return {name: tensors[name].astype(np.float32) for name in shapes}


def _draw(case: Case, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    normal = seeded(f"{case.initialization.seed}/{name}").standard_normal(shape)
    if len(shape) == 1:
        return (1.0 + case.initialization.norm_std * normal).astype(np.float32)
    return (case.model.initializer_range * normal).astype(np.float32)


def batch_tensors(batches: Batches) -> dict[str, npt.NDArray[Any]]:
    """The tensors that a run reads: tokens int32 [steps, B, S + 1], loss_mask uint8 [steps, B, S]."""
    return {"tokens": batches.tokens, "loss_mask": batches.loss_mask}


def write_batches(tensors: dict[str, npt.NDArray[Any]], path: Path, *, overwrite: bool) -> None:
    """Writes batches as one safetensors file, complete or not at all.

    Raises:
        InputError: the file exists and `overwrite` is not set, or it cannot be written.
    """
    with whole_file(path, overwrite=overwrite) as file:
        file.write(save(tensors))


def draw_inputs(case: Case, directory: Path, batches: Batches | None = None) -> Inputs:
    """Draws and writes the inputs of a case; `batches` are the case's batches if already drawn.

    Raises:
        InputError: the corpus or the tokenizer cannot be used.
    """
    batches, weights = batches or draw_batches(case), draw_weights(case)
    tensors = batch_tensors(batches)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / WEIGHTS)
    save_file(tensors, directory / BATCHES)
    for draw in DRAWN_IN_ADDITION[case.task.name]:
        draw(case, directory)
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
