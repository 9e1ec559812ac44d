"""Real trainers with the collector in them: the same bits as without it, and the numbers of the runs of the harness.

The default case in few steps, by Hugging Face's Trainer, a plain torch loop and a plain MindSpore loop.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms  # before torch: its protobuf files are older
import numpy as np
import pytest
import torch

from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Setting
from harness.runners.torch_reference import TorchReference
from harness.runs.files import TRACE
from harness.runs.trace import Trace, read_trace
from tests.support.collected import drawn
from tests.support.mindspore_loop import train_by_a_mindspore_loop
from tests.support.trainers import train_by_a_torch_loop, train_by_hugging_face

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)
Weights = Mapping[str, Any]


def by_hugging_face(directory: Path | None, out: Path) -> Weights:
    return train_by_hugging_face(drawn().case, drawn(), directory, out)


def by_a_torch_loop(directory: Path | None, out: Path) -> Weights:
    return train_by_a_torch_loop(drawn().case, drawn(), directory)


def by_a_mindspore_loop(directory: Path | None, out: Path) -> Weights:
    ms.set_context(mode=ms.GRAPH_MODE)
    return train_by_a_mindspore_loop(drawn().case, drawn(), directory)


TRAINERS: Mapping[str, Callable[[Path | None, Path], Weights]] = {
    "hugging-face": by_hugging_face,
    "torch-loop": by_a_torch_loop,
    "mindspore-loop": by_a_mindspore_loop,
}


@dataclass(frozen=True, kw_only=True)
class Collected:
    directory: Path
    weights: Weights

    @property
    def trace(self) -> Trace:
        return read_trace(self.directory / TRACE)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Collected]:
    threads, root = torch.get_num_threads(), tmp_path_factory.mktemp("collected")
    torch.set_num_threads(1)
    found = {}
    for name, train in TRAINERS.items():
        found[name] = Collected(directory=root / name, weights=train(root / name, root / f"{name}-output"))
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_collector_changes_no_bit(collected: dict[str, Collected], trainer: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = TRAINERS[trainer](None, tmp_path)
    torch.set_num_threads(threads)
    found = collected[trainer].weights
    assert set(alone) == set(found)
    assert [name for name in alone if not np.array_equal(alone[name], found[name])] == []


@pytest.mark.parametrize(
    ("trainer", "runner", "relative"),
    [
        # which sums a product takes depends, on some processors, on where its tensors lie in memory
        ("torch-loop", TorchReference, 3e-7),
        ("hugging-face", TorchReference, 3e-7),
        ("mindspore-loop", MindSporeSubject, 0.0),
    ],
)
def test_its_numbers_are_those_of_a_run_of_the_harness(
    collected: dict[str, Collected], trainer: str, runner: Any, relative: float
) -> None:
    inputs, trace = drawn(), collected[trainer].trace
    assert trace.complete
    own = runner(inputs.case, inputs.weights, SETTING)
    for step, tokens, mask in zip(trace.steps, inputs.tokens, inputs.mask, strict=True):
        numbers = own.train_step(tokens, mask)
        assert step.loss == pytest.approx(numbers.loss, rel=relative, abs=0)
        assert step.grad_norm == pytest.approx(numbers.grad_norm, rel=max(relative, 3e-8), abs=0)
        assert (step.learning_rate, step.tokens) == (numbers.learning_rate, numbers.tokens)
    assert trace.header.alignment == own.alignment()


@pytest.mark.parametrize(
    ("reference", "subject"),
    [("hugging-face", "mindspore-loop"), ("torch-loop", "mindspore-loop"), ("hugging-face", "torch-loop")],
)
def test_each_pair_reaches_preliminary(
    collected: dict[str, Collected], tmp_path: Path, reference: str, subject: str
) -> None:
    case, standards = judged_by(drawn().case, ())
    given = [collected[reference].directory], [collected[subject].directory]
    bundle, certificate = judge_collected(case, standards, *given, tmp_path / "out", ("certify", "judge"))
    assert [one.message for one in bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert certificate.level is Level.PRELIMINARY
