"""mindformers' own Trainer on one CPU worker, with Megatron data and the collector in it, next to a torch loop."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base.digest import digest_each
from harness.cases.case import Case, load_case
from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.corpus.draw import draw_inputs
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.levels.certificate import Certificate, Level
from harness.runners.mindformers_subject import MindFormersSubject
from harness.runners.protocol import Setting
from harness.runs.files import TRACE
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors, read_weights
from harness.runs.trace import read_trace
from tests.support.collected import drawn
from tests.support.full import full
from tests.support.mindformers_run import ROOT, configuration, of_rows
from tests.support.trainers import train_by_a_torch_loop

pytestmark = full(
    held_by="tests/parity/test_collected_trainers.py::test_the_collector_changes_no_bit,"
    "tests/parity/test_collected_trainers.py::test_each_pair_reaches_preliminary"
)
COSINE = "CosineWithWarmUpLR"
SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
SAVED = {
    "type": "CheckpointMonitor", "prefix": "tiny", "save_checkpoint_steps": 8, "integrated_save": False,
    "async_save": False, "checkpoint_format": "safetensors",
}  # fmt: skip


def drawn_of(case: Case, directory: Path) -> Any:
    draw_inputs(case, directory)
    batches = read_tensors(directory / BATCHES)
    weights = dict(read_weights(directory / WEIGHTS).items())
    return SimpleNamespace(weights=weights, tokens=batches["tokens"], mask=batches["loss_mask"])


def trained(place: Path, *without: str, case: Case | None = None, schedule: str = COSINE) -> Path:
    """The directory of a configuration, or of a case, trained by mindformers in a process of its own."""
    place.mkdir()
    saved = [{"type": "MFLossMonitor"}, SAVED]
    file = configuration(place, callbacks=saved)[0] if case is None else of_rows(place, case, schedule)
    words = [str(file), str(place / "collected"), str(place / "initial"), *without]
    command = [sys.executable, "-m", "tests.support.mindformers_driver", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("mindformers") / "with")


def judged(place: Path, case: Case, reference: Path, out: Path) -> tuple[Bundle, Certificate]:
    case, standards = judged_by(case, ())
    return judge_collected(case, standards, [reference], [place / "collected"], out, ("certify", "judge"))


def test_mindformers_trainer_next_to_a_torch_loop(place: Path, tmp_path: Path) -> None:
    case = load_case(str(place / "small.yaml"))
    train_by_a_torch_loop(case, drawn_of(case, tmp_path / "inputs"), tmp_path / "reference")
    bundle, certificate = judged(place, case, tmp_path / "reference", tmp_path / "out")
    assert [one.message for one in bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert certificate.level is Level.PRELIMINARY
    assert certificate.scope.model == "Qwen3 of 2 layers of width 64 by mindformers"
    assert max(bundle.comparison["train.loss.relative"].values) < 1e-6
    assert max(bundle.comparison["train.grad_norm.relative"].values) < 1e-6


def test_the_same_files_by_another_sampler_are_refused_at_a_step_and_a_row(place: Path, tmp_path: Path) -> None:
    case = load_case(str(place / "small.yaml"))
    other = case.with_changes(data={**case.data.model_dump(), "seed": 4321})
    train_by_a_torch_loop(other, drawn_of(other, tmp_path / "inputs"), tmp_path / "reference")
    bundle, certificate = judged(place, case, tmp_path / "reference", tmp_path / "out")
    (message,) = (one.message for one in bundle.findings if one.criterion == "batches-same")
    assert "first beyond the limit at step 1, reference-1, row 0: what was read is" in message
    assert not certificate.level.reaches(Level.PRELIMINARY)


def test_the_collector_changes_no_bit_of_mindformers(place: Path, tmp_path: Path) -> None:
    alone = trained(tmp_path / "without", "no")
    assert not (alone / "collected").exists()
    saved = [sorted((one / "output" / "checkpoint").rglob("*.safetensors")) for one in (place, alone)]
    assert saved[0] and [file.name for file in saved[0]] == [file.name for file in saved[1]]
    for one, other in zip(*saved, strict=True):
        assert digest_each(read_tensors(one)) == digest_each(read_tensors(other))


@pytest.mark.parametrize(
    ("schedule", "expected", "apart", "level"),
    [
        (COSINE, {"inputs-same", "learning-rate"}, (2e-7, 1e-6), Level.UNTESTED),
        ("CertifyCosine", set(), (0.0, 6e-8), Level.PRELIMINARY),
    ],
)
def test_the_default_case_by_mindformers_trainer(
    tmp_path: Path, schedule: str, expected: set[str], apart: tuple[float, float], level: Level
) -> None:
    """Next to a torch loop, and next to the harness's own run of mindformers' Qwen3, which is the same mathematics.

    mindformers computes a cosine of the schedule in float32, which is further off than one rounding of a rate.
    """
    place = trained(tmp_path / "subject", case=drawn().case, schedule=schedule)
    train_by_a_torch_loop(drawn().case, drawn(), tmp_path / "reference")
    bundle, certificate = judged(place, drawn().case, tmp_path / "reference", tmp_path / "out")
    failing = {one.criterion for one in bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)}
    assert failing == expected
    assert apart[0] < max(bundle.comparison["train.learning_rate.relative"].values) < apart[1]
    assert certificate.level is level
    assert certificate.scope.model == "Qwen3 tiny by mindformers"
    assert max(bundle.comparison["train.loss.relative"].values) < 1e-6
    assert max(bundle.comparison["train.grad_norm.relative"].values) < 1e-6
    trace = read_trace(place / "collected" / TRACE)
    own = MindFormersSubject(drawn().case, drawn().weights, SETTING)
    for step, tokens, mask in zip(trace.steps, drawn().tokens, drawn().mask, strict=True):
        numbers = own.train_step(tokens, mask)
        relative = 0.0 if step.step == 1 else 3e-7  # the rates differ, and with them the weights
        assert step.loss == pytest.approx(numbers.loss, rel=relative, abs=0)
        assert step.grad_norm == pytest.approx(numbers.grad_norm, rel=3e-7, abs=0)
        assert step.tokens == numbers.tokens
    assert trace.header.alignment == own.alignment()
