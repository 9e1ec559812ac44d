"""A probe shows what training uses: its gradients are those of the step, and a planted defect shows in its probe."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from harness.cases.case import Case, load_case
from harness.corpus.draw import draw_weights
from harness.defects.clipping import ClippingOff
from harness.defects.loss import LabelsNotShifted
from harness.defects.norms import MissingKeyNorm, NormEpsilon
from harness.defects.optimizer import Beta2, DecayOnNorms
from harness.defects.rotary import RotaryBase
from harness.defects.schedule import ScheduleLate
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Setting
from qwen3_model.derivatives import NegativeLogLikelihood
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from tests.model.qwen3_cases import Array, differing, random_batch, random_weights, shaped, trainer, worst_relative
from tests.support.full import full

TINY = shaped(num_hidden_layers=1)
# What float32 leaves of a change of 1e-4 on a weight of 1; two compilations differ less, in gradients by 4e-7.
SEEN = 2e-3
HERE = "tests/model/test_qwen3_probes.py"
UPDATES = 3  # after a warm-up's first rate, which is 0, a late schedule and another beta2 have shown


@pytest.fixture(scope="module")
def case() -> Case:
    """The default case with little in a batch; some defects are in its second layer."""
    whole = load_case("qwen3-tiny-fp32")
    return whole.with_changes(data={**whole.data.model_dump(), "seq_length": 16, "global_batch_size": 4})


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a runner says when it is asked: the changes of the parameters are by `UPDATES` given gradients."""

    gradients: dict[str, Array]
    changes: dict[str, Array]


@pytest.fixture(scope="module")
def sound(case: Case) -> Probed:
    """What the subject says without a fault."""
    return probed(MindSporeSubject, case)


def subject_of(runner: Callable[[Case, Any, Setting], MindSporeSubject], case: Case) -> MindSporeSubject:
    return runner(case, draw_weights(case), Setting(device="CPU", threads=1, learning_rate_zero=False))


def probed(runner: type[MindSporeSubject], case: Case) -> Probed:
    subject = subject_of(runner, case)
    before, gradients = dict(subject.parameters()), subject.gradients(*batch_of(case))
    for update in range(UPDATES):
        subject.apply_gradients(random_weights(case.model, seed=update))
    after = subject.parameters()
    return Probed(gradients=gradients, changes={name: after[name] - before[name] for name in before})


def batch_of(case: Case) -> tuple[Array, Array]:
    tokens, mask = random_batch(case.model, case.data.global_batch_size, case.data.seq_length)
    return tokens, mask.astype(np.uint8)


def norm_of(gradients: dict[str, Array]) -> float:
    return math.sqrt(math.fsum(float(np.square(g, dtype=np.float64).sum()) for g in gradients.values()))


def also(test: str, *parameters: object) -> list[Any]:
    """Parameters of a test that hold the same law again; each compiles graphs of its own."""
    return [pytest.param(one, marks=full(held_by=f"{HERE}::{test}")) for one in parameters]


@pytest.mark.parametrize(
    "fault",
    [
        RotaryBase,
        *also("test_a_fault_of_the_model_shows_in_the_gradients", LabelsNotShifted, NormEpsilon, MissingKeyNorm),
    ],
)
def test_a_fault_of_the_model_shows_in_the_gradients(fault: type[MindSporeSubject], case: Case, sound: Probed) -> None:
    found = probed(fault, case)
    assert worst_relative(found.gradients, sound.gradients) > SEEN
    assert differing(found.changes, sound.changes) == []


@pytest.mark.parametrize(
    "fault", [DecayOnNorms, *also("test_a_fault_of_the_optimizer_shows_in_the_updates", Beta2, ScheduleLate)]
)
def test_a_fault_of_the_optimizer_shows_in_the_updates(
    fault: type[MindSporeSubject], case: Case, sound: Probed
) -> None:
    found = probed(fault, case)
    assert differing(found.gradients, sound.gradients) == []
    assert worst_relative(found.changes, sound.changes) > SEEN


def test_clipping_touches_no_probe(case: Case, sound: Probed) -> None:
    found = probed(ClippingOff, case)
    assert differing(found.gradients, sound.gradients) == differing(found.changes, sound.changes) == []


class DecaysAll(MindSporeSubject):
    """Weight decay applies to the norms too."""

    class trainer(Qwen3Trainer):
        def decays(self, name: str) -> bool:
            return True


