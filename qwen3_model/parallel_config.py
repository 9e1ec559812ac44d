"""Parallel layouts of training, with the field names of mindformers' `parallel_config`; no framework is imported.

Ranks are numbered as MindSpore numbers them: stage by stage, within a stage data-parallel group by group, and within a
group the model-parallel ranks next to each other. So a model-parallel group lies inside one node.

Sources: mindformers 1.9.0, `parallel_config` and `model_config.offset`; MindSpore, pipeline parallelism.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from qwen3_model.configuration_qwen3 import Qwen3Config

Array = npt.NDArray[Any]

LARGEST_DEGREE = 1 << 16

# The environment variable with a free port on rank 0's host, where ranks wait for ranks that compile for longer.
BARRIER_PORT = "QWEN3_BARRIER_PORT"


class Coordinates(NamedTuple):
    """The position of a rank: its pipeline stage, data-parallel replica and model-parallel shard."""

    stage: int
    replica: int
    shard: int


class Groups(NamedTuple):
    """The ranks that a rank communicates with, itself among them; None where there is no such group.

    In the order in which they are made: every rank of the world makes its groups in one order, and pairs of
    neighbouring stages in the order of the stages, so that no two ranks wait for each other.
    """

    world: tuple[int, ...]
    shards: tuple[int, ...]
    replicas: tuple[int, ...]
    model: tuple[int, ...]
    previous: tuple[int, ...] | None
    next: tuple[int, ...] | None
    tied: tuple[int, ...] | None

    @property
    def several(self) -> frozenset[tuple[int, ...]]:
        """The groups of more than one rank; two purposes with the same ranks share one."""
        return frozenset(ranks for ranks in self if ranks is not None and len(ranks) > 1)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of `of` equal parts of a tensor along an axis; `of` is 1 where the tensor is whole."""

    axis: int = 0
    index: int = 0
    of: int = 1

    def of_whole(self, whole: Array) -> Array:
        """This part of a tensor, as a view."""
        view: Array = np.split(whole, self.of, self.axis)[self.index]
        return view

    def take(self, whole: Array) -> Array:
        """This part of a tensor."""
        return np.ascontiguousarray(self.of_whole(whole))

    def shape_of_whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of a tensor that has a part of this shape."""
        return tuple(length * (self.of if axis == self.axis else 1) for axis, length in enumerate(shape))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a layout is invalid: the fields in conflict, the reason, and a fix."""

    fields: tuple[str, ...]
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{', '.join(self.fields)}: {self.reason}. {self.fix}"


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """A layout.

    Attributes:
        data_parallel: Replicas; each takes its part of the rows of a step.
        model_parallel: Ranks that every layer is split over: heads, MLP columns, vocabulary.
        pipeline_stage: Stages that the layers are divided into.
        micro_batch_num: Micro batches that a replica's rows are divided into.
        offset: Layers of each stage above `num_hidden_layers // pipeline_stage`; empty: none.
        use_seq_parallel: Between model-parallel regions each rank keeps its part of the positions.
        enable_parallel_optimizer: Each replica keeps and updates its part of the moments.
        vocab_emb_dp: Every model-parallel rank holds the whole embedding.
    """

    data_parallel: int = 1
    model_parallel: int = 1
    pipeline_stage: int = 1
    micro_batch_num: int = 1
    offset: tuple[int, ...] = ()
    use_seq_parallel: bool = False
    enable_parallel_optimizer: bool = False
    vocab_emb_dp: bool = False

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.data_parallel * self.model_parallel * self.pipeline_stage

    def __str__(self) -> str:
        if self.world_size == 1:
            return "one process"
        words = [f"DP{self.data_parallel} x TP{self.model_parallel} x PP{self.pipeline_stage}"]
        words += [f"{self.micro_batch_num} micro batches"] if self.pipeline_stage > 1 else []
        words += [f"offset {list(self.offset)}"] if any(self.offset) else []
        words += ["sequence parallel"] if self.use_seq_parallel else []
        words += ["parallel optimizer"] if self.enable_parallel_optimizer else []
        words += ["whole embeddings"] if self.vocab_emb_dp and self.model_parallel > 1 else []
        return ", ".join(words)

    def coordinates(self, rank: int) -> Coordinates:
        """The position of a rank.

        Raises:
            ValueError: there is no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise ValueError(f"There is no rank {rank} among {self.world_size}.")
        group, shard = divmod(rank, self.model_parallel)
        stage, replica = divmod(group, self.data_parallel)
        return Coordinates(stage=stage, replica=replica, shard=shard)

    def rank(self, where: Coordinates) -> int:
        """The rank at a position."""
        return (where.stage * self.data_parallel + where.replica) * self.model_parallel + where.shard

    def groups(self, rank: int, *, tied: bool) -> "Groups":
        """The ranks that a rank communicates with, by purpose. `tied`: the head uses the embedding."""
        where = self.coordinates(rank)

        def those(stages: Sequence[int], replicas: Sequence[int], shards: Sequence[int]) -> tuple[int, ...]:
            return tuple(self.rank(Coordinates(s, r, t)) for s in stages for r in replicas for t in shards)

        stage, replica, shard = ([index] for index in where)
        stages, replicas, shards = (
            range(degree) for degree in (self.pipeline_stage, self.data_parallel, self.model_parallel)
        )
        first, last = where.stage == 0, where.stage == self.pipeline_stage - 1
        ends = sorted({0, self.pipeline_stage - 1})
        return Groups(
            world=those(stages, replicas, shards),
            shards=those(stage, replica, shards),
            replicas=those(stage, replicas, shard),
            model=those(stages, replica, shards),
            previous=None if first else those([where.stage - 1, where.stage], replica, shard),
            next=None if last else those([where.stage, where.stage + 1], replica, shard),
            tied=those(ends, replica, shard) if tied and (first or last) and len(ends) > 1 else None,
        )

    def layers(self, num_hidden_layers: int) -> tuple[range, ...]:
        """The layers of each stage, in order. They are complete only where `problems` finds none."""
        each = num_hidden_layers // self.pipeline_stage
        counts = [each + more for more in self.offset or (0,) * self.pipeline_stage]
        starts = [sum(counts[:stage]) for stage in range(len(counts))]
        return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))

    def problems(self, config: Qwen3Config, *, rows: int, seq_length: int) -> Iterator[Problem]:
        """Why a model cannot be trained with this layout on global batches of `rows` rows, each `seq_length` long."""
        degrees = [field.name for field in fields(self) if isinstance(field.default, int) and field.type is int]
        low = [name for name in degrees if getattr(self, name) < 1]
        high = [name for name in degrees if getattr(self, name) > LARGEST_DEGREE]
        if low or high:
            if low:
                yield Problem(fields=tuple(low), reason="below 1", fix="Omit the field for the default, 1.")
            if high:
                yield Problem(fields=tuple(high), reason=f"above {LARGEST_DEGREE}", fix="Use fewer.")
            return
        yield from self._problems_of_shards(config, seq_length)
        yield from self._problems_of_stages(config)
        yield from self._problems_of_rows(rows)

    def _problems_of_shards(self, config: Qwen3Config, seq_length: int) -> Iterator[Problem]:
        split = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
        for name in split:
            size = getattr(config, name)
            if size % self.model_parallel:
                yield Problem(
                    fields=("model_parallel", name),
                    reason=f"{size} cannot be split evenly over {self.model_parallel} ranks",
                    fix=self._fix_of(name, size),
                )
        if self.use_seq_parallel and self.model_parallel == 1:
            yield Problem(
                fields=("use_seq_parallel", "model_parallel"),
                reason="positions are split over model-parallel ranks, and there is one",
                fix="Set use_seq_parallel: False, or model_parallel above 1.",
            )
        if self.use_seq_parallel and seq_length % self.model_parallel:
            yield Problem(
                fields=("use_seq_parallel", "model_parallel", "seq_length"),
                reason=f"{seq_length} positions cannot be split evenly over {self.model_parallel} ranks",
                fix=f"Use a multiple of {self.model_parallel}.",
            )
        if config.tie_word_embeddings and self.vocab_emb_dp and self.model_parallel > 1:
            yield Problem(
                fields=("vocab_emb_dp", "tie_word_embeddings", "model_parallel"),
                reason="the head is split over ranks, but the embedding that it is tied to is not",
                fix="Set vocab_emb_dp: False.",
            )
        if self.enable_parallel_optimizer and self.data_parallel == 1:
            yield Problem(
                fields=("enable_parallel_optimizer", "data_parallel"),
                reason="moments are split over replicas, and there is one",
                fix="Set enable_parallel_optimizer: False, or data_parallel above 1.",
            )

    def _fix_of(self, name: str, size: int) -> str:
        if name == "vocab_size":
            padded = -(-size // self.model_parallel) * self.model_parallel
            return f"Pad the vocabulary to {padded}, or use a divisor."
        able = [degree for degree in range(1, self.model_parallel) if size % degree == 0]
        return f"Use model_parallel: {able[-1]}."

    def _problems_of_stages(self, config: Qwen3Config) -> Iterator[Problem]:
        stages, layers = self.pipeline_stage, config.num_hidden_layers
        if self.offset and len(self.offset) != stages:
            yield Problem(
                fields=("offset", "pipeline_stage"),
                reason=f"{len(self.offset)} numbers for {stages} stages",
                fix="Give one number for each stage.",
            )
            return
        counts = [len(range_) for range_ in self.layers(layers)]
        placed = sum(layers // stages + more for more in self.offset or (0,) * stages)
        if placed != layers:
            yield Problem(
                fields=("offset", "pipeline_stage", "num_hidden_layers"),
                reason=f"the stages hold {placed} layers, and the model has {layers}",
                fix=f"The numbers of offset must add up to {layers % stages}.",
            )
        elif min(counts) < 1:
            yield Problem(
                fields=("offset", "pipeline_stage", "num_hidden_layers"),
                reason=f"stage {counts.index(min(counts))} has no layer",
                fix="Each stage needs at least one.",
            )
        if stages == 1 and self.micro_batch_num > 1:
            yield Problem(
                fields=("micro_batch_num", "pipeline_stage"),
                reason=f"{self.micro_batch_num} micro batches for one stage (mindformers would use 1)",
                fix="Set micro_batch_num: 1 and accumulate gradients.",
            )
        if stages > 1 and self.micro_batch_num < stages:
            yield Problem(
                fields=("micro_batch_num", "pipeline_stage"),
                reason=f"{self.micro_batch_num} micro batches never fill {stages} stages (mindformers allows it)",
                fix=f"Use micro_batch_num: {stages} or more.",
            )

    def _problems_of_rows(self, rows: int) -> Iterator[Problem]:
        parts = self.data_parallel * self.micro_batch_num
        if rows % parts:
            yield Problem(
                fields=("data_parallel", "micro_batch_num", "global_batch_size"),
                reason=f"{rows} rows cannot be split evenly into {self.data_parallel} x {self.micro_batch_num} parts",
                fix=f"Use a multiple of {parts} rows.",
            )
