"""Draws the inputs of a case once, for both sides: initial weights, token batches, and a record of them."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from harness.base.digest import digest_array, digest_json, digest_tensors
from harness.base.errors import InputError
from harness.base.records import write_json
from harness.base.whole_files import OVERWRITE, whole_file
from harness.cases.case import Case
from harness.cases.sections import Checkpoint
from harness.cases.task import TaskName
from harness.corpus.batches import Batches, draw_batches
from harness.corpus.conversations import draw_chat_tokenizer
from harness.corpus.documents import check_digest, source_path
from harness.corpus.held_out import draw_evaluation
from harness.runs.drawing import normal
from harness.runs.inputs import BATCHES, VOCABULARY, WEIGHTS, WEIGHTS_DIGESTS, Inputs, write_in_files, write_tensors
from qwen3_model.configuration_qwen3 import parameter_shapes
from qwen3_model.weights import WeightsError, load_safetensors, shape_problems

LAYER = re.compile(r"model\.layers\.(\d+)\.")
BY_TOKEN = EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SHOWN = 5  # problems of a checkpoint
# Further inputs of a task's runs, besides weights and batches; each is drawn into the directory of the inputs.
DRAWN_IN_ADDITION: Mapping[TaskName, tuple[Callable[[Case, Path], None], ...]] = {
    "pretrain": (),
    "finetune": (draw_chat_tokenizer,),
    "inference": (draw_evaluation,),
}


def draw_weights(case: Case, kept: Sequence[int] | None = None) -> dict[str, npt.NDArray[np.float32]]:
    """Initial weights, float32, read from the case's checkpoint if it has one. Otherwise each tensor is drawn from a
    generator of its own, seeded by the case's seed and the tensor's name.

    Args:
        kept: of a cut vocabulary, the ids that are kept, in their new order.

    Raises:
        InputError: the checkpoint cannot be read, or belongs to another model.
    """
    return dict(_each_weight(case, kept))


def _each_weight(case: Case, kept: Sequence[int] | None) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    if case.checkpoint is not None:
        yield from _checkpoint(case, case.checkpoint, kept).items()
        return
    for name, shape in parameter_shapes(case.model):
        yield name, _draw(case, name, shape)


def _checkpoint(case: Case, weights: Checkpoint, kept: Sequence[int] | None) -> dict[str, npt.NDArray[np.float32]]:
    directory, shapes = source_path("checkpoint", weights.path), dict(parameter_shapes(case.model))
    try:
        tensors = load_safetensors(directory)
    except WeightsError as error:
        raise InputError(str(error)) from None
    head = tensors.pop(HEAD, None) if case.model.tie_word_embeddings else None
    if head is not None and not np.array_equal(head, tensors.get(EMBEDDING, head)):
        # some files store the embedding twice
        raise InputError(
            f"{directory} has a {HEAD} that is not its {EMBEDDING}, although its config.json states "
            "tie_word_embeddings: true. Remove the tensor, or state false."
        )
    if weights.cut:
        tensors = _cut(tensors, case.model.num_hidden_layers, kept)
    check_shapes(directory, shapes, {name: tensor.shape for name, tensor in tensors.items()})
    if wrong := sorted(name for name in shapes if not np.isfinite(tensors[name]).all()):
        raise InputError(f"{directory} has numbers that are not finite in {', '.join(wrong[:SHOWN])}.")
    begun_with = {name: tensors[name].astype(np.float32, copy=False) for name in shapes}
    # of what the runs begin with: that is what a case names, whatever dtype the files have
    check_digest(weights.sha256, digest_tensors(begun_with), f"The checkpoint {directory}")
    return begun_with


def check_shapes(directory: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Checks names and shapes of the tensors of a checkpoint against those of a model.

    Raises:
        InputError: they differ; the first differences.
    """
    problems = shape_problems(wanted, found)
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:SHOWN])
        raise InputError(f"{directory} is not a checkpoint of the case's model:{listed}{more}")


