"""The oracle is the exact answer: its gradients are those of its own loss, and what both sides say is near it."""

from typing import Any

import numpy as np
import pytest
import torch

from harness.alignment import expected_alignment
from harness.case import Case, load_case
from harness.comparison import Tensors
from harness.corpus.draw import draw_weights
from harness.distance import relative, tensor_difference
from harness.inputs import PROBE_UPDATES, probe_gradients
from harness.runners import Setting, mindspore_subject
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.oracle import Float64Oracle
from harness.runners.torch_reference import TorchReference

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
CASES = ("qwen3-tiny-fp32", "qwen3-tied-fp32")


def batch_of(case: Case, seed: int = 0) -> tuple[Any, Any]:
    """Random tokens of the case's shape, some of whose targets do not count."""
    random = np.random.RandomState(seed)
    shape = (case.data.global_batch_size, case.data.seq_length)
    tokens = random.randint(0, case.model.vocab_size, (shape[0], shape[1] + 1)).astype(np.int32)
    return tokens, (random.random_sample(shape) < 0.8).astype(np.uint8)


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may prepare MindSpore once, before anything runs; here other tests have run already."""
    monkeypatch.setattr(mindspore_subject, "_prepare_process", lambda device, threads: None)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return load_case(request.param)


@pytest.fixture
def weights(case: Case) -> Tensors:
    return draw_weights(case)


def test_the_oracles_gradients_are_the_slopes_of_its_loss(case: Case, weights: Tensors) -> None:
    """Central differences in float64 along a random direction of each kind of parameter."""
    oracle = Float64Oracle(case, weights, SETTING)
    tokens, mask = batch_of(case)
    gradients = oracle.gradients(tokens, mask)
    batch, counted, count = torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(mask), int(mask.sum())
    for number, (name, parameter) in enumerate(oracle._parameters.items()):
        direction = torch.from_numpy(np.random.RandomState(number).standard_normal(tuple(parameter.shape)))
        step = 1e-4 / float(direction.norm())
        with torch.no_grad():
            losses = []
            for sign in (1, -1):
                parameter += sign * step * direction
                losses.append(float(oracle.loss(batch, counted, count)))
                parameter -= sign * step * direction
        slope = (losses[0] - losses[1]) / (2 * step)
        assert slope == pytest.approx(float((gradients[name] * direction.numpy()).sum()), rel=1e-5, abs=1e-9), name


def test_hugging_face_in_float32_is_near_the_oracle(case: Case, weights: Tensors) -> None:
    reference, oracle = TorchReference(case, weights, SETTING), Float64Oracle(case, weights, SETTING)
    exact, found = oracle.gradients(*batch_of(case)), reference.gradients(*batch_of(case))
    assert set(exact) == set(found) == set(weights)
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
            side.apply_gradients(probe_gradients(weights, 1, update))
    exact, *others = (side.parameters() for side in sides)
    for name, tensor in exact.items():
        moved = float(np.linalg.norm(tensor - weights[name]))
        for other in others:
            assert float(np.linalg.norm(other[name] - tensor)) < 2e-3 * moved, name


def test_each_side_states_what_it_was_built_with(case: Case, weights: Tensors) -> None:
    expected = expected_alignment(case)
    for runner in (Float64Oracle, TorchReference, MindSporeSubject):
        assert runner(case, weights, SETTING).alignment() == expected, runner
