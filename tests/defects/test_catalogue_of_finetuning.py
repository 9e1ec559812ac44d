"""Every shipped defect of fine-tuning is really planted: its subject has other gradients than the sound one, for the
conversations of its case, and states the same.

All are built in one process, without a graph compiler: what is planted does not depend on the mode.
"""

import functools
from typing import Any

import pytest

from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, load_case
from harness.corpus.batches import Batches, draw_batches
from harness.corpus.draw import draw_weights
from harness.defects import FINETUNE, Defect, shipped_defects
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Numbers, RunnerFactory, Setting
from harness.runners.registry import load_runner
from tests.model.qwen3_cases import Array, differing
from tests.support.catalogue import planted
from tests.support.examples import shorter

DEFECTS = {name: one for name, one in shipped_defects().items() if one.area == FINETUNE}
# Every sixth; the others are planted too when what they depend on changed, and by `full`.
SAMPLE = [*DEFECTS][::6]
HERE = "tests/defects/test_catalogue_of_finetuning.py"
STEP = 0  # with an instruction of the system, and several conversations in a row


@functools.cache
def small(name: str) -> Case:
    return shorter(load_case(name), 2, warmup_steps=1, lr_zero_steps=1, graph_mode=False)


@functools.cache
def batches(name: str) -> Batches:
    return draw_batches(small(name))


@functools.cache
def weights(name: str) -> dict[str, Array]:
    return draw_weights(small(name))


def recorded(name: str, runner: RunnerFactory = MindSporeSubject) -> tuple[Numbers, dict[str, Array], Any]:
    """The numbers of a step, its gradients, and what the subject states."""
    subject = runner(small(name), weights(name), Setting(device="CPU", threads=1, learning_rate_zero=False))
    batch = batches(name).tokens[STEP], batches(name).loss_mask[STEP]
    gradients = subject.gradients(*batch)
    return subject.train_step(*batch), gradients, subject.alignment()


@functools.cache
def sound(name: str) -> tuple[Numbers, dict[str, Array], Any]:
    return recorded(name)


def test_the_catalogue_has_defects_of_fine_tuning() -> None:
    assert len(DEFECTS) >= 12


@pytest.mark.parametrize(
    "defect", planted([*DEFECTS.values()], SAMPLE, f"{HERE}::test_a_defect_changes_the_gradients_and_states_the_same")
)
def test_a_defect_changes_the_gradients_and_states_the_same(defect: Defect) -> None:
    numbers, gradients, stated = recorded(defect.case, load_runner(defect.runner))
    right = sound(defect.case)
    assert stated == right[2] == expected_alignment(small(defect.case))
    assert differing(gradients, right[1]) and numbers != right[0]


def test_positions_that_count_through_change_nothing_where_attention_is_kept_within_a_conversation() -> None:
    """So that defect has a case of its own."""
    defect = DEFECTS["positions-not-reset"]
    assert defect.case != "qwen3-tiny-sft-fp32"
    numbers, _, _ = recorded("qwen3-tiny-sft-fp32", load_runner(defect.runner))
    assert numbers.loss == pytest.approx(sound("qwen3-tiny-sft-fp32")[0].loss, rel=1e-6)
