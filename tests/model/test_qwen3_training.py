"""The trainer's laws: accumulation, masks, recomputation, rate zero, clipping, resuming, overriding."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from qwen3_model.checkpoints import FORMAT
from qwen3_model.config_problems import Qwen3ConfigError
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.schedule import ConstantSchedule, ConstantWithWarmup
from qwen3_model.weights import WeightsError
from tests.model.qwen3_cases import (
    BF16,
    differing,
    random_batch,
    random_weights,
    shaped,
    trainer,
    worst_relative,
)
from tests.support.full import full

CHECKPOINT = "checkpoint.safetensors"
HERE = "tests/model/test_qwen3_training.py"
TINY = shaped(num_hidden_layers=1)  # compiling dominates, and these laws do not depend on depth


@pytest.fixture(scope="module")
def whole() -> Qwen3Trainer:
    """One compiled trainer for the laws that do not depend on its past."""
    return trainer(TINY)


def parts_for(test: str, quick: int, slow: int) -> list[Any]:
    """Micro-batches of a test: of each number another graph is compiled."""
    return [quick, pytest.param(slow, marks=full(held_by=f"{HERE}::{test}"))]


@pytest.mark.parametrize("parts", parts_for("test_accumulation_gives_the_step_of_the_whole_batch", 2, 4))
def test_accumulation_gives_the_step_of_the_whole_batch(parts: int) -> None:
    tokens, mask = random_batch(TINY)
    mask[0], mask[1, 3:] = 0, 0  # one row counts nothing: equal weight per micro-batch would show
    one, split = trainer(TINY), trainer(TINY, gradient_accumulation_steps=parts)
    expected, actual = one.train_step(tokens, mask), split.train_step(tokens, mask)
    # The same terms added in another order: a few float32 roundings of a loss near 6 and a norm near 1.
    assert actual.loss == pytest.approx(expected.loss, rel=5e-7)
    assert actual.grad_norm == pytest.approx(expected.grad_norm, rel=2e-6)
    assert actual.tokens == expected.tokens == int(mask.sum())
    again = split.train_step(tokens, mask)
    # A second step sees fresh sums: had they not been cleared the norm would nearly double.
    assert again.grad_norm == pytest.approx(one.train_step(tokens, mask).grad_norm, rel=1e-3)


@full(held_by=f"{HERE}::test_accumulation_gives_the_step_of_the_whole_batch")
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(whole: Qwen3Trainer, parts: int) -> None:
    tokens, mask = random_batch(TINY)
    whole.load_weights(random_weights(TINY))
    split = trainer(TINY, gradient_accumulation_steps=parts)
    # Sums of the same products in another order, through exponentials of 1e-6: measured 4e-7.
    assert worst_relative(split.gradients(tokens, mask), whole.gradients(tokens, mask)) < 5e-6


def test_masked_targets_change_nothing(whole: Qwen3Trainer) -> None:
    tokens, mask = random_batch(TINY)
    mask[:, -1] = 0
    other = tokens.copy()
    other[:, -1] = (other[:, -1] + 1) % TINY.vocab_size  # only the last position's target
    assert differing(whole.gradients(tokens, mask), whole.gradients(other, mask)) == []


def test_later_tokens_change_no_earlier_loss(whole: Qwen3Trainer) -> None:
    tokens, mask = random_batch(TINY, keep=1.0)
    mask[:, 8:] = 0
    other = tokens.copy()
    other[:, 9:] = (other[:, 9:] + 1) % TINY.vocab_size
    assert differing(whole.gradients(tokens, mask), whole.gradients(other, mask)) == []


def test_gradients_update_nothing(whole: Qwen3Trainer) -> None:
    before = whole.parameters()
    whole.gradients(*random_batch(TINY))
    assert differing(whole.parameters(), before) == []


def test_norm_is_that_of_the_unclipped_gradients() -> None:
    tokens, mask = random_batch(TINY)
    subject = trainer(TINY, clip_grad=1e-3, graph_mode=False)
    gradients = subject.gradients(tokens, mask)
    exact = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients.values()))
    # The step's own gradients come out of another compilation; 1e-6 covers its other order of sums.
    assert subject.train_step(tokens, mask).grad_norm == pytest.approx(exact, rel=1e-6)


def test_recomputation_changes_no_bit() -> None:
    tokens, mask = random_batch(TINY)
    plain, recomputed = trainer(shaped()), trainer(shaped(), recompute=True)
    assert plain.train_step(tokens, mask) == recomputed.train_step(tokens, mask)
    assert differing(plain.parameters(), recomputed.parameters()) == []


@pytest.mark.parametrize("parts", parts_for("test_rate_zero_leaves_every_parameter_bitwise", 1, 2))
def test_rate_zero_leaves_every_parameter_bitwise(parts: int) -> None:
    subject = trainer(TINY, schedule=ConstantSchedule(peak=0.0), gradient_accumulation_steps=parts)
    for seed in range(3):
        result = subject.train_step(*random_batch(TINY, seed=seed))
        assert result.learning_rate == 0.0
        assert result.grad_norm > 0.0
    assert differing(subject.parameters(), random_weights(TINY)) == []


def test_first_step_of_a_warmup_changes_nothing_and_the_second_does() -> None:
    subject = trainer(TINY, schedule=ConstantWithWarmup(peak=1e-3, warmup_steps=2), graph_mode=False)
    assert subject.train_step(*random_batch(TINY)).learning_rate == 0.0
    assert differing(subject.parameters(), random_weights(TINY)) == []
    assert subject.train_step(*random_batch(TINY)).learning_rate == 5e-4
    assert set(differing(subject.parameters(), random_weights(TINY))) == set(random_weights(TINY))


@pytest.mark.parametrize("parts", parts_for("test_resuming_continues_bit_for_bit", 1, 2))
def test_resuming_continues_bit_for_bit(tmp_path: Path, parts: int) -> None:
    batches = [random_batch(TINY, seed=seed) for seed in range(5)]
    unbroken = trainer(TINY, gradient_accumulation_steps=parts)
    for batch in batches[:3]:
        unbroken.train_step(*batch)
    unbroken.save_checkpoint(tmp_path)
    expected = [unbroken.train_step(*batch) for batch in batches[3:]]
    resumed = trainer(TINY, random_weights(TINY, seed=9), gradient_accumulation_steps=parts)
    resumed.load_checkpoint(tmp_path)
    assert [resumed.train_step(*batch) for batch in batches[3:]] == expected
    assert differing(resumed.parameters(), unbroken.parameters()) == []


def test_checkpoint_is_replaced_whole_and_leaves_nothing_behind(tmp_path: Path, whole: Qwen3Trainer) -> None:
    whole.save_checkpoint(tmp_path)
    whole.save_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_checkpoint_of_another_model_is_refused(tmp_path: Path, whole: Qwen3Trainer) -> None:
    whole.save_checkpoint(tmp_path)
    tied = trainer(shaped("tiny-tied", num_hidden_layers=1))
    with pytest.raises(WeightsError, match=r"unexpected: exp_avg\.lm_head\.weight"):
        tied.load_checkpoint(tmp_path)
    assert tied.step == 0


def test_checkpoint_of_another_format_is_refused(tmp_path: Path, whole: Qwen3Trainer) -> None:
    whole.save_checkpoint(tmp_path)
    tensors = load_file(tmp_path / CHECKPOINT)
    save_file(tensors, tmp_path / CHECKPOINT, metadata={"format": "other", "step": "1"})
    with pytest.raises(WeightsError, match=f"expected {FORMAT}, got other"):
        whole.load_checkpoint(tmp_path)


def test_batch_that_cannot_be_split_is_refused() -> None:
    subject = trainer(TINY, gradient_accumulation_steps=3)
    with pytest.raises(ValueError, match="3 micro-batches must divide the batch"):
        subject.train_step(*random_batch(TINY, batch=4))


def test_everything_unsound_about_a_batch_is_one_error(whole: Qwen3Trainer) -> None:
    tokens, mask = random_batch(TINY)
    tokens[0, 0] = TINY.vocab_size
    with pytest.raises(ValueError, match=r"\[B, S\]; tokens must be below vocab_size; loss_mask must be 0 or 1"):
        whole.train_step(tokens, 0.5 * mask[:, 1:])
    with pytest.raises(ValueError, match="must leave a target"):
        whole.train_step(*random_batch(TINY, keep=0.0))


def test_parameters_in_half_precision_are_not_trained() -> None:
    with pytest.raises(Qwen3ConfigError, match="params_dtype"):
        trainer(TINY, policy=PrecisionPolicy(params_dtype="bfloat16"))


def test_results_survive_json_exactly() -> None:
    result = trainer(TINY, graph_mode=False).train_step(*random_batch(TINY))
    assert json.loads(json.dumps(result.loss)) == result.loss == float(np.float32(result.loss))
    assert result.grad_norm == float(np.float32(result.grad_norm))


def test_modes_can_be_interleaved_and_agree() -> None:
    tokens, mask = random_batch(TINY)
    graph, eager = trainer(TINY), trainer(TINY, graph_mode=False)
    for _ in range(2):
        expected, actual = graph.train_step(tokens, mask), eager.train_step(tokens, mask)
        # GRAPH mode fuses and reorders: not bitwise equal, but within a few roundings.
        assert actual.loss == pytest.approx(expected.loss, rel=1e-6)
        assert actual.grad_norm == pytest.approx(expected.grad_norm, rel=5e-6)


@full(
    held_by=f"{HERE}::test_recomputation_changes_no_bit, {HERE}::test_accumulation_gives_the_step_of_the_whole_batch, "
    "tests/parity/test_qwen3_bfloat16_parity.py::test_every_gradient_is_as_near_as_autocast_is_to_itself"
)
def test_bfloat16_recomputes_and_accumulates() -> None:
    tokens, mask = random_batch(TINY)
    one = trainer(TINY, policy=BF16)
    split = trainer(TINY, policy=BF16, gradient_accumulation_steps=2, recompute=True)
    # The logits are the same; only sums outside the bfloat16 operators change their order.
    assert split.train_step(tokens, mask).loss == pytest.approx(one.train_step(tokens, mask).loss, rel=5e-7)


def test_a_variant_overrides_decay_rate_and_targets() -> None:
    class Variant(Qwen3Trainer):
        def decays(self, name: str) -> bool:
            return False

        def learning_rate(self, step: int) -> float:
            return 2.0 * super().learning_rate(step)

        def inputs_and_targets(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return tokens[:, :-1], tokens[:, :-1]

    tokens, mask = random_batch(TINY)
    plain, variant = trainer(TINY, graph_mode=False), trainer(TINY, kind=Variant, graph_mode=False)
    expected, actual = plain.train_step(tokens, mask), variant.train_step(tokens, mask)
    assert actual.learning_rate == 2 * expected.learning_rate
    assert actual.loss != expected.loss
    assert not any(variant._optimizer.decay_flags)


@pytest.mark.parametrize("parts", [1, 2])
def test_given_gradients_are_applied_as_they_are(parts: int) -> None:
    """Not clipped, however large: Adam's first update moves every weight by the rate, whatever the gradient's size."""
    made = trainer(shaped(), gradient_accumulation_steps=parts)
    before = made.parameters()
    made.apply_gradients({name: np.full(tensor.shape, 1e3, np.float32) for name, tensor in before.items()})
    assert made.step == 1
    rate, decay = made.learning_rate(1), made.optimizer_config.weight_decay
    for name, tensor in made.parameters().items():
        shrunk = before[name] * (1 - rate * decay * (name in made.decayed()))
        assert np.allclose(tensor, shrunk - rate, rtol=0, atol=rate * 1e-3), name


def test_the_norms_do_not_decay_and_everything_else_does(whole: Qwen3Trainer) -> None:
    assert whole.decayed() == {name for name, tensor in whole.parameters().items() if tensor.ndim > 1}
