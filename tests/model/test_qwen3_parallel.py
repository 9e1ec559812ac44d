"""Training over several real ranks, started by msrun, is the training of one process."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sharding import assemble
from tests.model.qwen3_cases import Array, differing, random_batch, shaped, trainer, worst_relative
from tests.support import rank_worker
from tests.support.examples import ROOT

# A tied head where there are stages: its gradient comes from both ends of the pipeline.
LAYOUTS = {
    "TP2": ("tiny", ParallelConfig(model_parallel=2)),
    "DP2": ("tiny", ParallelConfig(data_parallel=2)),
    "TP2xPP2": ("tiny-tied", ParallelConfig(model_parallel=2, pipeline_stage=2, micro_batch_num=2)),
}


class Run:
    """What all ranks of a layout left, put together, and what one process does."""

    def __init__(self, size: str, layout: ParallelConfig, directory: Path) -> None:
        run_ranks(size, layout, directory)
        left = {rank: dict(np.load(directory / f"{rank}.npz")) for rank in range(layout.world_size)}
        self.config = shaped(size)
        self.gradients, self.parameters = (
            assemble({rank: of_kind(kind, own) for rank, own in left.items()}, self.config, layout)
            for kind in ("gradient", "parameter")
        )
        saved = sorted(directory.glob("checkpoint-*.safetensors"))
        self.saved = assemble(
            {rank: parameters_of(load_file(path)) for rank, path in enumerate(saved)}, self.config, layout
        )
        self.told = [{name: own[name] for name in ("loss", "grad_norm", "tokens")} for own in left.values()]
        self.one = trainer(self.config)
        self.one_gradients = self.one.gradients(*random_batch(self.config))
        steps = range(1, rank_worker.STEPS + 1)
        self.one_steps = [self.one.train_step(*random_batch(self.config, seed=step)) for step in steps]


def of_kind(kind: str, own: dict[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(f"{kind}."): own[name] for name in own if name.startswith(f"{kind}.")}


def parameters_of(saved: dict[str, Array]) -> dict[str, Array]:
    return {name: tensor for name, tensor in saved.items() if not name.startswith(("exp_avg.", "exp_avg_sq."))}


def run_ranks(size: str, layout: ParallelConfig, directory: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = str(layout.world_size)
    command = [
        *(sys.executable, "-m", "mindspore.parallel.cluster.run", "--worker_num", ranks, "--local_worker_num", ranks),
        *("--master_port", str(port), "--log_dir", str(directory / "log"), "--join", "True"),
        *("--cluster_time_out", "120", rank_worker.__file__, size, json.dumps(asdict(layout)), str(directory)),
    ]
    # msrun starts the `python` that it finds.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, timeout=500)
    logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in directory.glob("log/worker_*.log"))
    assert done.returncode == 0, done.stderr[-1000:] + logs


@pytest.fixture(scope="module", params=LAYOUTS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Run(*LAYOUTS[request.param], tmp_path_factory.mktemp("ranks"))


def test_several_ranks_make_the_steps_of_one_process(ran: Run) -> None:
    """Every rank tells the loss and the norm of the global batch."""
    for told in ran.told:
        assert told["tokens"].tolist() == [step.tokens for step in ran.one_steps]
        np.testing.assert_allclose(told["loss"], [step.loss for step in ran.one_steps], rtol=1e-6)
        np.testing.assert_allclose(told["grad_norm"], [step.grad_norm for step in ran.one_steps], rtol=2e-6)


def test_the_gradient_of_every_parameter_is_that_of_one_process(ran: Run) -> None:
    assert worst_relative(ran.gradients, ran.one_gradients) < 3e-6


def test_the_parameters_stay_those_of_one_process(ran: Run) -> None:
    assert worst_relative(ran.parameters, ran.one.parameters()) < 1e-4


def test_the_checkpoints_of_all_ranks_are_the_whole_model(ran: Run) -> None:
    assert differing(ran.saved, ran.parameters) == []
