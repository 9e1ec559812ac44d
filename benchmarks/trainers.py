"""A case trained by real trainers, each with the collector in it, and each pair judged.

The trainers are mindformers' own on one CPU worker, Hugging Face's, a plain loop in PyTorch and one in MindSpore.
Prints a row for each pair: the level, the largest differences, and what fails; the bundles stay under DIRECTORY.

    python -m benchmarks.trainers DIRECTORY [--case CASE] [--steps N]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore as ms  # before torch: its protobuf files are older
import torch

from harness.cases.case import DEFAULT_CASE, Case, load_case
from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.corpus.draw import draw_inputs
from harness.evidence.judge import Outcome
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors, read_weights
from tests.support.examples import shorter
from tests.support.mindformers_run import ROOT, of_rows
from tests.support.mindspore_loop import train_by_a_mindspore_loop
from tests.support.trainers import train_by_a_torch_loop, train_by_hugging_face

REFERENCES, SUBJECTS = ("hugging-face", "torch-loop"), ("mindformers", "mindspore-loop")
SHOWN = ("train.loss.relative", "train.grad_norm.relative", "train.learning_rate.relative")
ROW = "{:14} {:16} {:12} {:>10} {:>10} {:>10} {:>10}  {}"


def inputs_of(case: Case, directory: Path) -> Any:
    """Weights by name, tokens [steps, B, S+1] and masks [steps, B, S]."""
    draw_inputs(case, directory)
    batches = read_tensors(directory / BATCHES)
    weights = dict(read_weights(directory / WEIGHTS).items())
    return SimpleNamespace(weights=weights, tokens=batches["tokens"], mask=batches["loss_mask"])


def train_by_mindformers(case: Case, place: Path, directory: Path) -> None:
    """In a process of its own; with rates computed in float64 where the schedule is a cosine."""
    place.mkdir()
    file = of_rows(place, case, "CertifyCosine")
    words = ["-m", "tests.support.mindformers_driver", str(file), str(directory), str(place / "initial")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words], cwd=place, env=environment, stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    """Trains, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--case", default=DEFAULT_CASE)
    parser.add_argument("--steps", type=int, default=None)
    asked = parser.parse_args()
    case, root = load_case(asked.case), asked.directory.resolve()
    case = case if asked.steps is None else shorter(case, asked.steps)
    inputs = inputs_of(case, root / "inputs")
    train_by_mindformers(case, root / "by-mindformers", root / "mindformers")
    torch.set_num_threads(1)
    train_by_hugging_face(case, inputs, root / "hugging-face", root / "by-hugging-face")
    train_by_a_torch_loop(case, inputs, root / "torch-loop")
    ms.set_context(mode=ms.GRAPH_MODE)
    train_by_a_mindspore_loop(case, inputs, root / "mindspore-loop")
    print(f"{case.name}, {case.training.steps} steps. Largest differences, relative:")
    print(ROW.format("reference", "subject", "level", "first loss", "loss", "norm", "rate", "fails"))
    case, standards = judged_by(case, ())
    for reference, subject in [
        (one, other) for one in REFERENCES for other in (*SUBJECTS, "torch-loop") if one != other
    ]:
        out = root / f"{subject}-by-{reference}"
        command = ("python", "-m", "benchmarks.trainers")
        bundle, certificate = judge_collected(case, standards, [root / reference], [root / subject], out, command)
        values = [bundle.comparison[name].values for name in SHOWN]
        numbers = [f"{number:.1e}" for number in (values[0][0], *map(max, values))]
        fails = [one.criterion for one in bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)]
        print(ROW.format(reference, subject, str(certificate.level), *numbers, ", ".join(fails) or "nothing"))


if __name__ == "__main__":
    main()
