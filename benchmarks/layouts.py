"""The seven layouts, certified one after the other on this machine: `python benchmarks/layouts.py DIRECTORY`.

Each case over its ranks is compared with the same subject in one process and with the PyTorch reference. Prints a table
of the differences, whether a repeat has the same bits, and the time per step over ranks and in one process. An existing
bundle is read and not made again.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness.base.digest import digest_json
from harness.cases.runs_of_a_case import SUBJECT, SUBJECT_ALONE
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.bundle_files import MANIFEST
from harness.evidence.judge import Outcome, statistic
from harness.runs.files import TIMING

CASES = (
    "qwen3-tiny-dp2",
    "qwen3-tiny-tp2",
    "qwen3-tiny-tp4",
    "qwen3-tiny-pp2",
    "qwen3-tiny-dp2-tp2",
    "qwen3-tiny-dp2-tp2-sharded",
    "qwen3-tied-tp2-pp2",
)
COLUMNS = {
    "loss to one process": ("layout.loss.relative", "maximum"),
    "norm": ("layout.grad_norm.relative", "maximum"),
    "gradients": ("layout.gradients.relative", "maximum"),
    "loss to PyTorch": ("train.loss.relative", "maximum"),
    "gradient error ratio": ("oracle.gradients.ratio", "rms"),
}


def main(directory: Path) -> None:
    began = time.monotonic()
    print(
        "| case | layout | not passing |",
        *(f"{name} |" for name in COLUMNS),
        "repeat | digest of the run | ms a step | ratio |",
    )
    print("|" + " --- |" * (len(COLUMNS) + 7))
    for case in CASES:
        bundle = certified(case, directory / case)
        print(row(case, bundle), flush=True)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes")


def certified(case: str, out: Path) -> Bundle:
    if not (out / MANIFEST).is_file():
        command = [sys.executable, "-m", "harness.cli", "run", case, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if not (out / MANIFEST).is_file():
            sys.exit(done.stderr)
    return read_bundle(out)


def row(case: str, bundle: Bundle) -> str:
    measured = [statistic(how, bundle.comparison[name].values) for name, how in COLUMNS.values()]
    bad = [f.criterion for f in bundle.findings if f.outcome is not Outcome.PASS]
    repeats = [
        bundle.comparison[f"subject.repeat.{what}.differs"].values for what in ("loss", "grad_norm", "parameters")
    ]
    same = all(values and not any(values) for values in repeats)
    ranks, alone = (per_step(bundle, name) for name in (SUBJECT, SUBJECT_ALONE))
    cells = [
        case,
        str(bundle.case.parallel),
        "none" if not bad else ", ".join(bad),
        *(f"{value:.1e}" if value < 0.01 else f"{value:.2f}" for value in measured),
        "same bits" if same else "DIFFERS",
        numbers(bundle)[:12],
        f"{1000 * ranks:.0f}",
        f"{ranks / alone:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def numbers(bundle: Bundle) -> str:
    """Digest of every number of the first run over ranks: each step's, and each final parameter's."""
    trace = bundle.runs[SUBJECT].trace
    if trace is None or trace.footer is None:
        return "-"
    return digest_json([[dataclasses.astuple(step) for step in trace.steps], trace.footer.parameters])


def per_step(bundle: Bundle, run: str) -> float:
    lines = (bundle.path / "runs" / run / TIMING).read_text().splitlines()
    return statistics.median(json.loads(line)["seconds"] for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where the bundles are, or will be")
    main(parser.parse_args().directory)
