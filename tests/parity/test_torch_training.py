"""Training in PyTorch: what its process imports; and a run that is taken up goes on as if it had not stopped."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cases.case import load_case
from harness.corpus.draw import draw_weights
from harness.runners import oracle, torch_reference
from harness.runners.oracle import Float64Oracle
from harness.runners.protocol import Setting
from harness.runners.torch_processes import OneProcess
from harness.runners.torch_reference import TorchReference
from harness.runners.torch_training import TorchTrainer
from harness.runs import inputs
from tests.support.examples import ROOT

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)


@pytest.mark.parametrize("runner", [TorchReference, Float64Oracle])
@pytest.mark.parametrize(("name", "file_bytes"), [("qwen3-tiny-fp32", 1 << 30), ("qwen3-tied-fp32", 100_000)])
def test_a_run_from_a_checkpoint_goes_on_bit_for_bit_and_without_a_warning(
    tmp_path: Path, name: str, file_bytes: int, runner: type[TorchTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from a checkpoint in several files."""
    monkeypatch.setattr(inputs, "FILE_BYTES", file_bytes)
    case = load_case(name)
    weights, random = draw_weights(case), np.random.RandomState(0)
    batches = [random.randint(0, 300, (4, 17)).astype(np.int32) for _ in range(14)]
    mask = np.ones((4, 16), np.uint8)
    whole = runner(case, weights, SETTING)
    for tokens in batches[:7]:  # within the warm-up of one case, after that of the other
        whole.train_step(tokens, mask)
    whole.save(tmp_path)
    assert (len([*tmp_path.glob("*.safetensors")]) > 1) == (file_bytes < 1 << 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = runner(case, weights, SETTING)
        resumed.load(tmp_path)
        steps = [(whole.train_step(tokens, mask), resumed.train_step(tokens, mask)) for tokens in batches[7:]]
    assert all(a == b for a, b in steps)


class Ordered(Mapping[str, Any]):
    """Weights that note when each is read."""

    def __init__(self, weights: Mapping[str, Any], events: list[str]) -> None:
        self._weights, self._events = weights, events

    def __getitem__(self, name: str) -> Any:
        self._events.append(name)
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


class Sharding(OneProcess):
    """Takes itself for one of two processes, and notes when it leaves itself a part of a module."""

    count = 2

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def shard(self, module: Any, sums: Any = None) -> None:
        assert not [name for name, one in module.named_parameters() if one.is_meta], "it is sharded with its weights"
        self._events.append("sharded")


@pytest.mark.parametrize(("module", "runner"), [(torch_reference, TorchReference), (oracle, Float64Oracle)])
@pytest.mark.parametrize("name", ["qwen3-tiny-fp32", "qwen3-tied-fp32"])
def test_a_layer_is_sharded_before_the_next_is_read(
    module: Any, runner: type[TorchTrainer], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no process ever holds the model whole."""
    events: list[str] = []
    monkeypatch.setattr(module, "processes_of", lambda *_: Sharding(events))
    case = load_case(name)
    weights = draw_weights(case)
    runner(case, Ordered(weights, events), SETTING)
    *layers, last, rest = " ".join(events).split(" sharded")
    assert rest == "" and len(layers) == case.model.num_hidden_layers
    for number, read in enumerate(layers):
        assert {*read.split()} == {one for one in weights if one.startswith(f"model.layers.{number}.")}
    assert {*last.split()} == {one for one in weights if not one.startswith("model.layers.")}


def test_a_reference_begins_without_scikit_learn_which_is_there_for_whoever_needs_it() -> None:
    code = (
        "import sys, harness.runners.torch_reference; "
        "assert not {'sklearn', 'pandas', 'scipy.stats'} & set(sys.modules); import sklearn.metrics"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