def _cut(
    tensors: Mapping[str, npt.NDArray[Any]], layers: int, kept: Sequence[int] | None
) -> dict[str, npt.NDArray[Any]]:
    """The tensors of the first layers, with the rows of the kept ids of embedding and head."""
    names = [name for name in tensors if not (layer := LAYER.match(name)) or int(layer[1]) < layers]
    return {
        name: tensors[name] if kept is None or name not in BY_TOKEN else _rows(name, tensors[name], kept)
        for name in names
    }


def _rows(name: str, tensor: npt.NDArray[Any], kept: Sequence[int]) -> npt.NDArray[Any]:
    if max(kept) >= len(tensor):
        raise InputError(f"The corpus has the id {max(kept)}, and {name} of the checkpoint has {len(tensor):,} rows.")
    rows: npt.NDArray[Any] = tensor[list(kept)]
    return rows


def _draw(case: Case, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    label = f"{case.initialization.seed}/{name}"
    if len(shape) == 1:
        return normal(label, shape, case.initialization.norm_std, mean=1.0)
    return normal(label, shape, case.model.initializer_range)


def write_weights(case: Case, directory: Path, kept: Sequence[int] | None = None) -> dict[str, str]:
    """Draws the initial weights into `weights.safetensors`, or into numbered files of that name if they are large, and
    holds no more than one file of them; the digest of each. `kept`: see `draw_weights`.

    Raises:
        InputError: the checkpoint cannot be read, or belongs to another model.
    """
    sizes = {name: math.prod(shape) * np.dtype(np.float32).itemsize for name, shape in parameter_shapes(case.model)}
    digests = dict[str, str]()

    def digested() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        for name, tensor in _each_weight(case, kept):
            digests[name] = digest_array(tensor)
            yield name, tensor

    write_in_files(digested(), sizes.values(), directory / WEIGHTS)
    return digests


def batch_tensors(batches: Batches) -> dict[str, npt.NDArray[Any]]:
    """The tensors that a run reads: tokens int32 [steps, B, S + 1], loss_mask uint8 [steps, B, S]."""
    return {"tokens": batches.tokens, "loss_mask": batches.loss_mask}


def write_batches(tensors: dict[str, npt.NDArray[Any]], path: Path, *, overwrite: bool) -> None:
    """Writes batches as one safetensors file, complete or not at all.

    Raises:
        InputError: the file exists and `overwrite` is not set, or it cannot be written.
    """
    with whole_file(path, overwrite=overwrite, replace=OVERWRITE) as file:
        file.write(save(tensors))


def draw_inputs(case: Case, directory: Path, batches: Batches | None = None) -> Inputs:
    """Draws and writes the inputs of a case; `batches` are the case's batches if already drawn.

    Raises:
        InputError: the corpus or the tokenizer cannot be used.
    """
    batches = batches or draw_batches(case)
    tensors = batch_tensors(batches)
    directory.mkdir(parents=True, exist_ok=True)
    weights = write_weights(case, directory, batches.kept)
    if case.evidence == "sketches":
        write_json(directory / WEIGHTS_DIGESTS, weights)
    write_tensors(tensors, directory / BATCHES)
    if batches.kept is not None:
        write_json(directory / VOCABULARY, batches.kept)
    for draw in DRAWN_IN_ADDITION[case.task.name]:
        draw(case, directory)
    return Inputs(
        weights=digest_json(weights),
        batches=digest_tensors(tensors),
        corpus=batches.description,
        corpus_sha256=batches.corpus_sha256,
        corpus_tokens=batches.corpus_tokens,
        tokenizer_sha256=batches.tokenizer_sha256,
        epochs=batches.epochs,
        parameters=sum(math.prod(shape) for _, shape in parameter_shapes(case.model)),
        target_tokens=int(batches.loss_mask.sum()),
    )
