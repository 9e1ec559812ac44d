"""The plan of a reference counts what PyTorch saves for the backward pass, layer by layer."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from harness.cases.case import Case, load_case
from harness.certify.case_options import with_fields
from harness.planning.reference import TENSORS_OF_LOGITS, memory_of_a_process, saved_by_a_layer
from harness.runners.protocol import Setting
from harness.runners.torch_reference import TorchReference
from qwen3_model.configuration_qwen3 import parameter_shapes
from tests.support.full import full

WITHIN = 0.15


def case_of(size: str, dtype: str, layers: int, length: int) -> Case:
    """A model of published width, with few layers and words, computed in one micro batch without recompute."""
    shipped = load_case("qwen3-tiny-bf16" if dtype == "bfloat16" else "qwen3-tiny-fp32")
    model = {**load_case(size).model.to_hf(), "num_hidden_layers": layers, "max_window_layers": layers}
    model |= {"vocab_size": 300, "max_position_embeddings": length}
    data = {"seq_length": length, "global_batch_size": 1, "sweep_vocabulary": False}
    return with_fields(shipped, {"model": model, "data": data})


def saved(case: Case) -> int:
    """Bytes of all storages that a forward pass saves, without those of parameters."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(case.model)}
    reference = TorchReference(case, weights, Setting(device="CPU", threads=1, learning_rate_zero=False))
    own = {one.untyped_storage().data_ptr() for one in reference.model.parameters()}
    kept: list[Any] = []
    tokens = torch.ones(1, case.data.seq_length + 1, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        loss = reference.loss(tokens, torch.ones(1, case.data.seq_length), case.data.seq_length)
    assert math.isfinite(float(loss))
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    return sum(size for place, size in storages.items() if place not in own)


def check(size: str, dtype: str, length: int) -> None:
    one, two = (case_of(size, dtype, layers, length) for layers in (1, 2))
    of_one, of_two = saved(one), saved(two)
    copies = [memory_of_a_process(case, 1).copies for case in (one, two)]
    assert of_two - of_one == pytest.approx(saved_by_a_layer(one, 1) + copies[1] - copies[0], rel=WITHIN)
    planned = [memory_of_a_process(case, 1) for case in (one, two)]
    for found, plan in zip((of_one, of_two), planned, strict=True):
        # Of a token's logits one tensor is saved; the others are there while the backward pass begins.
        logits = plan.logits / TENSORS_OF_LOGITS
        assert found == pytest.approx(plan.saved + plan.copies + logits, rel=WITHIN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [32, 512])  # where tokens are most of it, and where their pairs are
def test_what_a_layer_saves_is_planned(dtype: str, length: int) -> None:
    check("qwen3-tiny-fp32", dtype, length)


@full(held_by="tests/parity/test_plan_of_a_reference.py::test_what_a_layer_saves_is_planned")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_layer_saves_is_planned_at_the_width_of_8b(dtype: str) -> None:
    check("qwen3-8b-bf16", dtype, 256)
