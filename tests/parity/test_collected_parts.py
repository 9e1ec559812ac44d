"""The ranks of mindformers' Trainer, each with its parts of the weights: all of them are judged as the whole.

mindformers trains over several ranks on Ascend alone. So each rank's parameters are cut from known whole ones by
MindSpore's own function, by the layouts that its graph states where mindformers' cells are divided as they ask for.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore.parallel._tensor import _load_tensor

from harness.certify import judging
from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.collect import mindformers as collecting
from harness.collect.layouts import UnknownPart, division
from harness.evidence.judge import Finding, Outcome
from harness.levels.certificate import Level
from harness.runners.mindformers_subject import MindFormersSubject
from harness.runners.protocol import Setting
from qwen3_model.parallel_config import ParallelConfig, Part
from tests.support.bundles import example_step, rate_of
from tests.support.collected import STEPS, Array, Trainer, collected_case, drawn, train

LAYOUTS = {
    "two halves": ParallelConfig(model_parallel=2),
    "two stages": ParallelConfig(pipeline_stage=2, micro_batch_num=2),
    "two stages of two halves": ParallelConfig(model_parallel=2, pipeline_stage=2, micro_batch_num=2),
    "two replicas": ParallelConfig(data_parallel=2),
}
Field = tuple[Any, ...]


@pytest.fixture(scope="module")
def whole() -> MindFormersSubject:
    """mindformers' Qwen3 with the weights of the case, whole."""
    return MindFormersSubject(drawn().case, drawn().weights, Setting(device="CPU", threads=1, learning_rate_zero=False))


