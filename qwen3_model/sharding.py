"""Which part of every tensor a rank of a layout holds, and the whole tensors assembled from the parts, bit for bit.

Parts keep Hugging Face's names, so a part's name identifies its tensor. No framework is imported: any machine can read
a checkpoint of one layout and write it for another.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.parallel_config import ParallelConfig, Part
from qwen3_model.weights import Tensors, WeightsError

Array = npt.NDArray[Any]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
BY_ROWS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")  # output channels: heads, or channels of the MLP
BY_COLUMNS = ("o_proj", "down_proj")  # input channels


def parts_of(
    names: Iterable[str], config: Qwen3Config, layout: ParallelConfig, rank: int
) -> Iterator[tuple[str, Part]]:
    """The tensors that a rank holds, each with its part, in the order of the names.

    A tied head has no tensor of its own. If it is on another stage than the embedding, that stage holds a copy.
    """
    where, last = layout.coordinates(rank), layout.pipeline_stage - 1
    layers = layout.layers(config.num_hidden_layers)[where.stage]
    for name in names:
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        if layer:
            held = int(layer[1]) in layers
        elif name == EMBEDDING:
            held = where.stage == 0 or (config.tie_word_embeddings and where.stage == last)
        else:
            held = where.stage == last
        if held:
            yield name, _part(name, layout, where.shard)


def _part(name: str, layout: ParallelConfig, shard: int) -> Part:
    of = layout.model_parallel
    if name == EMBEDDING:
        return Part() if layout.vocab_emb_dp else Part(index=shard, of=of)
    module = name.split(".")[-2]
    if name == HEAD or module in BY_ROWS:
        return Part(index=shard, of=of)
    return Part(axis=1, index=shard, of=of) if module in BY_COLUMNS else Part()


def counts(name: str, config: Qwen3Config, layout: ParallelConfig, rank: int) -> bool:
    """Whether a rank is the one that counts for all that hold the same part of a tensor. Replicas count alike."""
    where = layout.coordinates(rank)
    if name == EMBEDDING and where.stage > 0:
        return False  # the copy of a tied head
    held = dict(parts_of([name], config, layout, rank))[name]
    return held.of > 1 or where.shard == 0


def take_parts(whole: Tensors, config: Qwen3Config, layout: ParallelConfig, rank: int) -> dict[str, Array]:
    """A rank's parts of whole tensors."""
    return {name: part.take(whole[name]) for name, part in parts_of(whole, config, layout, rank)}


def assemble(held: Mapping[int, Tensors], config: Qwen3Config, layout: ParallelConfig) -> dict[str, Array]:
    """The whole tensors, from the parts that each rank holds.

    Raises:
        WeightsError: lists each rank that is missing, holds other tensors than it should, or differs from another rank
            where both hold the same part.
    """
    problems: list[str] = [f"rank {rank}: missing" for rank in range(layout.world_size) if rank not in held]
    names = list(dict.fromkeys(name for tensors in held.values() for name in tensors))
    found: dict[str, dict[Part, tuple[int, Array]]] = {}
    for rank, tensors in sorted(held.items()):
        expected = dict(parts_of(names, config, layout, rank))
        problems += [f"rank {rank}: {name}: missing" for name in expected if name not in tensors]
        problems += [f"rank {rank}: {name}: unexpected on this rank" for name in tensors if name not in expected]
        for name, part in expected.items():
            if name not in tensors:
                continue
            other, tensor = found.setdefault(name, {}).setdefault(part, (rank, tensors[name]))
            if not _same(tensor, tensors[name]):
                problems.append(f"rank {rank}: {name}: differs from rank {other}'s copy")
    if problems:
        raise WeightsError(f"the parts of {layout.world_size} ranks", problems)
    return {name: _whole(parts) for name, parts in found.items()}


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _whole(parts: Mapping[Part, tuple[int, Array]]) -> Array:
    ordered = sorted(parts, key=lambda part: part.index)
    return np.concatenate([parts[part][1] for part in ordered], ordered[0].axis)
