"""Checkpoints of any layout: read whole, and written for any other layout or for Hugging Face, bit for bit.

Each rank has one file with its parts of parameters and moments; the file states the model and the layout. No framework
is imported, so any machine can read and write checkpoints.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.parallel_config import Coordinates, ParallelConfig, Part
from qwen3_model.sharding import Array, assemble, parts_of
from qwen3_model.weights import Tensors, WeightsError, save_safetensors, write_safetensors

FORMAT = "qwen3-model-checkpoint-2"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in training after a step: whole parameters, and the moments `exp_avg` and `exp_avg_sq` of each."""

    config: Qwen3Config
    step: int
    parameters: Tensors
    moments: Mapping[str, Tensors]


def file_name(layout: ParallelConfig, rank: int) -> str:
    """The name of the file that a rank saves."""
    return (
        "checkpoint.safetensors"
        if layout.world_size == 1
        else f"checkpoint-{rank:05d}-of-{layout.world_size:05d}.safetensors"
    )


def save_part(path: Path, tensors: Tensors, config: Qwen3Config, layout: ParallelConfig, step: int) -> None:
    """Writes one rank's file, which replaces an older one at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"config": json.dumps(config.to_hf()), "layout": json.dumps(asdict(layout)), "step": str(step)}
    unfinished = path.with_suffix(".unfinished")
    write_safetensors(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
        unfinished,
        {"format": FORMAT, **about},
    )
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(path)


@dataclass(frozen=True, kw_only=True)
class SavedPart:
    """What one rank saved, with the model, layout and step that it belongs to."""

    tensors: Tensors
    config: Qwen3Config
    layout: ParallelConfig
    step: int


def load_part(path: Path) -> SavedPart:
    """One rank's file.

    Raises:
        WeightsError: the file is missing or has another format.
    """
    if not path.is_file():
        raise WeightsError(str(path), ["no such file"])
    try:
        return _read_part(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(str(path), [f"it cannot be read: {error}"]) from None


def _read_part(path: Path) -> SavedPart:
    with safe_open(path, framework="numpy") as file:
        about = file.metadata() or {}
        if about.get("format") != FORMAT:
            raise WeightsError(str(path), [f"format: expected {FORMAT}, got {about.get('format')}"])
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    layout = json.loads(about["layout"])
    return SavedPart(
        tensors=tensors,
        config=Qwen3Config.from_hf(json.loads(about["config"])),
        layout=ParallelConfig(**{**layout, "offset": tuple(layout["offset"])}),
        step=int(about["step"]),
    )


def read_checkpoint(directory: str | Path) -> Checkpoint:
    """The whole checkpoint, from the files of all ranks in a directory.

    Raises:
        WeightsError: a rank's file is missing, has another model, layout or step, or differs from another rank's where
            both hold the same part.
    """
    found = sorted(Path(directory).glob("checkpoint*.safetensors"))
    if not found:
        raise WeightsError(str(directory), ["no checkpoint there"])
    first = load_part(found[0])
    parts = {
        rank: load_part(Path(directory) / file_name(first.layout, rank)) for rank in range(first.layout.world_size)
    }
    about = (first.config, first.layout, first.step)
    others = [rank for rank, part in parts.items() if (part.config, part.layout, part.step) != about]
    if others or len(found) > len(parts):
        reasons = [f"rank {rank}: another model, layout or step than {found[0].name}" for rank in others]
        raise WeightsError(str(directory), reasons or [f"{len(found)} files for {len(parts)} ranks"])
    return Checkpoint(
        config=first.config,
        step=first.step,
        parameters=assemble({rank: _of(part, None) for rank, part in parts.items()}, first.config, first.layout),
        moments={
            kind: _whole_moments({rank: _of(part, kind) for rank, part in parts.items()}, first) for kind in MOMENTS
        },
    )


def write_checkpoint(checkpoint: Checkpoint, directory: str | Path, layout: ParallelConfig) -> list[Path]:
    """Writes a file for each rank of a layout; their paths."""
    config, paths = checkpoint.config, []
    for rank in range(layout.world_size):
        replica = layout.coordinates(rank).replica
        tensors: dict[str, Array] = {}
        for name, part in parts_of(checkpoint.parameters, config, layout, rank):
            tensors[name] = part.take(checkpoint.parameters[name])
            for kind in MOMENTS:
                whole = part.take(checkpoint.moments[kind][name])
                tensors[f"{kind}.{name}"] = rows_of_replica(len(whole), layout, replica).take(whole)
        paths.append(Path(directory) / file_name(layout, rank))
        save_part(paths[-1], tensors, config, layout, checkpoint.step)
    return paths


def write_hugging_face(checkpoint: Checkpoint, directory: str | Path) -> list[Path]:
    """Writes the parameters and `config.json` as `transformers` reads them; their paths."""
    paths = save_safetensors(checkpoint.parameters, directory)
    config = Path(directory) / "config.json"
    config.write_text(json.dumps(checkpoint.config.to_hf(), indent=2) + "\n", encoding="utf-8")
    return [*paths, config]


def rows_of_replica(rows: int, layout: ParallelConfig, replica: int) -> Part:
    """The rows of a moment that a replica keeps: a part where moments are split and divisible, else all."""
    split = layout.enable_parallel_optimizer and rows % layout.data_parallel == 0
    return Part(index=replica, of=layout.data_parallel) if split else Part()


def _of(part: SavedPart, kind: str | None) -> dict[str, Array]:
    """The tensors of one kind, by the name of their parameter."""
    prefixes = {f"{moment}." for moment in MOMENTS}
    if kind is None:
        return {name: tensor for name, tensor in part.tensors.items() if not name.startswith(tuple(prefixes))}
    return {
        name.removeprefix(f"{kind}."): tensor for name, tensor in part.tensors.items() if name.startswith(f"{kind}.")
    }


def _whole_moments(held: Mapping[int, Mapping[str, Array]], of: SavedPart) -> dict[str, Array]:
    """The whole moments: first the rows of all replicas are joined, then parts are assembled as for parameters."""
    layout, shapes = of.layout, dict(parameter_shapes(of.config))
    if not layout.enable_parallel_optimizer:
        return assemble(held, of.config, layout)
    one = dataclasses.replace(layout, data_parallel=1, enable_parallel_optimizer=False)
    joined: dict[int, dict[str, Array]] = {}
    for rank in range(one.world_size):
        where = one.coordinates(rank)
        replicas = [held[layout.rank(Coordinates(where.stage, r, where.shard))] for r in range(layout.data_parallel)]
        joined[rank] = {
            name: np.concatenate([replica[name] for replica in replicas])
            if rows_of_replica(_rows(part, shapes[name]), layout, 0).of > 1
            else replicas[0][name]
            for name, part in parts_of(shapes, of.config, one, rank)
        }
    return assemble(joined, of.config, one)


def _rows(part: Part, shape: tuple[int, ...]) -> int:
    return shape[0] // part.of if part.axis == 0 else shape[0]
