"""The oracle is the exact answer: its gradients are those of its own loss, and what both sides say is near it."""

from typing import Any

import numpy as np
import pytest
import torch

from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, load_case
from harness.comparison.distance import relative, signed, tensor_difference
from harness.comparison.measurement import Tensors
from harness.corpus.draw import draw_weights
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.oracle import Float64Oracle
from harness.runners.protocol import Setting
from harness.runners.torch_reference import TorchReference
from harness.runs.inputs import PROBE_UPDATES, ProbeGradients
from tests.support.full import full

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
CASES = UNTIED, TIED = "qwen3-tiny-fp32", "qwen3-tied-fp32"
BY_ONE = full(held_by="tests/parity/test_oracle.py::test_the_losses_have_no_bias")
MAGNITUDES = (1e4, 1.0, 1e-4, 1e-8, 1e-12, 0.0)


def batch_of(case: Case, seed: int = 0) -> tuple[Any, Any]:
    """Random tokens of the case's shape, some of whose targets do not count."""
    random = np.random.RandomState(seed)
    shape = (case.data.global_batch_size, case.data.seq_length)
    tokens = random.randint(0, case.model.vocab_size, (shape[0], shape[1] + 1)).astype(np.int32)
    return tokens, (random.random_sample(shape) < 0.8).astype(np.uint8)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(request.param)


@pytest.fixture
def weights(case: Case) -> Tensors:
    return draw_weights(case)


def test_the_oracles_gradients_are_the_slopes_of_its_loss(case: Case, weights: Tensors) -> None:
    """Differences of fourth order in float64, along a random direction of each parameter; measured 1e-8 at worst."""
    batch = batch_of(case)
    gradients = Float64Oracle(case, weights, SETTING).gradients(*batch)
    for number, (name, weight) in enumerate(weights.items()):
        direction = np.random.RandomState(number).standard_normal(weight.shape)
        step = 1e-3 * float(np.linalg.norm(weight)) / float(np.linalg.norm(direction))
        losses = {
            k: Float64Oracle(case, {**weights, name: weight + k * step * direction}, SETTING).train_step(*batch).loss
            for k in (-2, -1, 1, 2)
        }
        slope = (8 * (losses[1] - losses[-1]) - (losses[2] - losses[-2])) / (12 * step)
        assert slope == pytest.approx(float((gradients[name] * direction).sum()), rel=1e-7), name


def test_the_oracle_knows_neither_rounding_nor_micro_batches(case: Case, weights: Tensors) -> None:
    """A precision policy, micro batches and a second instance change no bit of it."""
    changed = case.with_changes(
        precision={"compute_dtype": "bfloat16"},
        training={**case.training.model_dump(), "gradient_accumulation_steps": 4},
    )
    one, other = (Float64Oracle(built, weights, SETTING) for built in (case, changed))
    for seed in range(3):
        first, second = (side.gradients(*batch_of(case, seed)) for side in (one, other))
        assert all(first[name].dtype == np.float64 and np.array_equal(first[name], second[name]) for name in weights)
        assert one.train_step(*batch_of(case, seed)) == other.train_step(*batch_of(case, seed))
    assert all(np.array_equal(one.parameters()[name], other.parameters()[name]) for name in weights)


@pytest.mark.parametrize("runner", [Float64Oracle, TorchReference])
def test_asking_for_gradients_between_steps_changes_no_bit(runner: Any, case: Case, weights: Tensors) -> None:
    asked, unasked = (runner(case, weights, SETTING) for _ in range(2))
    for seed in range(3):
        asked.gradients(*batch_of(case, seed + 1))
        assert asked.train_step(*batch_of(case, seed)) == unasked.train_step(*batch_of(case, seed))
    assert all(np.array_equal(asked.parameters()[name], unasked.parameters()[name]) for name in weights)


def test_hugging_face_in_float32_is_near_the_oracle(case: Case, weights: Tensors) -> None:
    reference, oracle = TorchReference(case, weights, SETTING), Float64Oracle(case, weights, SETTING)
    exact, found = oracle.gradients(*batch_of(case)), reference.gradients(*batch_of(case))
    assert set(exact) == set(found) == set(weights)
    assert all(found[name].dtype == np.float32 for name in found)
    assert max(tensor_difference(exact[name], found[name])[0] for name in exact) < 1e-5
    step, exact_step = reference.train_step(*batch_of(case)), oracle.train_step(*batch_of(case))
    assert relative(exact_step.loss, step.loss) < 1e-6 and relative(exact_step.grad_norm, step.grad_norm) < 1e-6
    assert step.tokens == exact_step.tokens and step.learning_rate == exact_step.learning_rate


def test_hugging_face_in_float64_is_no_oracle(case: Case, weights: Tensors) -> None:
    """Its norm and softmax cast to float32 even in a float64 model: which is why the oracle is written out."""
    reference, oracle = TorchReference(case, weights, SETTING), Float64Oracle(case, weights, SETTING)
    reference.model.double()
    tokens, mask = (torch.from_numpy(part.astype(np.int64)) for part in batch_of(case))
    with torch.no_grad():
        apart = relative(float(oracle.loss(tokens, mask, 100)), float(reference.loss(tokens, mask, 100)))
    assert 1e-10 < apart < 1e-6


