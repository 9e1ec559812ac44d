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
from harness.corpus.draw import draw_weights
from harness.corpus.held_out import draw_evaluation
from harness.defects import INFERENCE, Defect, shipped_defects
from harness.runners import mindspore_inference
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
SPREAD = 30.0  # of the weights: with those of a first step every token is about as likely


@pytest.fixture(scope="module", autouse=True)
def uncompiled() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mindspore_inference, "prepare_process", lambda device, threads: None)
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
    assert len(DEFECTS) >= 36
    assert all(small(one.case).task.name == "inference" and one.place is None for one in DEFECTS.values())


@pytest.mark.parametrize(
    "defect", planted([*DEFECTS.values()], SAMPLE, f"{HERE}::test_a_defect_changes_what_its_subject_answers")
)
def test_a_defect_changes_what_its_subject_answers(defect: Defect, sound: Any, asked: Any) -> None:
    found, right = answered(small(defect.case), asked, load_runner(defect.runner)), sound(defect.case)
    assert found.keys() == right.keys()
    assert any(not np.array_equal(found[name], right[name]) for name in right)


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
