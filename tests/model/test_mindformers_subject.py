"""mindformers' own Qwen3 as the subject: the same numbers as `qwen3_model`, by the names and shapes of Hugging Face.

Each is recorded once, in two micro-batches with unequal numbers of targets. `qwen3_model` runs without a graph
compiler: its numbers do not depend on the mode.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mindspore as ms
import numpy as np
import pytest

from harness.base.errors import InputError
from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, load_case
from harness.corpus.draw import draw_weights
from harness.runners import mindformers_subject as subject
from harness.runners import mindspore_subject
from harness.runners.protocol import Numbers, Setting
from harness.runners.registry import check_mindformers
from harness.runs.inputs import ProbeGradients
from tests.model.qwen3_cases import Array, differing, worst_relative
from tests.support.examples import shorter

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
STEPS, SAVED_AFTER, ROWS, LENGTH = 4, 2, 4, 40


@pytest.fixture(scope="module", autouse=True)
def synchronous() -> Iterator[None]:
    ms.set_context(pynative_synchronize=True)
    yield
    ms.set_context(pynative_synchronize=False)


def small(**training: Any) -> Case:
    few = {"steps": STEPS, "lr_zero_steps": 1, "clip_grad": 4.0, "gradient_accumulation_steps": 2, **training}
    case = shorter(load_case("qwen3-tiny-fp32"), warmup_steps=1, **few)
    return case.with_changes(data={**case.data.model_dump(), "seq_length": LENGTH, "global_batch_size": ROWS})


CASE = small()
WEIGHTS = draw_weights(CASE)


def batch(step: int) -> tuple[Array, Array]:
    """Random bytes; every other batch of one byte mostly, for a larger gradient. Padding in the first micro-batch."""
    tokens = np.random.default_rng(step).integers(0, 257, (ROWS, LENGTH + 1), dtype=np.int32)
    if step % 2 == 0:
        tokens[:, 12:] = ord("a")
    mask = np.ones((ROWS, LENGTH), np.uint8)
    mask[0, LENGTH // 2 :] = 0
    return tokens, mask


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a subject showed: before its steps, in each of them, after them, and after one more update by given
    gradients."""

    alignment: dict[str, Any]
    provenance: dict[str, Any]
    initial: dict[str, Array]
    gradients: dict[str, Array]
    numbers: list[Numbers]
    trained: dict[str, Array]
    updated: dict[str, Array]


def recorded(runner: Any, checkpoint: Path) -> Recorded:
    """Saves after half of the steps."""
    alignment, initial, gradients = runner.alignment(), dict(runner.parameters()), runner.gradients(*batch(1))
    numbers = []
    for step in range(1, STEPS + 1):
        numbers.append(runner.train_step(*batch(step)))
        if step == SAVED_AFTER:
            runner.save(checkpoint)
    trained = dict(runner.parameters())
    runner.apply_gradients(ProbeGradients(WEIGHTS, CASE.initialization.seed, 1))
    return Recorded(
        alignment=alignment,
        provenance=runner.provenance(),
        initial=initial,
        gradients=gradients,
        numbers=numbers,
        trained=trained,
        updated=dict(runner.parameters()),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> Recorded:
    return recorded(subject.MindFormersSubject(CASE, WEIGHTS, SETTING), checkpoint)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    runner = mindspore_subject.MindSporeSubject(small(graph_mode=False), WEIGHTS, SETTING)
    return recorded(runner, tmp_path_factory.mktemp("ours"))


def test_weights_come_back_bit_for_bit(theirs: Recorded) -> None:
    assert not differing(theirs.initial, WEIGHTS)


def test_it_states_what_was_asked_for(theirs: Recorded) -> None:
    assert theirs.alignment == expected_alignment(CASE)


def test_gradients_agree_parameter_by_parameter(theirs: Recorded, ours: Recorded) -> None:
    assert worst_relative(theirs.gradients, ours.gradients) < 1e-5


def test_steps_agree_with_and_without_clipping(theirs: Recorded, ours: Recorded) -> None:
    norms = [numbers.grad_norm for numbers in ours.numbers]
    assert CASE.training.clip_grad is not None and min(norms) < CASE.training.clip_grad < max(norms)
    assert theirs.numbers[0].loss == pytest.approx(ours.numbers[0].loss, rel=3e-6)
    for name in ("loss", "grad_norm"):
        found, expected = ([getattr(numbers, name) for numbers in side.numbers] for side in (theirs, ours))
        assert found == pytest.approx(expected, rel=1e-5)
    for name in ("learning_rate", "tokens"):
        found, expected = ([getattr(numbers, name) for numbers in side.numbers] for side in (theirs, ours))
        assert found == expected
    assert worst_relative(theirs.trained, ours.trained) < 1e-5


def test_an_update_by_given_gradients_agrees(theirs: Recorded, ours: Recorded) -> None:
    assert worst_relative(theirs.updated, theirs.trained) > 1e-4
    assert worst_relative(theirs.updated, ours.updated) < 1e-5


def test_a_checkpoint_resumes_bit_for_bit(theirs: Recorded, checkpoint: Path) -> None:
    resumed = subject.MindFormersSubject(CASE, WEIGHTS, SETTING)
    resumed.load(checkpoint)
    numbers = [resumed.train_step(*batch(step)) for step in range(SAVED_AFTER + 1, STEPS + 1)]
    assert numbers == theirs.numbers[SAVED_AFTER:]
    assert not differing(resumed.parameters(), theirs.trained)


def test_another_rotary_base_shows_in_the_loss_and_is_stated(theirs: Recorded) -> None:
    class AnotherBase(subject.MindFormersSubject):
        def model_config(self, case: Case) -> Any:
            config = super().model_config(case)
            config.rope_theta = 10_000
            return config

    other = AnotherBase(CASE, WEIGHTS, SETTING)
    stated, expected = other.alignment(), expected_alignment(CASE)
    assert [key for key in expected if stated[key] != expected[key]] == ["model.rope_theta"]
    assert abs(other.train_step(*batch(1)).loss / theirs.numbers[0].loss - 1) > 1e-5


def test_it_states_what_did_not_run(theirs: Recorded) -> None:
    assert theirs.provenance["replaced"] == list(subject.replace_operators())
    assert len(theirs.provenance["replaced"]) == 5
    assert theirs.provenance["attention"] == "float32"


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("precision", {"compute_dtype": "bfloat16"}, "compute_dtype bfloat16"),
        ("parallel", {"data_parallel": 2}, "one process"),
        ("training", {"graph_mode": False}, "graph_mode"),
    ],
)
def test_what_it_cannot_do_is_refused(section: str, change: dict[str, Any], named: str) -> None:
    content = CASE.model_dump()
    with pytest.raises(InputError, match=named):
        subject.MindFormersSubject(CASE.with_changes(**{section: {**content[section], **change}}), WEIGHTS, SETTING)


def test_on_ascend_it_takes_the_precision_of_the_guide() -> None:
    guide = load_case("qwen3-tiny-bf16")
    check_mindformers(guide, "Ascend")
    with pytest.raises(InputError, match=r"compute_dtype bfloat16.*--device Ascend"):
        check_mindformers(guide, "CPU")
    config = subject.MindFormersSubject.model_config(cast(Any, None), guide)
    assert (config.compute_dtype, config.params_dtype, config.softmax_compute_dtype) == (
        "bfloat16",
        "float32",
        "float32",
    )
    assert config.fp32_residual_connection
