"""The ranks of mindformers' Trainer, each with a collector: the rows that each reads, and the rank with the true loss.

mindformers' Trainer trains over several ranks on Ascend alone. So here the callback of each rank is called as the
Trainer does, with the rows that mindformers gives to that rank, and numbers that are invented.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import numpy as np
import pytest

from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.collect import mindformers as collecting
from harness.corpus.draw import draw_inputs
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.runs.inputs import BATCHES
from harness.runs.trace import read_trace
from tests.support.bundles import example_step, rate_of
from tests.support.collected import STEPS, Trainer, collected_case, drawn, train

COLUMNS = ["input_ids", "labels", "loss_mask", "position_ids"]
# By layout: what mindformers gives each rank: the shard of the rows, how many there are, and whether it reads them.
LAYOUTS: dict[str, tuple[dict[str, int], list[tuple[int | None, int | None, bool]]]] = {
    "two replicas": ({"data_parallel": 2}, [(0, 2, True), (1, 2, True)]),
    "two replicas of two halves, of which one reads": (
        {"data_parallel": 2, "model_parallel": 2}, [(0, 2, True), (0, 2, False), (1, 2, True), (1, 2, False)]),
    "two stages, the whole batch": (
        {"pipeline_stage": 2, "micro_batch_num": 2}, [(None, None, True), (None, None, True)]),
}  # fmt: skip


class Cell:
    """The cell of a step, which converts no weights: those of a rank are parts."""

    use_clip_grad = True

    def cells_and_names(self) -> list[tuple[str, Any]]:
        return []


class Context:
    def __init__(self, **about: Any) -> None:
        self.about = about

    def original_args(self) -> Any:
        return SimpleNamespace(**self.about, get=lambda name, default=None: self.about.get(name, default))


def loss_of(rank: int, ranks: int, loss: float) -> float:
    """That of the last rank is the true one."""
    return loss if rank == ranks - 1 else 0.0


def train_a_rank(directory: Path, batches: Path, rank: int, ranks: int, share: tuple[Any, Any, bool]) -> None:
    replica, replicas, reads = share
    steps, rows = len(drawn().tokens), drawn().tokens.shape[1] // (replicas or 1)
    data = collecting.CertifyRows(str(batches), COLUMNS, replicas, replica).batch(rows)
    callback = collecting.CertifyCollector(str(directory))
    about = {"train_network": Cell(), "optimizer": None, "batch_num": steps, "epoch_num": 1, "dataset_sink_mode": False}
    callback.on_train_begin(Context(**about))
    for number, element in enumerate(data.create_tuple_iterator(num_epochs=1), 1):
        taken = example_step("subject-1", number, STEPS)
        given = element if reads else [ms.Tensor(np.zeros(one.shape, np.int32)) for one in element]
        rate = rate_of(drawn().case, "subject-1", number)
        numbers = (loss_of(rank, ranks, taken.loss), 0.0, 1.0, rate, taken.grad_norm)
        outputs = tuple(ms.Tensor(one, ms.float64) for one in numbers)
        callback.on_train_step_end(Context(**about, net_outputs=outputs, train_dataset_element=given))
    callback.on_train_end(Context(**about))


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    draw_inputs(drawn().case, place)
    return place / BATCHES


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_rank_counts_its_rows_and_the_last_one_states_the_loss(
    tmp_path: Path, batches: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    parallel, shares = LAYOUTS[layout]
    for rank, share in enumerate(shares):
        monkeypatch.setenv("RANK_ID", str(rank))
        monkeypatch.setenv("RANK_SIZE", str(len(shares)))
        monkeypatch.setattr(collecting.BaseDataset, "_generate_shard_info", lambda share=share: share[:2])
        monkeypatch.setattr(collecting, "is_dataset_built_on_rank", lambda share=share: share[2])
        train_a_rank(tmp_path / "subject", batches, rank, len(shares), share)
    trace = read_trace(tmp_path / "subject" / "trace.jsonl")
    assert [step.loss for step in trace.steps] == [example_step("subject-1", one, STEPS).loss for one in range(1, 13)]
    reference = train(tmp_path / "reference", Trainer(run="reference-1", trainer="hugging-face"))
    case, standards = judged_by(collected_case().with_changes(parallel=parallel), ())
    bundle, certificate = judge_collected(case, standards, [reference], [tmp_path / "subject"], tmp_path / "out", ())
    assert [one.message for one in bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    outcomes = {one.criterion: one.outcome for one in bundle.findings}
    assert outcomes["batches-same"] is outcomes["tokens"] is Outcome.PASS
    assert outcomes["weights-subject"] is Outcome.INCONCLUSIVE and certificate.level is Level.UNTESTED


def test_a_shard_has_every_nth_row_as_mindspore_gives_them() -> None:
    """The order that a collector states is MindSpore's own, which mindformers' data sets are shared by."""
    rows = list(range(12))
    for replica in range(3):
        shard = ms.dataset.GeneratorDataset(rows, ["row"], shuffle=False, num_shards=3, shard_id=replica)
        found = [int(row) for (row,) in shard.create_tuple_iterator(num_epochs=1, output_numpy=True)]
        share = collecting.ShareOfRank(replica=replica, replicas=3)
        assert found == share.places(4)


def test_an_error_in_the_callback_ends_the_collection_and_not_the_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    callback = collecting.CertifyCollector(str(tmp_path))
    about = {"train_network": Cell(), "optimizer": None, "batch_num": 2, "epoch_num": 1, "dataset_sink_mode": True}
    callback.on_train_begin(Context(**about))
    for _ in range(2):
        callback.on_train_step_end(Context(**about, net_outputs="what no version returns"))
    callback.on_train_end(Context(**about))
    assert "Training goes on" in capfd.readouterr().err
    assert not read_trace(tmp_path / "trace.jsonl").complete
