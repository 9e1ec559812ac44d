"""Layouts for a number of cards, the best first."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.planning.memory import GIB, memory
from harness.planning.traffic import traffic
from qwen3_model.parallel_config import ParallelConfig

ERROR = 0.08  # of the estimate, the largest that was measured: docs/parallel.md
FORWARD = 1 / 3  # of the work of a step


class Fit(StrEnum):
    """Whether a layout fits into a device. Too close: the error of the estimate reaches the limit."""

    FITS = "fits"
    TOO_CLOSE = "is too close"
    NOT = "does NOT fit"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout and its cost: the largest stage's bytes, the largest traffic of a rank, and the time of a step relative
    to one without bubbles and recomputation, without transfers."""

    case: Case
    bytes: int
    traffic: int
    time: float

    def fit(self, limit: int) -> Fit:
        """Whether every stage fits in `limit` bytes, as far as the estimate can decide it."""
        if self.bytes * (1 + ERROR) <= limit:
            return Fit.FITS
        return Fit.TOO_CLOSE if self.bytes * (1 - ERROR) <= limit else Fit.NOT


def candidate(case: Case, ascend: bool) -> Candidate:
    """The cost of a case's own layout."""
    layout = case.parallel
    stages, parts = layout.pipeline_stage, layout.micro_batch_num
    bubble = (stages - 1) / parts if stages > 1 else 0.0
    largest = max(len(layers) for layers in layout.layers(case.model.num_hidden_layers))
    uneven = largest * stages / case.model.num_hidden_layers
    return Candidate(
        case=case,
        bytes=max(stage.total for stage in memory(case, ascend)),
        traffic=max(stage.total for stage in traffic(case)),
        # a stage of a pipeline runs forward once more for its backward pass, and so does a layer with recompute
        time=(1 + bubble) * uneven * (1 + FORWARD * ((stages > 1) + case.training.recompute)),
    )


def search(case: Case, cards: int, limit: int, ascend: bool) -> list[Candidate]:
    """Every layout for a number of cards that surely fits: fastest first, and among equals with the least traffic.

    Layers are divided evenly, the remainder goes to the last stages; micro batches have one row.

    Raises:
        InputError: no layout fits.
    """
    found = [one for layout in _layouts(case, cards) for one in _with_and_without_recompute(case, layout, ascend)]
    fitting = [one for one in found if one.fit(limit) is Fit.FITS]
    if not fitting:
        least = min((one.bytes for one in found), default=None)
        why = "no layout divides it evenly" if least is None else f"the smallest layout needs {least / GIB:.1f} GiB"
        raise InputError(f"{case.name} does not fit on {cards} cards with {limit / GIB:.1f} GiB each: {why}.")
    return sorted(fitting, key=lambda one: (round(one.time, 3), one.traffic))


def _with_and_without_recompute(case: Case, layout: ParallelConfig, ascend: bool) -> Iterator[Candidate]:
    for recompute in (False, True):
        training = {**case.training.model_dump(), "recompute": recompute}
        parts = 1 if layout.pipeline_stage > 1 else case.training.gradient_accumulation_steps
        training["gradient_accumulation_steps"] = parts
        try:
            yield candidate(case.with_changes(parallel=dataclasses.asdict(layout), training=training), ascend)
        except InputError:
            return


def _layouts(case: Case, cards: int) -> Iterator[ParallelConfig]:
    layers, rows = case.model.num_hidden_layers, case.data.global_batch_size
    for shards in (degree for degree in range(1, cards + 1) if cards % degree == 0):
        for stages in (degree for degree in range(1, cards // shards + 1) if (cards // shards) % degree == 0):
            replicas, over = cards // shards // stages, layers % stages
            parts = rows // replicas if stages > 1 and rows % replicas == 0 else 1
            for sharded in {False, replicas > 1}:
                yield ParallelConfig(
                    data_parallel=replicas,
                    model_parallel=shards,
                    pipeline_stage=stages,
                    micro_batch_num=parts,
                    offset=tuple(int(stage >= stages - over) for stage in range(stages)) if over else (),
                    use_seq_parallel=shards > 1,
                    enable_parallel_optimizer=sharded,
                )
