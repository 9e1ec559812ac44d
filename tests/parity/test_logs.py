"""Logs that the programs themselves write, imported: mindformers' monitor, Hugging Face's state, torch's summaries."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.logs.imports import import_log

STEPS = 8


@pytest.fixture
def numbers() -> list[tuple[float, np.float32, np.float32]]:
    """Loss, rate and norm of each step, as a float32 run has them."""
    draw = np.random.default_rng(1)
    return [
        (float(np.float32(6 - draw.random())), np.float32(draw.random() / 1000), np.float32(draw.random() * 3))
        for _ in range(STEPS)
    ]


@pytest.mark.parametrize("sink", [True, False])
def test_lines_of_mindformers_own_monitor(
    tmp_path: Path,
    numbers: list[tuple[float, np.float32, np.float32]],
    sink: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from mindformers.core.callback import callback

    caplog.set_level(logging.INFO)
    monitor = callback.MFLossMonitor(origin_epochs=2, dataset_size=STEPS // 2)
    for index, (loss, rate, norm) in enumerate(numbers):
        monitor.loss_list.append(loss)
        monitor.learning_rate = np.array(rate)
        ran = SimpleNamespace(dataset_sink_mode=sink, optimizer=None, network=None)
        monitor.print_output_info(
            ran, index // (STEPS // 2) + 1, 2, 1.0, index % (STEPS // 2) + 1, STEPS // 2, loss, 100.0, "False", 1.0, 10,
            50.0, np.array([norm]), None, None, None, None,
        )  # fmt: skip
    told = tmp_path / "worker_0.log"
    told.write_text(capfd.readouterr().out + caplog.text)
    run = import_log([told], None, None)
    assert (
        run.source == "mindformers" and run.total == STEPS and [s.step for s in run.steps] == list(range(1, STEPS + 1))
    )
    for step, (loss, rate, norm) in zip(run.steps, numbers, strict=True):
        for printed, computed in ((step.loss, loss), (step.grad_norm, norm), (step.learning_rate, rate)):
            assert printed is not None and abs(printed.value - float(computed)) <= printed.resolution * (1 + 1e-9)


def test_the_state_that_the_trainer_saves(tmp_path: Path, numbers: list[tuple[float, np.float32, np.float32]]) -> None:
    from transformers.trainer_callback import TrainerState

    history = [
        {"loss": round(loss, 4), "grad_norm": float(norm), "learning_rate": float(rate), "step": n, "epoch": n / 4}
        for n, (loss, rate, norm) in enumerate(numbers, 1)
    ]
    path = tmp_path / "trainer_state.json"
    TrainerState(log_history=history, max_steps=STEPS, global_step=STEPS).save_to_json(str(path))
    run = import_log([path], None, None)
    assert run.total == STEPS and run.ends and len(run.steps) == STEPS
    assert all(abs(s.loss.value - n[0]) <= s.loss.resolution for s, n in zip(run.steps, numbers, strict=True) if s.loss)
    assert [s.grad_norm.value for s in run.steps if s.grad_norm] == [float(norm) for *_, norm in numbers]


def test_summaries_that_torch_writes(tmp_path: Path, numbers: list[tuple[float, np.float32, np.float32]]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        for n, (loss, rate, norm) in enumerate(numbers, 1):
            for tag, value in (("lm loss", loss), ("grad-norm", norm), ("learning-rate", rate)):
                writer.add_scalar(tag, value, n)
    run = import_log([tmp_path], None, None)
    found = [(s.loss.value, s.learning_rate.value, s.grad_norm.value) for s in run.steps if s.loss]
    assert found == [tuple(map(float, one)) for one in numbers]
