"""How much of a model its batches reach: what no token and no position reaches, no run can show to be right."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.cases.case import Case
from harness.comparison.measurement import Measurement, Tensors

BATCHES = "batches"  # the place of each measurement


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Of a training: how many ids are an input and a target that counts, how many positions a row has, and how many
    shards of the vocabulary own an input and a target; each with how many there are."""

    ids: int
    of_ids: int
    positions: int
    of_positions: int
    shards: int
    of_shards: int


def reach_of(case: Case, batches: Tensors) -> Reach:
    """What the batches of a case reach: tokens [steps, B, S + 1], loss_mask [steps, B, S]."""
    tokens, size = batches["tokens"], case.model.vocab_size
    inputs = np.unique(tokens[..., :-1])
    targets = np.unique(tokens[..., 1:][batches["loss_mask"] > 0])
    both = np.intersect1d(inputs, targets)
    shards = case.parallel.model_parallel
    owners = [set((found // (size // shards)).tolist()) for found in (inputs, targets)]
    return Reach(
        ids=len(both),
        of_ids=size,
        positions=case.data.seq_length,
        of_positions=case.model.max_position_embeddings,
        shards=len(owners[0] & owners[1]),
        of_shards=shards,
    )


def reached(case: Case, batches: Tensors) -> Iterable[Measurement]:
    """`inputs.vocabulary`, `inputs.positions` and `inputs.shards`: the fraction that is reached."""
    found = reach_of(case, batches)
    for what, value in (
        ("vocabulary", found.ids / found.of_ids),
        ("positions", found.positions / found.of_positions),
        ("shards", found.shards / found.of_shards),
    ):
        yield Measurement(name=f"inputs.{what}", places=(BATCHES,), values=(value,))
