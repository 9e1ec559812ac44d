"""Rows of several documents: both sides and the oracle keep them apart, so that each is trained as if it were alone."""

from typing import Any

import numpy as np
import pytest

from harness.cases.case import Case, load_case
from harness.certify.case_options import with_fields
from harness.corpus.draw import draw_weights
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.oracle import Float64Oracle
from harness.runners.protocol import Setting
from harness.runners.torch_reference import FusedAttentionReference, TorchReference
from tests.support.examples import shorter

RUNNERS = [MindSporeSubject, TorchReference, FusedAttentionReference, Float64Oracle]
EVERY_RUNNER = pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: runner.__name__)
SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
EOD, LENGTH = 256, 24
FIRST, SECOND = (np.random.default_rng(seed).integers(0, EOD, size, dtype=np.int32) for seed, size in ((1, 9), (2, 11)))


def case(**data: Any) -> Case:
    few = {"lr_zero_steps": 1, "graph_mode": False, "gradient_accumulation_steps": 1}
    whole = shorter(load_case("qwen3-tiny-sft-fp32"), 2, warmup_steps=1, **few)
    return with_fields(whole, {"data": {"seq_length": LENGTH, "global_batch_size": 1, **data}})


def row(*documents: np.ndarray, counted: int) -> tuple[np.ndarray, np.ndarray]:
    """A row of documents, each with its end; of `counted` the targets count, except the first token of the next."""
    tokens, mask, place = np.full((1, LENGTH + 1), EOD, np.int32), np.zeros((1, LENGTH), np.uint8), 0
    for number, document in enumerate(documents):
        tokens[0, place : place + len(document)] = document
        if number == counted:
            mask[0, place : place + len(document)] = 1
        place += len(document) + 1
    return tokens, mask


def gradients(runner: Any, asked: Case, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = runner(asked, draw_weights(asked), SETTING).gradients(*batch)
    return found


def apart(mine: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> float:
    return max(float(np.linalg.norm(mine[name] - right[name]) / np.linalg.norm(right[name])) for name in right)


@EVERY_RUNNER
def test_a_packed_document_has_the_gradients_that_it_has_alone(runner: Any) -> None:
    asked = case()
    alone = gradients(runner, asked, row(SECOND, counted=0))
    packed = gradients(runner, asked, row(FIRST, SECOND, counted=1))
    assert apart(packed, alone) < 2e-6


@EVERY_RUNNER
@pytest.mark.parametrize(
    "reset", [{"reset_attention_mask": True}, {"reset_position_ids": True}, {}], ids=["attention", "positions", "none"]
)
def test_what_is_reset_is_reset_alone(runner: Any, reset: dict[str, bool]) -> None:
    """Each side in each form is near the oracle; and positions matter only where attention goes through the row."""
    asked = case(**{"reset_attention_mask": False, "reset_position_ids": False, **reset})
    batch = row(FIRST, SECOND, counted=1)
    found = gradients(runner, asked, batch)
    assert apart(found, gradients(Float64Oracle, asked, batch)) < 2e-6
    both = gradients(Float64Oracle, case(), batch)
    assert (apart(found, both) < 2e-6) == ("reset_attention_mask" in reset)
