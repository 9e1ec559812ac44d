"""The bfloat16 policy against torch's autocast: like with like, and far nearer than bfloat16 is to float32."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from mindspore import Tensor

from tests.model.qwen3_cases import BF16, Array, random_batch, random_weights, shaped, trainer
from tests.parity.hf_reference import bfloat16_matmuls, gradients, loss, reference
from tests.support.full import full

SHAPES = {"gqa2-untied": shaped("tiny"), "gqa4-tied": shaped("tiny-tied", num_key_value_heads=1)}


def relative(a: Array, b: Array) -> float:
    """norm(a - b) / norm(b)."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Logits, loss and gradients of the subject, of torch's autocast, and of torch in float32."""

    ours: tuple[Array, float, dict[str, Array]]
    autocast: tuple[Array, float, dict[str, Array]]
    float32: tuple[Array, float, dict[str, Array]]


FIRST, *OTHERS = SHAPES
MORE = full(held_by="tests/parity/test_qwen3_bfloat16_parity.py::test_logits_are_as_near_as_autocast_is_to_itself")
BY_SHAPE = [pytest.param(SHAPES[FIRST], id=FIRST), *(pytest.param(SHAPES[one], id=one, marks=MORE) for one in OTHERS)]


@pytest.fixture(scope="module", params=BY_SHAPE)
def sides(request: pytest.FixtureRequest) -> Sides:
    config = request.param
    weights, (tokens, mask) = random_weights(config), random_batch(config, length=33)
    model, subject = reference(config, weights), trainer(config, weights, policy=BF16)
    full = _reference_side(model, tokens, mask)
    with bfloat16_matmuls(model):
        half = _reference_side(model, tokens, mask)
    logits = subject.model(Tensor(tokens[:, :-1])).asnumpy()
    gradient = subject.gradients(tokens, mask)
    return Sides(ours=(logits, subject.train_step(tokens, mask).loss, gradient), autocast=half, float32=full)


def _reference_side(model: Any, tokens: Array, mask: Array) -> tuple[Array, float, dict[str, Array]]:
    logits = model(torch.from_numpy(tokens[:, :-1]).long()).logits
    gradient = {name: value.copy() for name, value in gradients(model, tokens, mask).items()}
    return logits.float().detach().numpy(), loss(model, tokens, mask).item(), gradient


# The floor: autocast against itself with the embedding perturbed by 1e-6 relative, the size of the CPU's exp error.
# An element that lies near a rounding boundary flips, and every layer passes the flips on. Measured on these shapes:
# logits 1.5e-3, loss 3.4e-5, gradients up to 6.5e-3. Allowed is about twice that.


def test_logits_are_as_near_as_autocast_is_to_itself(sides: Sides) -> None:
    assert relative(sides.ours[0], sides.autocast[0]) < 3e-3
    # float32 logits are 1.1e-2 away, and not one in ten thousand is equal.
    assert np.mean(sides.ours[0] == sides.autocast[0]) > 0.8


def test_loss_is_as_near_as_autocast_is_to_itself(sides: Sides) -> None:
    assert sides.ours[1] == pytest.approx(sides.autocast[1], rel=7e-5)


def test_every_gradient_is_as_near_as_autocast_is_to_itself(sides: Sides) -> None:
    ours, autocast, float32 = sides.ours[2], sides.autocast[2], sides.float32[2]
    assert ours.keys() == autocast.keys()
    errors = {name: relative(gradient, autocast[name]) for name, gradient in ours.items()}
    assert {name: error for name, error in errors.items() if not error < 1.3e-2} == {}
    # And the rounding is in the same places: float32 gradients are two to ten times as far from autocast's.
    assert [name for name, error in errors.items() if not error < 0.5 * relative(float32[name], autocast[name])] == []
