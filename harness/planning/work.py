"""The operations of a rank in one step: those of its matrix products, which are nearly all.

A product of the forward pass has two in the backward pass. A layer with recompute runs forward once more, and so does a
stage of a pipeline other than the last, which keeps inputs and no activations.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.cases.case import Case
from harness.planning.memory import layer_parameters, micro_rows

BACKWARD = 2  # products for one of the forward pass


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations of a rank of a stage in a step: of its layers, and of the head."""

    stage: int
    layers: float
    head: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.layers + self.head


def work(case: Case) -> Iterator[Work]:
    """The work of a rank of each stage."""
    config, layout = case.model, case.parallel
    length, shards = case.data.seq_length, layout.model_parallel
    tokens = micro_rows(case) * length * micro_batches(case)
    scores = 4 * config.num_attention_heads * config.head_dim * length // shards  # with every key, and every value
    layer = 2 * layer_parameters(config, shards) + scores
    head = 2 * config.vocab_size * config.hidden_size // shards
    for stage, layers in enumerate(layout.layers(config.num_hidden_layers)):
        last = stage == layout.pipeline_stage - 1
        passes = 1 + BACKWARD + case.training.recompute + (not last)
        yield Work(
            stage=stage,
            layers=float(passes * len(layers) * layer * tokens),
            head=float((1 + BACKWARD) * head * tokens) if last else 0.0,
        )


def micro_batches(case: Case) -> int:
    """In how many parts a replica computes its rows of a step."""
    return case.parallel.micro_batch_num * case.training.gradient_accumulation_steps


def seconds_of_a_step(case: Case, operations_per_second: float) -> float:
    """The time of a step at so many operations per second and rank: that of the largest stage, with its waiting for the
    first and the last micro batch. Transfers are not counted."""
    parts = micro_batches(case)
    filled = (parts + case.parallel.pipeline_stage - 1) / parts
    return filled * max(one.total for one in work(case)) / operations_per_second
