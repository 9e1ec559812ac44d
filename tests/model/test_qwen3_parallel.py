"""Training over several real ranks, started by msrun, is the training of one process."""

import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from harness.runners.ranks import end_of, start_msrun, this_node
from qwen3_model import modeling_qwen3_parallel_train
from qwen3_model.checkpoints import read_checkpoint, write_checkpoint, write_hugging_face
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.modeling_qwen3_parallel_train import ParallelTrainer
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sharding import assemble
from tests.model.qwen3_cases import Array, differing, random_batch, shaped_as, trainer, worst_relative
from tests.support import rank_worker
from tests.support.examples import ROOT
from tests.support.full import full

# A tied head where there are stages: its gradient comes from both ends of the pipeline. Moments are shared by replicas
# in one, positions by the ranks that share a model in another.
LAYOUTS = {
    "TP2": ("tiny", ParallelConfig(model_parallel=2)),
    "DP2": ("tiny", ParallelConfig(data_parallel=2, enable_parallel_optimizer=True)),
    "TP2xPP2": (
        "tiny-tied",
        ParallelConfig(model_parallel=2, pipeline_stage=2, micro_batch_num=2, use_seq_parallel=True),
    ),
    "DP2, 28 layers": ("tiny-tied:28", ParallelConfig(data_parallel=2, enable_parallel_optimizer=True)),
}


class Run:
    """What all ranks of a layout left, put together, and what one process does."""

    def __init__(self, size: str, layout: ParallelConfig, directory: Path) -> None:
        run_ranks(size, layout, directory)
        left = {rank: dict(np.load(directory / f"{rank}.npz")) for rank in range(layout.world_size)}
        self.config = shaped_as(size)
        self.gradients, self.parameters = (
            assemble({rank: of_kind(kind, own) for rank, own in left.items()}, self.config, layout)
            for kind in ("gradient", "parameter")
        )
        self.whole = [of_kind("whole", own) for own in left.values()]
        self.torn = [own["torn"].tolist() for own in left.values()]
        self.saved = directory
        self.told = [{name: own[name] for name in ("loss", "grad_norm", "tokens", "compiled")} for own in left.values()]
        self.one = trainer(self.config)
        self.one_gradients = self.one.gradients(*batch(self.config))
        steps = range(1, rank_worker.STEPS + 1)
        self.one_steps = [self.one.train_step(*batch(self.config, seed=step)) for step in steps]
        self.after_steps = self.one.parameters()
        self.next = self.one.train_step(*batch(self.config, seed=rank_worker.STEPS + 1))
        self.after_next = self.one.parameters()


def batch(config: Qwen3Config, seed: int = 1) -> tuple[Array, Array]:
    return random_batch(config, length=rank_worker.LENGTH, seed=seed)


def of_kind(kind: str, own: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(f"{kind}."): own[name] for name in own if name.startswith(f"{kind}.")}


def run_ranks(size: str, layout: ParallelConfig, directory: Path, late: str = "") -> None:
    left = [directory / f"{rank}.npz" for rank in range(layout.world_size)]
    here = this_node()
    script = [rank_worker.__file__, size, json.dumps(asdict(layout)), str(directory), late]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("PYTHONPATH", str(ROOT))
        with start_msrun(layout.world_size, here, directory / "log", script) as started:
            too_long = threading.Timer(500, started.kill)
            too_long.start()
            code = end_of(started, here, lambda: all(path.is_file() for path in left))
            too_long.cancel()
    assert code == 0, "\n".join(log.read_text(errors="replace")[-2000:] for log in directory.glob("log/worker_*.log"))


# Each law is of every layout; one of two ranks, sharded, holds it for `tox run`.
QUICK, *MORE = LAYOUTS
BY_ONE = full(held_by="tests/model/test_qwen3_parallel.py::test_several_ranks_make_the_steps_of_one_process")


@pytest.fixture(scope="module", params=[QUICK, *(pytest.param(name, marks=BY_ONE) for name in MORE)])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Run(*LAYOUTS[request.param], tmp_path_factory.mktemp("ranks"))


