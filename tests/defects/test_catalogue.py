"""Every shipped defect is really planted: its subject records something else than the sound one, and states the same.

Both are built in one process, on a case of two layers and four steps, without a graph compiler: what is planted does
not depend on the mode.
"""

import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore import nn

from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, load_case
from harness.corpus.draw import draw_weights
from harness.defects import AREAS, FINETUNE, INFERENCE, MODULES, PARALLEL, Defect, load_defect, shipped_defects
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Numbers, RunnerFactory, Setting
from harness.runners.registry import load_runner
from harness.runs.inputs import ProbeGradients
from tests.model.qwen3_cases import Array, differing
from tests.support.catalogue import planted
from tests.support.examples import shorter

# Those of layouts need several ranks: test_catalogue_of_layouts.py. Those of inference are asked and not trained:
# test_catalogue_of_inference.py. Those of fine-tuning need conversations: test_catalogue_of_finetuning.py.
ELSEWHERE = (PARALLEL, FINETUNE, INFERENCE)
DEFECTS = {name: one for name, one in shipped_defects().items() if one.area not in ELSEWHERE}
# The first of every area; the others are planted too when what they depend on changed, and by `full`.
SAMPLE = {defect.area: name for name, defect in reversed(DEFECTS.items())}.values()
HERE = "tests/defects/test_catalogue.py"
SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
STEPS, ROWS, LENGTH = 4, 2, 40
END = 256  # of a document, among byte tokens
THRESHOLD = 4.0  # between the norms of the four steps, so that two of them are clipped


@functools.cache
def small(name: str) -> Case:
    few = {"lr_zero_steps": 1, "graph_mode": False, "recompute": False, "clip_grad": THRESHOLD}
    case = shorter(load_case(name), STEPS, warmup_steps=2, **few)
    return case.with_changes(data={**case.data.model_dump(), "seq_length": LENGTH, "global_batch_size": ROWS})


