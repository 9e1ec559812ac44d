"""Training in PyTorch: what its process imports; and a run that is taken up goes on as if it had not stopped."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from harness.cases.case import load_case
from harness.corpus.draw import draw_weights
from harness.runners.oracle import Float64Oracle
from harness.runners.protocol import Setting
from harness.runners.torch_reference import TorchReference
from harness.runners.torch_training import TorchTrainer
from tests.support.examples import ROOT

SETTING = Setting(device="CPU", threads=1, learning_rate_zero=False)


@pytest.mark.parametrize("runner", [TorchReference, Float64Oracle])
@pytest.mark.parametrize("name", ["qwen3-tiny-fp32", "qwen3-tied-fp32"])
def test_a_run_from_a_checkpoint_goes_on_bit_for_bit_and_without_a_warning(
    tmp_path: Path, name: str, runner: type[TorchTrainer]
) -> None:
    case = load_case(name)
    weights, random = draw_weights(case), np.random.RandomState(0)
    batches = [random.randint(0, 300, (4, 17)).astype(np.int32) for _ in range(14)]
    mask = np.ones((4, 16), np.uint8)
    whole = runner(case, weights, SETTING)
    for tokens in batches[:7]:  # within the warm-up of one case, after that of the other
        whole.train_step(tokens, mask)
    whole.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = runner(case, weights, SETTING)
        resumed.load(tmp_path)
        steps = [(whole.train_step(tokens, mask), resumed.train_step(tokens, mask)) for tokens in batches[7:]]
    assert all(a == b for a, b in steps)


def test_a_reference_begins_without_scikit_learn_which_is_there_for_whoever_needs_it() -> None:
    code = (
        "import sys, harness.runners.torch_reference; "
        "assert not {'sklearn', 'pandas', 'scipy.stats'} & set(sys.modules); import sklearn.metrics"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