def test_the_oracle_saves_and_resumes_bit_for_bit(case: Case, weights: Tensors, tmp_path: Any) -> None:
    whole, saved, resumed = (Float64Oracle(case, weights, SETTING) for _ in range(3))
    expected = [whole.train_step(*batch_of(case, seed)) for seed in range(4)]
    for seed in range(2):
        saved.train_step(*batch_of(case, seed))
    saved.save(tmp_path)
    resumed.load(tmp_path)
    assert [resumed.train_step(*batch_of(case, seed)) for seed in (2, 3)] == expected[2:]


def test_each_gradient_of_the_subject_is_as_near_the_oracle_as_the_references(case: Case, weights: Tensors) -> None:
    exact = Float64Oracle(case, weights, SETTING).gradients(*batch_of(case))
    errors = {
        side: {name: tensor_difference(exact[name], gradient)[0] for name, gradient in found.items()}
        for side, found in (
            ("reference", TorchReference(case, weights, SETTING).gradients(*batch_of(case))),
            ("subject", MindSporeSubject(case, weights, SETTING).gradients(*batch_of(case))),
        )
    }
    ratios = [errors["subject"][name] / max(errors["reference"][name], 2.0**-24) for name in exact]
    assert np.mean(ratios) <= 2 and max(ratios) <= 10, errors


def test_the_optimizers_alone_do_the_same_with_given_gradients(case: Case, weights: Tensors) -> None:
    sides = [runner(case, weights, SETTING) for runner in (Float64Oracle, TorchReference, MindSporeSubject)]
    for update in range(1, PROBE_UPDATES + 1):
        for side in sides:
            side.apply_gradients(ProbeGradients(weights, 1, update))
    exact, *others = (side.parameters() for side in sides)
    for name, tensor in exact.items():
        moved = float(np.linalg.norm(tensor - weights[name]))
        for other in others:
            assert float(np.linalg.norm(other[name] - tensor)) < 2e-3 * moved, name


def test_the_optimizers_agree_on_gradients_of_every_magnitude(case: Case, weights: Tensors) -> None:
    """From weights of 0 the parameters are what the updates made of them, with all their digits.

    1e-12 lies far below epsilon, where Adam is linear; where a gradient is always 0 nothing may move.
    """
    nothing = {name: np.zeros_like(weight) for name, weight in weights.items()}
    sides = [runner(case, nothing, SETTING) for runner in (Float64Oracle, TorchReference, MindSporeSubject)]
    sizes = {name: np.resize(MAGNITUDES, weight.shape) for name, weight in weights.items()}
    for update in range(1, PROBE_UPDATES + 1):
        random = np.random.RandomState(update)
        given = {name: (size * random.standard_normal(size.shape)).astype(np.float32) for name, size in sizes.items()}
        for side in sides:
            side.apply_gradients(given)
    exact, *others = (side.parameters() for side in sides)
    for name, size in sizes.items():
        for magnitude in MAGNITUDES:
            at = size == magnitude
            for other in others:
                # Measured 1.7e-7 at worst: a few float32 roundings a step.
                assert tensor_difference(exact[name][at], other[name][at])[0] < 1e-6, (name, magnitude)
                assert magnitude > 0 or not other[name][at].any(), name


@pytest.mark.parametrize("case", [UNTIED, pytest.param(TIED, marks=BY_ONE)], indirect=True)
def test_the_losses_have_no_bias(case: Case, weights: Tensors) -> None:
    """Rounding has no sign: over many batches the errors of either side cancel. A fast `exp` gave 1.4e-7."""
    still = Setting(device="CPU", threads=1, learning_rate_zero=True)
    sides = [runner(case, weights, still) for runner in (Float64Oracle, TorchReference, MindSporeSubject)]
    losses = [[side.train_step(*batch_of(case, seed)).loss for side in sides] for seed in range(20)]
    for place in (1, 2):
        assert abs(np.mean([signed(of_step[0], of_step[place]) for of_step in losses])) < 6e-8, place


def test_each_side_states_what_it_was_built_with(case: Case, weights: Tensors) -> None:
    expected = expected_alignment(case)
    for runner in (Float64Oracle, TorchReference, MindSporeSubject):
        assert runner(case, weights, SETTING).alignment() == expected, runner


def test_without_weight_decay_every_side_states_that_nothing_decays() -> None:
    case = load_case("qwen3-tiny-fp32")
    case = case.with_changes(optimizer={**case.optimizer.model_dump(), "weight_decay": 0.0})
    for runner in (Float64Oracle, TorchReference, MindSporeSubject):
        assert runner(case, draw_weights(case), SETTING).alignment() == expected_alignment(case), runner
