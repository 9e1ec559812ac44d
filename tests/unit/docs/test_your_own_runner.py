"""The example runner in docs/ certifies a case as it is printed, with a trainer of NumPy behind it."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import caller
from tests.support.documents import SITE, code_blocks, read
from tests.support.examples import FAKES, ROOT, TEXT, small_case

pytestmark = pytest.mark.usefixtures("forked_runs")
EXAMPLE = code_blocks(read(SITE / "your-own-runner.md"))
# What the example imports: a trainer with the methods that it calls.
MY_PROJECT = """
from harness.runners import Setting
from qwen3_model.configuration_qwen3 import parameter_shapes
from tests.support.fake_runners import Fake


class Trainer:
    version = "1.0"

    def __init__(self, case, fixed_rate, device, threads):
        self.case = case
        self.setting = Setting(device=device, threads=threads, learning_rate_zero=fixed_rate == 0.0)

    def set_weights(self, weights):
        self.model = Fake(self.case, weights, self.setting)

    def step(self, inputs, targets, loss_mask):
        numbers = self.model.train_step(whole(inputs, targets), loss_mask)
        return numbers.loss, numbers.grad_norm, numbers.learning_rate

    def gradients(self, inputs, targets, loss_mask):
        return self.model.gradients(whole(inputs, targets), loss_mask)

    def apply_gradients(self, gradients):
        self.model.apply_gradients(gradients)

    def description(self):
        optimizer, (beta1, beta2) = self.case.optimizer, self.case.optimizer.betas
        shapes = dict(parameter_shapes(self.case.model))
        return dict(
            model=self.case.model.to_hf(),
            shapes=shapes,
            optimizer=dict(beta1=beta1, beta2=beta2, eps=optimizer.eps, weight_decay=optimizer.weight_decay),
            decayed=frozenset(name for name, shape in shapes.items() if len(shape) > 1),
            clip_grad=self.case.training.clip_grad,
            gradient_accumulation_steps=self.case.training.gradient_accumulation_steps,
        )

    def get_weights(self):
        return self.model.parameters()

    def save(self, directory):
        self.model.save(directory)

    def load(self, directory):
        self.model.load(directory)


def whole(inputs, targets):
    import numpy as np

    return np.concatenate([inputs, targets[:, -1:]], axis=1)
"""


def test_the_example_runner_certifies_a_case_as_it_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ((_, code),) = [block for block in EXAMPLE if block[0] == "python"]
    (name,) = re.findall(r"^# (\S+\.py)$", code, re.MULTILINE)
    (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "my_project.py").write_text(MY_PROJECT, encoding="utf-8")
    (tmp_path / "corpus.txt").write_text(TEXT, encoding="utf-8")
    case = small_case(steps=40, lr_zero_steps=5)
    data = {**case.data.model_dump(), "corpus": {"kind": "text", "path": "corpus.txt"}}
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case.with_changes(data=data).model_dump(mode="json")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    (command,) = [block.strip() for language, block in EXAMPLE if block.startswith("certify run")]
    program, verb, *options = shlex.split(command)
    result = caller(capsys, monkeypatch)(
        verb,
        "case.yaml",
        *options,
        "--reference",
        f"{FAKES}:Fake",
        "--oracle",
        f"{FAKES}:OneRoundingAside",
        "--out",
        "bundle",
    )

    assert (program, verb) == ("certify", "run")
    assert "Level: Preliminary" in result.out, result.said
    assert "FAIL" not in result.out and "ERROR" not in result.out