def batch(case: Case, step: int) -> tuple[Array, Array]:
    """Bytes with line ends and ends of documents; every other batch of one byte mostly, for a larger gradient."""
    random = np.random.default_rng(step)
    tokens = random.integers(0, END + 1, (ROWS, LENGTH + 1), dtype=np.int32)
    tokens[:, 5::9], tokens[:, 7::11] = ord("\n"), END
    if step % 2 == 0:
        tokens[:, 12:] = ord("a")
    mask = np.ones((ROWS, LENGTH), np.uint8)
    if case.data.packing == "paragraph":
        mask[0, LENGTH // 2 :] = 0
    return tokens, mask


@functools.cache
def weights(name: str) -> dict[str, Array]:
    return draw_weights(small(name))


def build(case: Case, runner: RunnerFactory = MindSporeSubject) -> Any:
    return runner(case, weights(case.name), SETTING)


def recorded(runner: RunnerFactory, case: Case, directory: Path) -> Iterator[tuple[Numbers | None, dict[str, Array]]]:
    """What a subject shows, the cheapest first; nothing else of it reaches a bundle.

    The initial parameters; those after each of four given updates, of which the last two are made by a subject that
    was saved after the second and taken up anew; numbers and parameters of each of four steps.
    """
    subject = build(case, runner)
    yield None, dict(subject.parameters())
    for update in range(1, STEPS + 1):
        if update == 1 + STEPS // 2:
            subject.save(directory)
            subject = build(case, runner)
            subject.load(directory)
        subject.apply_gradients(ProbeGradients(weights(case.name), case.initialization.seed, update))
        yield None, dict(subject.parameters())
    subject = build(case, runner)
    for step in range(1, STEPS + 1):
        numbers = subject.train_step(*batch(case, step))
        yield numbers, dict(subject.parameters())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def of(name: str) -> list[tuple[Numbers | None, dict[str, Array]]]:
        return list(recorded(MindSporeSubject, small(name), tmp_path_factory.mktemp("sound")))

    return of


def test_the_catalogue_has_defects_of_every_area() -> None:
    assert len(DEFECTS) >= 66
    assert list(dict.fromkeys(defect.area for defect in DEFECTS.values())) == [
        area for area in AREAS if area not in ELSEWHERE
    ]


@pytest.mark.parametrize("name", ["qwen3-tiny-fp32", "qwen3-tied-fp32"])
def test_the_small_case_clips_some_steps_and_leaves_others(sound: Any, name: str) -> None:
    norms = [numbers.grad_norm for numbers, _ in sound(name) if numbers]
    assert min(norms) < THRESHOLD < max(norms)


@pytest.mark.parametrize(
    "defect", planted([*DEFECTS.values()], SAMPLE, f"{HERE}::test_a_defect_changes_what_its_subject_records")
)
def test_a_defect_changes_what_its_subject_records(defect: Defect, sound: Any, tmp_path: Path) -> None:
    found = recorded(load_runner(defect.runner), small(defect.case), tmp_path)
    pairs = zip(found, sound(defect.case), strict=True)
    assert any(mine[0] != right[0] or differing(mine[1], right[1]) for mine, right in pairs)


@pytest.mark.parametrize(
    "defect", planted([*DEFECTS.values()], SAMPLE, f"{HERE}::test_a_defect_states_what_was_asked_for")
)
def test_a_defect_states_what_was_asked_for(defect: Defect) -> None:
    """Otherwise it would be found without a number being compared."""
    case = small(defect.case)
    assert build(case, load_runner(defect.runner)).alignment() == expected_alignment(case)


@functools.cache
def places(name: str) -> set[str]:
    model = build(small(name))._trainer.model
    # A tied head is a module of Hugging Face's model and no cell here.
    return {cell for cell, _ in model.cells_and_names()} | {p.name for p in model.get_parameters()} | {"lm_head"}


@pytest.mark.parametrize("defect", [one for one in DEFECTS.values() if one.place], ids=lambda one: one.id)
def test_a_place_is_one_of_the_model(defect: Defect) -> None:
    assert defect.place in places(defect.case)


def planted_cells() -> Iterator[type[nn.Cell]]:
    for module in MODULES:
        for _, kind in inspect.getmembers(importlib.import_module(f"harness.defects.{module}"), inspect.isclass):
            if issubclass(kind, nn.Cell) and kind.__module__.startswith("harness.defects"):
                yield kind


@pytest.mark.parametrize("kind", list(planted_cells()), ids=lambda kind: kind.__name__)
def test_no_cell_inherits_a_call_of_super(kind: type[nn.Cell]) -> None:
    """A graph compiler resolves it by the class of the object, so that the method would call itself without end."""
    inherited = [base for base in kind.__mro__[1:] if base.__module__.startswith("harness.defects")]
    for base in inherited:
        for name, method in vars(base).items():
            if inspect.isfunction(method) and name != "__init__" and name not in vars(kind):
                assert "super()" not in inspect.getsource(method), name


MINE = """
from mindspore import ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, exchange
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3 import Qwen3MLP


class Doubled(Qwen3MLP):
    def construct(self, hidden_BSD):
        return 2.0 * super().construct(hidden_BSD)


@defect(area="model", imitates="A factor", source="https://example.org")
class MlpDoubled(MindSporeSubject):
    \"\"\"One MLP gives twice what it should.\"\"\"

    class trainer(ChangedModel):
        def change(self, model):
            exchange(model, "model.layers.0.mlp", Doubled(self.config, self.policy))
"""


def test_a_defect_of_ones_own_file_is_compiled_like_a_shipped_one(sound: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    case = small("qwen3-tiny-fp32")
    compiled = case.with_changes(training={**case.training.model_dump(), "graph_mode": True})
    subject = build(compiled, load_runner(load_defect(str(tmp_path / "mine.py")).runner))
    first = next(numbers for numbers, _ in sound(case.name) if numbers)
    assert abs(subject.train_step(*batch(case, 1)).loss / first.loss - 1) > 1e-6
