"""The bytes that a rank sends in one step, by purpose; exact for ring algorithms.

An all-reduce over n ranks sends 2 (n - 1) / n of its size; a reduce-scatter or an all-gather half of that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.cases.case import Case
from harness.planning.memory import BYTES, micro_rows, stage_parameters
from harness.planning.work import micro_batches

FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes that a rank of a stage sends in a step: to model-parallel ranks, to replicas, and to the next and the
    previous stage."""

    stage: int
    shards: int
    replicas: int
    stages: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.shards + self.replicas + self.stages


def traffic(case: Case) -> Iterator[Traffic]:
    """The traffic of a rank of each stage."""
    config, layout = case.model, case.parallel
    tokens = micro_rows(case) * case.data.seq_length
    hidden = tokens * config.hidden_size
    product, stream = hidden * BYTES[case.precision.compute_dtype], hidden * BYTES[case.precision.residual_dtype]
    if layout.use_seq_parallel:
        stream //= layout.model_parallel
    for stage, layers in enumerate(layout.layers(config.num_hidden_layers)):
        first, last = stage == 0, stage == layout.pipeline_stage - 1
        # forward and backward; forward again with recompute, and in a stage that keeps its inputs alone
        passes = 2 + case.training.recompute + (not last)
        reduced = 2 * passes * len(layers) * product  # at the start and the end of attention and MLP
        reduced += stream if first and not layout.vocab_emb_dp else 0
        # before the head, and a maximum, a sum and the target's logit for each token
        reduced += product + 3 * tokens * FLOAT32 if last else 0
        boundaries = (not first) + (not last)
        yield Traffic(
            stage=stage,
            shards=micro_batches(case) * _all_reduced(reduced, layout.model_parallel),
            replicas=_all_reduced(stage_parameters(case, stage) * FLOAT32, layout.data_parallel),
            stages=micro_batches(case) * boundaries * stream,
        )


def _all_reduced(size: int, ranks: int) -> int:
    return 2 * size * (ranks - 1) // ranks
