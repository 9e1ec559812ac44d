"""How training is spread over ranks, in the words of mindformers' `parallel_config`; no framework is imported.

Ranks are numbered as MindSpore numbers them: stage by stage, within a stage data-parallel group by group, and within a
group the ranks that share one model next to each other. So a model-parallel group lies inside one node.

Sources: mindformers 1.9.0, `parallel_config` and `model_config.offset`; MindSpore, pipeline parallelism.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

from qwen3_model.configuration_qwen3 import Qwen3Config

# The environment variable with a free port of the host of rank 0, where ranks wait for those that compile for longer.
MEETING_PORT = "QWEN3_MEETING_PORT"


class Coordinates(NamedTuple):
    """Where a rank stands: its pipeline stage, its data-parallel replica, its share of the model."""

    stage: int
    replica: int
    shard: int


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a layout cannot be: the fields that are at odds, the reason, and what would do."""

    fields: tuple[str, ...]
    reason: str
    mend: str

    def __str__(self) -> str:
        return f"{', '.join(self.fields)}: {self.reason}. {self.mend}"


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """A layout.

    Attributes:
        data_parallel: Replicas; each takes its part of the rows of a step.
        model_parallel: Ranks that share every layer: heads, MLP columns, vocabulary.
        pipeline_stage: Stages that the layers are dealt out to.
        micro_batch_num: Parts that a replica's rows go through the stages in.
        offset: By stage, how many layers more than `num_hidden_layers // pipeline_stage`; empty: none.
        use_seq_parallel: Between the shared products each rank keeps its part of the positions.
        enable_parallel_optimizer: Each replica keeps and updates its part of the moments.
        vocab_emb_dp: The embedding is whole on every rank that shares a model.
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
        """Ranks in all."""
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
        """Where a rank stands.

        Raises:
            ValueError: there is no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise ValueError(f"There is no rank {rank} among {self.world_size}.")
        group, shard = divmod(rank, self.model_parallel)
        stage, replica = divmod(group, self.data_parallel)
        return Coordinates(stage=stage, replica=replica, shard=shard)

    def rank(self, where: Coordinates) -> int:
        """The rank that stands there."""
        return (where.stage * self.data_parallel + where.replica) * self.model_parallel + where.shard

    def layers(self, num_hidden_layers: int) -> tuple[range, ...]:
        """The layers of each stage, in order. They are all of them only where `problems` finds none."""
        each = num_hidden_layers // self.pipeline_stage
        counts = [each + more for more in self.offset or (0,) * self.pipeline_stage]
        starts = [sum(counts[:stage]) for stage in range(len(counts))]
        return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))

    def problems(self, config: Qwen3Config, *, rows: int, seq_length: int) -> Iterator[Problem]:
        """Why a model cannot be trained so on global batches of `rows` rows, each `seq_length` long."""
        degrees = [field.name for field in fields(self) if isinstance(field.default, int) and field.type is int]
        low = [name for name in degrees if getattr(self, name) < 1]
        if low:
            yield Problem(fields=tuple(low), reason="below 1", mend="Without it there is 1 of each.")
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
                    reason=f"{size} cannot be shared by {self.model_parallel} ranks evenly",
                    mend=self._mend_of(name, size),
                )
        if self.use_seq_parallel and self.model_parallel == 1:
            yield Problem(
                fields=("use_seq_parallel", "model_parallel"),
                reason="positions are shared by the ranks that share a model, and there is one",
                mend="Set use_seq_parallel: False, or model_parallel above 1.",
            )
        if self.use_seq_parallel and seq_length % self.model_parallel:
            yield Problem(
                fields=("use_seq_parallel", "model_parallel", "seq_length"),
                reason=f"{seq_length} positions cannot be shared by {self.model_parallel} ranks evenly",
                mend=f"Take a multiple of {self.model_parallel}.",
            )
        if config.tie_word_embeddings and self.vocab_emb_dp and self.model_parallel > 1:
            yield Problem(
                fields=("vocab_emb_dp", "tie_word_embeddings", "model_parallel"),
                reason="the head is shared by ranks, and the embedding that it is tied to is not",
                mend="Set vocab_emb_dp: False.",
            )
        if self.enable_parallel_optimizer and self.data_parallel == 1:
            yield Problem(
                fields=("enable_parallel_optimizer", "data_parallel"),
                reason="moments are shared by replicas, and there is one",
                mend="Set enable_parallel_optimizer: False, or data_parallel above 1.",
            )

    def _mend_of(self, name: str, size: int) -> str:
        if name == "vocab_size":
            padded = -(-size // self.model_parallel) * self.model_parallel
            return f"Pad the vocabulary to {padded}, or take a divisor."
        able = [degree for degree in range(1, self.model_parallel) if size % degree == 0]
        return f"Take model_parallel: {able[-1]}."

    def _problems_of_stages(self, config: Qwen3Config) -> Iterator[Problem]:
        stages, layers = self.pipeline_stage, config.num_hidden_layers
        if self.offset and len(self.offset) != stages:
            yield Problem(
                fields=("offset", "pipeline_stage"),
                reason=f"{len(self.offset)} numbers for {stages} stages",
                mend="Give one for each stage.",
            )
            return
        counts = [len(range_) for range_ in self.layers(layers)]
        dealt = sum(layers // stages + more for more in self.offset or (0,) * stages)
        if dealt != layers:
            yield Problem(
                fields=("offset", "pipeline_stage", "num_hidden_layers"),
                reason=f"the stages have {dealt} layers of {layers}",
                mend=f"The numbers of offset have to add up to {layers % stages}.",
            )
        elif min(counts) < 1:
            yield Problem(
                fields=("offset", "pipeline_stage", "num_hidden_layers"),
                reason=f"stage {counts.index(min(counts))} has no layer",
                mend="Each stage needs one.",
            )
        if stages == 1 and self.micro_batch_num > 1:
            yield Problem(
                fields=("micro_batch_num", "pipeline_stage"),
                reason=f"{self.micro_batch_num} micro batches for one stage (mindformers would take 1)",
                mend="Set micro_batch_num: 1 and accumulate gradients.",
            )
        if stages > 1 and self.micro_batch_num < stages:
            yield Problem(
                fields=("micro_batch_num", "pipeline_stage"),
                reason=f"{self.micro_batch_num} micro batches never fill {stages} stages (mindformers allows it)",
                mend=f"Take micro_batch_num: {stages} or more.",
            )

    def _problems_of_rows(self, rows: int) -> Iterator[Problem]:
        parts = self.data_parallel * self.micro_batch_num
        if rows % parts:
            yield Problem(
                fields=("data_parallel", "micro_batch_num", "global_batch_size"),
                reason=f"{rows} rows cannot be dealt out to {self.data_parallel} x {self.micro_batch_num} evenly",
                mend=f"Take a multiple of {parts} rows.",
            )
