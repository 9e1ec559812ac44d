"""Looking changes no bit on any side, every side shows every place, and what it shows is the same step."""

from typing import Any

import numpy as np
import pytest

from harness.cases.case import Case, load_case
from harness.comparison.distance import tensor_difference
from harness.corpus.draw import draw_weights
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.oracle import Float64Oracle
from harness.runners.protocol import RunnerFactory, Setting, Tapped, Taps
from harness.runners.torch_reference import TorchReference
from harness.runs.places import TapPoint, places
from tests.support.full import full
from tests.support.places_at_fault import IdleKeyNorm

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
SIDES: tuple[RunnerFactory, ...] = (MindSporeSubject, TorchReference, Float64Oracle)
# Two micro batches, recompute, ragged rows and a tied head; and every rounding to bfloat16.
QUICK, ROUNDED = "qwen3-tied-fp32", "qwen3-tiny-bf16"
CASES = [QUICK, pytest.param(ROUNDED, marks=full(held_by="tests/parity/test_taps.py::test_looking_changes_no_bit"))]


def small(name: str) -> Case:
    """Few tokens, and in one layer what needs no second."""
    case = load_case(name)
    layers = 2 if case.training.recompute else 1
    return case.with_changes(
        data={**case.data.model_dump(), "seq_length": 16},
        model={**case.model.to_hf(), "num_hidden_layers": layers},
    )


def batch_of(case: Case) -> tuple[Any, Any]:
    random = np.random.RandomState(0)
    shape = (case.data.global_batch_size, case.data.seq_length)
    tokens = random.randint(0, case.model.vocab_size, (shape[0], shape[1] + 1)).astype(np.int32)
    return tokens, (random.random_sample(shape) < 0.8).astype(np.uint8)


class Looked:
    """One case on three sides: the plain step, and what the tapped one showed, twice."""

    def __init__(self, name: str) -> None:
        self.case = small(name)
        self.batch = batch_of(self.case)
        weights = draw_weights(self.case)
        self.plain, self.taps, self.again, self.numbers = {}, {}, {}, {}
        for side in SIDES:
            runner, tapped = side(self.case, weights, SETTING), side(self.case, weights, SETTING)
            assert isinstance(tapped, Tapped)
            self.plain[side] = runner.gradients(*self.batch)
            self.numbers[side] = runner.train_step(*self.batch)
            self.taps[side] = tapped.taps(*self.batch)
            self.again[side] = tapped.taps(*self.batch)

    def places(self) -> tuple[TapPoint, ...]:
        return places(self.case.model, self.case.data.global_batch_size, self.case.data.seq_length)


@pytest.fixture(scope="module", params=CASES)
def looked(request: pytest.FixtureRequest) -> Looked:
    return Looked(request.param)


def shapes(tensors: Any) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def bits(tensors: Any) -> dict[str, bytes]:
    return {name: np.asarray(tensor).tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("side", SIDES)
def test_looking_changes_no_bit(looked: Looked, side: RunnerFactory) -> None:
    """Neither of a gradient, and so of the norm, nor of the loss; nor when it is asked again."""
    taps = looked.taps[side]
    assert bits(taps.gradients) == bits(looked.plain[side])
    assert float(taps.forward["loss"]) == looked.numbers[side].loss
    for first, second in zip(vars(taps).values(), vars(looked.again[side]).values(), strict=True):
        assert bits(first) == bits(second)


@pytest.mark.parametrize("side", SIDES)
def test_every_place_is_shown_in_its_shape_both_ways(looked: Looked, side: RunnerFactory) -> None:
    taps = looked.taps[side]
    assert shapes(taps.forward) == {place.name: place.shape for place in looked.places()}
    assert shapes(taps.backward) == {place.name: place.shape for place in looked.places() if place.gradient}


@pytest.mark.parametrize("side", SIDES)
def test_the_gradient_of_the_loss_is_one(looked: Looked, side: RunnerFactory) -> None:
    assert float(looked.taps[side].backward["loss"]) == 1.0


def test_both_sides_show_the_same_step_as_the_oracle(looked: Looked) -> None:
    """Measured: 8e-7 at most in float32, and in bfloat16 1.1e-2, of both sides."""
    allowed = 3e-6 if looked.case.precision.compute_dtype == "float32" else 3e-2
    exact = looked.taps[Float64Oracle]
    for side in (MindSporeSubject, TorchReference):
        taps: Taps = looked.taps[side]
        for place in looked.places():
            for way in ("forward", "backward") if place.gradient else ("forward",):
                error = tensor_difference(getattr(exact, way)[place.name], getattr(taps, way)[place.name])[0]
                assert error < allowed, (side, way, place.name)


def test_the_taps_of_a_value_and_of_its_gradient_explain_the_gradient_of_a_weight(looked: Looked) -> None:
    """dW of a projection is the gradient of its result times what it takes: so both are of the place they say."""
    taps = looked.taps[Float64Oracle]
    for layer in range(looked.case.model.num_hidden_layers):
        name = f"model.layers.{layer}.mlp"
        taken, given = taps.forward[f"{name}.act"], taps.backward[f"{name}.down_proj"]
        expected = np.einsum("bsd,bsf->df", given, taken)
        assert tensor_difference(expected, taps.gradients[f"{name}.down_proj.weight"])[0] < 1e-12


def test_a_cell_that_was_exchanged_is_seen_as_it_is() -> None:
    """Its parameter keeps its name, and its result is its input, to the bit."""
    case = small("qwen3-tiny-fp32")
    weights, batch = draw_weights(case), batch_of(case)
    taps = IdleKeyNorm(case, weights, SETTING).taps(*batch)
    assert sorted(taps.gradients) == sorted(weights)
    attention = f"model.layers.{case.model.num_hidden_layers - 1}.self_attn"
    given, taken = taps.forward[f"{attention}.k_norm"], taps.forward[f"{attention}.k_proj"]
    assert np.array_equal(given.reshape(taken.shape), taken)