def test_several_ranks_make_the_steps_of_one_process(ran: Run) -> None:
    """Every rank tells the loss and the norm of the global batch."""
    for told in ran.told:
        assert told["tokens"].tolist() == [step.tokens for step in ran.one_steps]
        np.testing.assert_allclose(told["loss"], [step.loss for step in ran.one_steps], rtol=1e-6)
        np.testing.assert_allclose(told["grad_norm"], [step.grad_norm for step in ran.one_steps], rtol=2e-6)


def test_after_its_first_step_no_rank_compiles_anything(ran: Run) -> None:
    """A tuple of tensors that is not mutable is a constant of a graph, which is then compiled for each micro batch."""
    for told in ran.told:
        assert told["compiled"].tolist() == [told["compiled"][0]] * rank_worker.STEPS


def test_the_gradient_of_every_parameter_is_that_of_one_process(ran: Run) -> None:
    assert worst_relative(ran.gradients, ran.one_gradients) < 3e-6


def test_the_parameters_stay_those_of_one_process(ran: Run) -> None:
    assert worst_relative(ran.parameters, ran.after_steps) < 1e-4


def test_every_rank_gathers_the_same_whole_tensors_bit_for_bit(ran: Run) -> None:
    for whole in ran.whole:
        assert differing(whole, ran.parameters) == []


def test_a_tensor_of_which_a_rank_has_another_copy_is_not_a_number_on_every_rank(ran: Run) -> None:
    assert ran.torn == [[rank_worker.TORN]] * len(ran.torn)


def test_the_checkpoint_of_all_ranks_is_taken_up_by_one_process(ran: Run, tmp_path: Path) -> None:
    """Parameters and moments are those of one process, so the next step is; and no bit of a parameter changes."""
    whole = read_checkpoint(ran.saved)
    assert whole.step == rank_worker.STEPS and differing(dict(whole.parameters), ran.parameters) == []
    write_checkpoint(whole, tmp_path, ParallelConfig())
    one = trainer(ran.config)
    one.load_checkpoint(tmp_path)
    assert differing(one.parameters(), ran.parameters) == []
    assert one.train_step(*batch(ran.config, seed=rank_worker.STEPS + 1)).loss == pytest.approx(ran.next.loss, rel=1e-6)
    assert worst_relative(one.parameters(), ran.after_next) < 1e-4


def test_the_checkpoint_of_all_ranks_is_read_by_transformers(ran: Run, tmp_path: Path) -> None:
    write_hugging_face(read_checkpoint(ran.saved), tmp_path)
    found = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float32").state_dict()
    for name, tensor in ran.parameters.items():
        assert found[name].numpy().tobytes() == tensor.tobytes(), name


class Compiled:
    """A compiled cell that notes what happens to it."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def compile(self) -> None:
        self.events.append("compiled")

    def __call__(self) -> None:
        self.events.append("run")


def test_ranks_wait_for_each_other_between_compiling_a_cell_and_its_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(modeling_qwen3_parallel_train, "barrier", lambda size: events.append(f"{size} ranks met"))
    rank, cell = ParallelTrainer.__new__(ParallelTrainer), Compiled(events)
    rank._begun, rank._mode, rank.layout = set(), ms.GRAPH_MODE, ParallelConfig(data_parallel=2)
    for _ in range(2):
        rank.run(cell)
    assert events == ["compiled", "2 ranks met", "run", "run"]


@full(
    held_by="tests/model/test_qwen3_parallel.py::test_ranks_wait_for_each_other_between_compiling_a_cell_and_its_first_run"
)
def test_a_rank_that_compiles_for_longer_than_the_collectives_wait_is_waited_for(tmp_path: Path) -> None:
    """The first stage comes late with what it sends to the second."""
    run_ranks("tiny", ParallelConfig(pipeline_stage=2, micro_batch_num=2), tmp_path, late="0")
    first, second = (dict(np.load(tmp_path / f"{rank}.npz"))["loss"].tolist() for rank in (0, 1))
    assert first == second and np.isfinite(first).all()
