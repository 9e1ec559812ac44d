"""Every shipped defect that trains is compiled and taken up after a checkpoint, as every run of a study does: one that
ends there instead of showing its numbers says nothing of the criteria, and stops the study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.defects import FINETUNE, INFERENCE, PARALLEL, Defect, shipped_defects
from harness.runners.registry import load_runner
from tests.defects.test_catalogue import batch, build, small
from tests.support.full import full

TRAINED = [one for one in shipped_defects().values() if one.area not in (PARALLEL, FINETUNE, INFERENCE)]
# It has two rules of its own for a step after a checkpoint, and did not compile there once.
SAMPLE = ("optimizer-state-lost",)
HERE = "tests/defects/test_catalogue_resumed.py::test_a_defect_trains_on_from_its_checkpoint"


def compiled(defect: Defect) -> Any:
    case = small(defect.case)
    return build(
        case.with_changes(training={**case.training.model_dump(), "graph_mode": True}), load_runner(defect.runner)
    )


@pytest.mark.parametrize(
    "defect",
    [pytest.param(one, id=one.id, marks=() if one.id in SAMPLE else full(held_by=HERE)) for one in TRAINED],
)
def test_a_defect_trains_on_from_its_checkpoint(defect: Defect, tmp_path: Path) -> None:
    case = small(defect.case)
    subject = compiled(defect)
    subject.compile(*batch(case, 1))
    steps = [subject.train_step(*batch(case, step)) for step in (1, 2)]
    subject.save(tmp_path)
    resumed = compiled(defect)
    resumed.load(tmp_path)
    resumed.compile(*batch(case, 3))
    steps += [resumed.train_step(*batch(case, step)) for step in (3, 4)]
    assert all(np.isfinite([one.loss, one.grad_norm]).all() for one in steps)
    # a fault may give the same rows again, and the first step has the rate 0
    assert len({one.loss for one in steps}) > 2
