"""Whether the steps of runs are those of the batches of their bundle: evidence is of its inputs, or it is none.

A launcher's process digests each batch that it hands to a runner. So the digests in a trace follow from the file of the
batches, whatever the runner does; what the runner counts and computes is measured and judged, and not checked here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.base.digest import digest_tensors
from harness.base.errors import EvidenceError
from harness.cases.case import Case
from harness.runs.trace import Run

Batches = Mapping[str, npt.NDArray[Any]]


def check_fed(case: Case, batches: Batches, runs: Mapping[str, Run], directory: Path) -> None:
    """Checks the batches against the case, and every step of every run against its batch.

    Raises:
        EvidenceError: they have another shape than the case requires, or a step states another batch than its own.
    """
    steps, rows, length = case.training.steps, case.data.global_batch_size, case.data.seq_length
    wanted = {"tokens": (steps, rows, length + 1), "loss_mask": (steps, rows, length)}
    found = {name: batches[name].shape if name in batches else () for name in wanted}
    if found != wanted:
        raise EvidenceError(f"{directory}: the batches have the shapes {found}, and the case requires {wanted}.")
    digests: dict[int, str] = {}
    for run in runs.values():
        for step in run.trace.steps if run.trace is not None else ():
            at = step.step - 1
            if at not in digests:
                digests[at] = digest_tensors({name: batches[name][at] for name in wanted}) if at < steps else ""
            if step.batch != digests[at]:
                raise EvidenceError(f"{directory}: step {step.step} of {run.name} was not made with its batch.")