def layout_of(name: str, shape: tuple[int, ...], layout: ParallelConfig) -> Field:
    """As a graph states it: of column-parallel cells, embedding and head the first axis is divided over the last
    dimension of the devices, of row-parallel cells the second one."""
    by_rows, by_columns = ("linear_qkv", "linear_fc1", "embedding", "output_layer"), ("linear_proj", "linear_fc2")
    axes = [-1] * len(shape)
    if len(shape) == 2 and any(word in name for word in by_rows):
        axes[0] = 0
    elif len(shape) == 2:
        assert any(word in name for word in by_columns), name
        axes[1] = 0
    own = [length // (layout.model_parallel if axis == 0 else 1) for length, axis in zip(shape, axes, strict=True)]
    return [layout.data_parallel, layout.model_parallel], axes, own, 0, True, "", list(shape)


def on_stage(name: str, layout: ParallelConfig, stage: int) -> bool:
    layers = layout.layers(drawn().case.model.num_hidden_layers)[stage]
    numbered = [word for word in name.split(".") if word.isdigit()]
    if numbered:
        return int(numbered[0]) in layers
    return stage == (0 if "embedding" in name else layout.pipeline_stage - 1)


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is written: most of the time goes there."""
    monkeypatch.setattr(judging, "write_report", lambda *_: None)


class Model:
    """A model of whose parameters a rank holds its parts; those of other stages are not there yet."""

    def __init__(self, whole: MindFormersSubject, layout: ParallelConfig, rank: int) -> None:
        self._whole, stage = whole._model, layout.coordinates(rank).stage
        own = {one.name: on_stage(one.name, layout, stage) for one in whole._parameters}
        self.layouts = {one.name: layout_of(one.name, one.shape, layout) for one in whole._parameters if own[one.name]}
        self._parameters = [self._cut(one, rank) if own[one.name] else one for one in whole._parameters]

    def _cut(self, one: ms.Parameter, rank: int) -> ms.Parameter:
        devices, axes, _, _, _, _, full = self.layouts[one.name]
        return ms.Parameter(ms.Tensor(_load_tensor(one, devices, axes, full, rank).copy()), name=one.name)

    def trainable_params(self) -> list[ms.Parameter]:
        return self._parameters

    def convert_weight_dict(self, given: dict[str, Any]) -> Any:
        return self._whole.convert_weight_dict(given)

    def get_gpt_model(self) -> Any:
        return self._whole.get_gpt_model()

    def moves(self) -> None:
        """What training does to the weights of this rank."""
        for one in self._parameters:
            if one.name in self.layouts:
                one.set_data(ms.Tensor(one.asnumpy() + np.float32(0.01)))


class Step:
    """The cell of a training step."""

    use_clip_grad = True

    def __init__(self, model: Model) -> None:
        self._model, self.parameter_layout_dict = model, model.layouts
        self.clip_grad_norm = SimpleNamespace(clip_norm=drawn().case.training.clip_grad)

    def cells_and_names(self) -> list[tuple[str, Any]]:
        return [("model", self._model)]


def context(**about: Any) -> Any:
    given = SimpleNamespace(**about, get=lambda name, default=None: about.get(name, default))
    return SimpleNamespace(original_args=lambda: given)


def train_a_rank(directory: Path, step: Step, layout: ParallelConfig, rank: int, optimizer: Any) -> None:
    callback, replica = collecting.CertifyCollector(str(directory)), layout.coordinates(rank).replica
    about = {
        "train_network": step,
        "optimizer": optimizer,
        "batch_num": STEPS,
        "epoch_num": 1,
        "dataset_sink_mode": False,
    }
    callback.on_train_begin(context(**about))
    for number in range(1, STEPS + 1):
        taken, rate = example_step("subject-1", number, STEPS), rate_of(drawn().case, "subject-1", number)
        numbers = (taken.loss, 0.0, 1.0, rate, taken.grad_norm)
        outputs = tuple(ms.Tensor(one, ms.float64) for one in numbers)
        tokens, mask = (one[number - 1][replica :: layout.data_parallel] for one in (drawn().tokens, drawn().mask))
        element = [ms.Tensor(np.array(one)) for one in (tokens[:, :-1], tokens[:, 1:], mask)]
        callback.on_train_step_end(context(**about, net_outputs=outputs, train_dataset_element=element))
    step._model.moves()
    callback.on_train_end(context(**about))
    assert callback.collector is not None and callback.collector.failed is None


def train_ranks(
    directory: Path, whole: MindFormersSubject, layout: ParallelConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, Step]]:
    """The cell of each rank, which is trained when the next one is taken."""
    monkeypatch.setattr(collecting, "is_dataset_built_on_rank", lambda: True)
    monkeypatch.setenv("RANK_SIZE", str(layout.world_size))
    for rank in range(layout.world_size):
        share = layout.coordinates(rank).replica, layout.data_parallel
        monkeypatch.setenv("RANK_ID", str(rank))
        monkeypatch.setattr(collecting.BaseDataset, "_generate_shard_info", lambda share=share: share)
        step = Step(Model(whole, layout, rank))
        yield rank, step
        train_a_rank(directory, step, layout, rank, whole._optimizer)


def judged(tmp_path: Path, layout: ParallelConfig) -> tuple[dict[str, Finding], Level]:
    reference = train(tmp_path / "reference", Trainer(run="reference-1", trainer="hugging-face"))
    parallel = {name: value for name, value in vars(layout).items() if value != getattr(ParallelConfig(), name)}
    case, standards = judged_by(collected_case().with_changes(parallel=parallel), ())
    bundle, certificate = judge_collected(case, standards, [reference], [tmp_path / "subject"], tmp_path / "out", ())
    return {one.criterion: one for one in bundle.findings}, certificate.level


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_parts_of_all_ranks_are_the_weights_of_the_case(
    tmp_path: Path, whole: MindFormersSubject, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    layout = LAYOUTS[name]
    for _ in train_ranks(tmp_path / "subject", whole, layout, monkeypatch):
        pass
    found, level = judged(tmp_path, layout)
    assert [one.message for one in found.values() if one.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert found["weights-subject"].outcome is found["alignment-subject"].outcome is Outcome.PASS
    assert level is Level.PRELIMINARY


def test_a_rank_with_the_part_of_another_is_named(
    tmp_path: Path, whole: MindFormersSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS["two halves"]
    for rank, step in train_ranks(tmp_path / "subject", whole, layout, monkeypatch):
        if rank == 1:
            step._model._parameters = Model(whole, layout, 0)._parameters
    found, level = judged(tmp_path, layout)
    assert found["weights-subject"].outcome is Outcome.FAIL and level is Level.UNTESTED
    assert "part 1 of 2 along axis 0, on rank 1, is not that of the case" in found["weights-subject"].message


def divided_over_replicas(step: Step, replica: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parallel optimizer does: the first axis of each parameter on a rank is divided, here over two ranks."""
    monkeypatch.setattr(collecting, "get_rank", {"replicas": replica}.__getitem__)
    monkeypatch.setattr(collecting, "get_group_size", {"replicas": 2}.__getitem__)
    for place, one in enumerate(step._model._parameters):
        devices, axes, own, size, uniform, _, full = step.parameter_layout_dict[one.name]
        # as MindSpore 2.9.0 states it, with the shape before
        step.parameter_layout_dict[one.name] = devices, axes, own, size, uniform, "replicas", full
        cut = ms.Tensor(np.split(one.asnumpy(), 2)[replica].copy())
        step._model._parameters[place] = ms.Parameter(cut, name=one.name)


def test_what_the_parallel_optimizer_divides_is_stated_in_parts(
    tmp_path: Path, whole: MindFormersSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS["two replicas"]
    for rank, step in train_ranks(tmp_path / "subject", whole, layout, monkeypatch):
        divided_over_replicas(step, rank, monkeypatch)
    found, level = judged(tmp_path, layout)
    assert found["weights-subject"].outcome is Outcome.PASS and level is Level.PRELIMINARY


def test_what_is_divided_along_two_axes_is_not_stated(
    tmp_path: Path, whole: MindFormersSubject, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As by the parallel optimizer, of a parameter whose second axis is divided over halves."""
    layout = LAYOUTS["two halves"]
    for rank, step in train_ranks(tmp_path / "subject", whole, layout, monkeypatch):
        divided_over_replicas(step, rank, monkeypatch)
    found, level = judged(tmp_path, layout)
    assert found["weights-subject"].outcome is Outcome.INCONCLUSIVE and level is Level.UNTESTED
    assert "Rank 0 states no weights" in capfd.readouterr().err


def of_two(group: str) -> tuple[int, int]:
    """The place of the second rank in a group of two."""
    return 1, 2


@pytest.mark.parametrize(
    ("devices", "axes"),
    [
        ([2, 4], [0, -1]),
        ([2, 4], [1, -1]),
        ([2, 4], [-1, 0]),
        ([4, 2], [1, 0]),
        ([2, 2, 2], [2, 0]),
        ([3, 1, 2], [0, 2]),
    ],
)
def test_a_division_is_that_of_mindspore(devices: list[int], axes: list[int]) -> None:
    """Also of ranks of a later stage, whose numbers go on."""
    shape = (24, 12)
    array: Array = np.arange(24 * 12, dtype=np.float32).reshape(shape)
    own = [length // (devices[-axis - 1] if axis >= 0 else 1) for length, axis in zip(shape, axes, strict=True)]
    for rank in range(2 * int(np.prod(devices))):
        rows, columns = division("a", (devices, axes, own, 0, True, "", list(shape)), shape, rank, of_two)
        expected = _load_tensor(ms.Tensor(array), devices, axes, list(shape), rank)
        np.testing.assert_array_equal(columns.take(rows.take(array)), expected)


FITTING: Field = ([2, 2], [0, -1], [2, 4], 0, True, "", [4, 4])
OTHER = [(2, [4, 4]), (4, False), (6, [8, 4]), (1, [[0, 1], -1])]


@pytest.mark.parametrize(("field", "value"), OTHER)
def test_a_layout_that_is_not_certain_is_no_part(field: int, value: Any) -> None:
    layout = tuple(itertools.chain(FITTING[:field], [value], FITTING[field + 1 :]))
    assert division("a", FITTING, (4, 4), 0, of_two) == (Part(index=0, of=2), Part())
    divided = (*FITTING[:5], "replicas", *FITTING[6:])
    assert division("a", divided, (4, 4), 0, of_two) == (Part(index=1, of=4), Part())
    with pytest.raises(UnknownPart):
        division("a", layout, (4, 4), 0, of_two)
