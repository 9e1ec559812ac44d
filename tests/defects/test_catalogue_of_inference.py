"""Every shipped defect of inference is really planted: its subject answers otherwise than the sound one, and states
the same.

All are asked in one process, without a graph compiler: what is planted does not depend on the mode.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, load_case
from harness.comparison.distance import tensor_difference
from harness.corpus.draw import draw_weights
from harness.corpus.held_out import draw_evaluation
from harness.defects import INFERENCE, Defect, shipped_defects
from harness.runners.mindspore_inference import MindSporeInference
from harness.runners.protocol import AnswererFactory, Setting
from harness.runners.registry import load_runner
from harness.runs.evaluation import TOKENIZER, Evaluation, read_evaluation
from qwen3_model.modeling_qwen3_infer import Qwen3ForInference
from tests.model.qwen3_cases import Array
from tests.support.catalogue import planted

DEFECTS = {name: one for name, one in shipped_defects().items() if one.area == INFERENCE}
# Every ninth; the others are planted too when what they depend on changed, and by `full`.
SAMPLE = [*DEFECTS][::9]
HERE = "tests/defects/test_catalogue_of_inference.py"
# A prompt is longer than a window; no length is one that is computed with.
LENGTH, PROMPTS, MOST = 9, (3, 35), 8
# What is given after prompts of 31, 32 and 33 tokens fills the cache of a prompt of 3 to its last column.
GIVEN = {"borders": (32,), "decoded_tokens": 16}
# The outputs of an evaluation without given prompts and conversations that a model reads, and the defects that change
# none of these: a gate that has only them accepts each.
EARLIER = (
    "logits", "cached", "alone", "batch", "greedy", "stopped", "sampled", "template", "scored", "best",
)  # fmt: skip
ONLY_NOW = {
    "first-decoded-position-off": "decoded",
    "bucket-below-at-border": "fed",
    "single-padding-seen": "decoded",
    "last-cache-column-wraps": "decoded",
    "norm-epsilon-in-decode-alone": "decoded",
    "rotary-base-in-decode-alone": "decoded",
    "system-message-added": "fed",
}
DECODED_LIMIT = 20 * 4e-7  # that of the criterion, times an error of the reference
SPREAD = 30.0  # of the weights: with those of a first step every token is about as likely


@pytest.fixture(scope="module", autouse=True)
def uncompiled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen3ForInference, "_enter_mode", lambda self: ms.set_context(mode=ms.PYNATIVE_MODE))
        # On small tensors the hand-over of each operator between threads takes twenty times as long as the operator.
        ms.set_context(mode=ms.PYNATIVE_MODE, pynative_synchronize=True)
        yield
        ms.set_context(mode=ms.GRAPH_MODE, pynative_synchronize=False)


@functools.cache
def small(name: str) -> Case:
    whole = load_case(name)
    assert whole.inference is not None
    asked = {"rows": 3, "prompts": PROMPTS, "max_new_tokens": MOST, "sampled_tokens": MOST, "texts": 2, "documents": 20}
    asked |= GIVEN
    return whole.with_changes(
        data={**whole.data.model_dump(), "seq_length": LENGTH},
        inference={**whole.inference.model_dump(), **asked},
    )


@functools.cache
def weights(name: str) -> dict[str, Array]:
    drawn = draw_weights(small(name))
    return {key: value if value.ndim == 1 else np.float32(SPREAD**0.5) * value for key, value in drawn.items()}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is asked, with a stop token that ends one of the continuations half way."""

    @functools.cache
    def of(name: str) -> tuple[Path, Evaluation]:
        directory = tmp_path_factory.mktemp("asked")
        draw_evaluation(small(name), directory)
        evaluation = read_evaluation(directory)
        first = build(small(name), directory).continued(evaluation.prompts, MOST, [])[0]
        return directory, dataclasses.replace(evaluation, stop_token=first[MOST // 2])

    return of


def build(case: Case, directory: Path, runner: AnswererFactory = MindSporeInference) -> Any:
    setting = Setting(device="CPU", threads=1, learning_rate_zero=False, tokenizer=directory / TOKENIZER)
    return runner(case, weights(case.name), setting)


def answered(case: Case, asked: Any, runner: AnswererFactory = MindSporeInference) -> Mapping[str, Array]:
    """What a subject leaves, how it scores texts of several lengths in a batch, and which logits are the best: one that
    another is near to, and one far back."""
    directory, evaluation = asked(case.name)
    subject = build(case, directory, runner)
    left = dict(subject.answers(evaluation))
    for number, logits in enumerate(subject.logits([prompt[::-1] for prompt in evaluation.prompts])):
        left[f"scored.{number}"] = logits
    left["best"] = subject.model.choose(np.array([[4.0, 4.001, *[0] * 14], range(16)], np.float32), None, [])
    return left


@pytest.fixture(scope="module")
def sound(asked: Any) -> Any:
    @functools.cache
    def of(name: str) -> Mapping[str, Array]:
        return answered(small(name), asked)

    return of


def test_the_catalogue_has_defects_of_inference() -> None:
    assert len(DEFECTS) >= 48
    assert all(small(one.case).task.name == "inference" and one.place is None for one in DEFECTS.values())


@pytest.mark.parametrize(
    "defect", planted([*DEFECTS.values()], SAMPLE, f"{HERE}::test_a_defect_changes_what_its_subject_answers")
)
def test_a_defect_changes_what_its_subject_answers(defect: Defect, sound: Any, asked: Any) -> None:
    found, right = answered(small(defect.case), asked, load_runner(defect.runner)), sound(defect.case)
    assert found.keys() == right.keys()
    changed = {name.partition(".")[0] for name in right if not np.array_equal(found[name], right[name])}
    assert changed
    if defect.id in ONLY_NOW:
        kind = ONLY_NOW[defect.id]
        assert not changed & {*EARLIER} and kind in changed
        assert kind == "fed" or largest_change(kind, right, found) > 10 * DECODED_LIMIT


def largest_change(kind: str, right: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """The largest relative change of a position's logits."""
    names = [name for name in right if name.partition(".")[0] == kind]
    return max(
        tensor_difference(one, other)[0] for name in names for one, other in zip(right[name], found[name], strict=True)
    )


@pytest.mark.parametrize(
    "defect", planted([*DEFECTS.values()], SAMPLE, f"{HERE}::test_a_defect_states_what_was_asked_for")
)
def test_a_defect_states_what_was_asked_for(defect: Defect, asked: Any) -> None:
    """Otherwise it would be found without a number being compared."""
    case = small(defect.case)
    subject = build(case, asked(case.name)[0], load_runner(defect.runner))
    assert subject.alignment() == expected_alignment(case)
    held = subject.parameters()
    assert held.keys() == weights(case.name).keys()
    assert all(np.array_equal(held[name], weight) for name, weight in weights(case.name).items())