def test_what_the_optimizer_and_clipping_were_built_with_is_stated(case: Case) -> None:
    expected = subject_of(MindSporeSubject, case).alignment()
    norms = {f"weight decay on {name}" for name in random_weights(case.model) if "norm" in name}
    for runner, changes, keys in (
        (DecaysAll, {}, norms),
        (MindSporeSubject, {"optimizer": {"betas": (0.9, 0.999)}}, {"optimizer.beta2"}),
        (MindSporeSubject, {"training": {**case.training.model_dump(), "clip_grad": None}}, {"clip_grad"}),
        (MindSporeSubject, {"model": dataclasses.replace(case.model, rope_theta=1e4)}, {"model.rope_theta"}),
    ):
        stated = subject_of(runner, case.with_changes(**changes)).alignment()
        assert {key for key in expected if stated[key] != expected[key]} == keys


class WithoutTarget(NegativeLogLikelihood):
    """The loss is right and its derivative lacks the target's own part."""

    def bprop(
        self, logits_RV: Tensor, targets_R1: Tensor, out: tuple[Tensor, ...], dout: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        return out[1] * dout[0], ops.zeros_like(targets_R1)


class WrongDerivative(Qwen3Trainer):
    def build_loss(self) -> nn.Cell:
        loss = super().build_loss()
        loss.negative_log_likelihood = WithoutTarget()
        return loss


class Unmasked(TokenLoss):
    """Padding counts."""

    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        return super().construct(logits_BSV, targets_BS, ops.ones_like(mask_BS), count)


class PaddingCounts(Qwen3Trainer):
    def build_loss(self) -> nn.Cell:
        return Unmasked()


@pytest.fixture(scope="module")
def right_norm() -> float:
    return norm_of(trainer(TINY).gradients(*random_batch(TINY)))


@pytest.mark.parametrize("parts", [1, *also("test_the_gradients_are_those_that_the_step_uses", 2)])
@pytest.mark.parametrize(
    "kind",
    [Qwen3Trainer, WrongDerivative, *also("test_the_gradients_are_those_that_the_step_uses", PaddingCounts)],
)
def test_the_gradients_are_those_that_the_step_uses(kind: type[Qwen3Trainer], parts: int, right_norm: float) -> None:
    """Right or wrong, the norm of what is shown is the norm that the step reports."""
    batch = random_batch(TINY)
    built = trainer(TINY, kind=kind, gradient_accumulation_steps=parts)
    shown = norm_of(built.gradients(*batch))
    # The step is another compilation of the same cells: other orders of sums.
    assert built.train_step(*batch).grad_norm == pytest.approx(shown, rel=1e-6)
    assert (abs(shown / right_norm - 1) > 1e-3) == (kind is not Qwen3Trainer)


@pytest.mark.parametrize("parts", [2, *also("test_asking_for_gradients_between_steps_changes_no_bit", 1)])
def test_asking_for_gradients_between_steps_changes_no_bit(parts: int) -> None:
    """Neither parameters nor moments, nor the number of steps, nor the sums that accumulation starts from."""
    batches = [random_batch(TINY, seed=seed) for seed in range(3)]
    asked, unasked = (trainer(TINY, gradient_accumulation_steps=parts) for _ in range(2))
    for batch in batches:
        first = asked.gradients(*batches[0])
        assert differing(asked.gradients(*batches[0]), first) == []
        assert asked.train_step(*batch) == unasked.train_step(*batch)
    assert differing(asked.parameters(), unasked.parameters()) == []


def test_the_optimizer_fed_with_the_steps_gradients_takes_the_step() -> None:
    """Without clipping, gradients and update one after the other are the whole step."""
    whole, in_two = (trainer(TINY, clip_grad=None) for _ in range(2))
    for seed in range(3):
        batch = random_batch(TINY, seed=seed)
        whole.train_step(*batch)
        in_two.apply_gradients(in_two.gradients(*batch))
    assert in_two.step == whole.step
    # Adam's first updates divide a gradient by itself: where it is near 0, its last digits move a weight by the rate.
    assert worst_relative(in_two.parameters(), whole.parameters()) < 1e-5


def test_given_gradients_make_the_same_update_whether_micro_batches_are_summed_or_not() -> None:
    """With sums they are handed over in these, which are empty again for the next step."""
    plain, summed = (trainer(TINY, gradient_accumulation_steps=parts) for parts in (1, 2))
    for seed in range(3):
        for one in (plain, summed):
            one.apply_gradients(random_weights(TINY, seed=seed))
    assert differing(plain.parameters(), summed.parameters()) == differing(plain.moments(), summed.moments()) == []
    assert not any(total.asnumpy().any() for total in summed._accumulate_step.sums)


def test_given_gradients_are_inputs_of_one_compiled_update() -> None:
    """As constants of the graph they would be compiled into it, once an update, as large as the model."""
    built = trainer(TINY)
    for seed in range(2):
        built.apply_gradients(random_weights(TINY, seed=seed))
    assert len(built._optimizer.compile_cache) == 1
