"""The reference on a device against the reference on another: how far apart, whether it repeats, and in what time.

    python benchmarks/reference_devices.py make CASE --device cuda --out DIR [--steps N] [--oracle] [--workers W]
    python benchmarks/reference_devices.py compare DIR OTHER [--exact DIR]

`make` makes the runs of a reference as `certify run` makes them: training, its repeat, and the probe of gradients and
updates. `compare` takes the directory of a bundle too. Each parameter's first gradient is compared by the errors of
both against the exact one, which is that of the oracle of DIR unless `--exact` names another.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from harness.base.records import read_json, write_json
from harness.cases.case import load_case
from harness.cases.runs_of_a_case import ORACLE_PROBE, REFERENCE, REFERENCE_PROBE, REFERENCE_REPEAT
from harness.certify.jobs import Options, job
from harness.cli.options import REFERENCE_DEVICES
from harness.comparison.distance import relative
from harness.corpus.draw import draw_inputs
from harness.runners.launcher import Launcher
from harness.runs.files import GRADIENT, TIMING, TRACE, UPDATED
from harness.runs.sketches import SKETCH
from harness.runs.trace import Trace, read_trace

Tensors = Mapping[str, npt.NDArray[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    make = verbs.add_parser("make")
    make.add_argument("case")
    make.add_argument("--device", choices=REFERENCE_DEVICES, default="cpu")
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--steps", type=int)
    make.add_argument("--threads", type=int)
    make.add_argument("--workers", type=int, default=1)
    make.add_argument("--oracle", action="store_true")
    make.set_defaults(run=runs_of_reference)
    compare = verbs.add_parser("compare")
    compare.add_argument("one", type=Path)
    compare.add_argument("other", type=Path)
    compare.add_argument("--exact", type=Path)
    compare.set_defaults(run=compared)
    chosen = parser.parse_args()
    chosen.run(chosen)


def runs_of_reference(chosen: argparse.Namespace) -> None:
    case = load_case(chosen.case)
    names = [REFERENCE, REFERENCE_REPEAT, REFERENCE_PROBE, *([ORACLE_PROBE] if chosen.oracle else [])]
    options = Options(
        out=chosen.out,
        command=tuple(sys.argv),
        threads=chosen.threads,
        reference_device=REFERENCE_DEVICES[chosen.device],
    )
    draw_inputs(case, chosen.out / "inputs")
    jobs = [job(case, options, name) for name in names]
    if chosen.steps:
        jobs = [dataclasses.replace(one, steps=min(one.steps, chosen.steps)) for one in jobs]
    for run in Launcher(workers=chosen.workers).execute(jobs, case):
        print(run.name, run.outcome.status, run.outcome.detail)
        print(run.outcome.log_tail)
    write_json(chosen.out / "seconds.json", {name: seconds(chosen.out / "runs" / name) for name in names})


def seconds(run: Path) -> float | None:
    """The median step of a run but its first."""
    lines = [json.loads(line) for line in (run / TIMING).read_text().splitlines()]
    steps = [line["seconds"] for line in lines if "step" in line]
    return statistics.median(steps[1:] or steps) if steps else None


def compared(chosen: argparse.Namespace) -> None:
    one, other = (read_trace(path / "runs" / REFERENCE / TRACE) for path in (chosen.one, chosen.other))
    for path, trace in ((chosen.one, one), (chosen.other, other)):
        again = path / "runs" / REFERENCE_REPEAT / TRACE
        same = "not made"
        if again.is_file():
            repeat = read_trace(again)
            same = str(repeat.steps == trace.steps and _final(repeat) == _final(trace))
        times = path / "seconds.json"
        print(f"{path}: {dict(trace.header.provenance)}; repeats bitwise: {same}")
        print(f"  seconds of a step: {read_json(times) if times.is_file() else seconds(path / 'runs' / REFERENCE)}")
    pairs = list(zip(one.steps, other.steps, strict=False))
    for name in ("loss", "grad_norm"):
        apart = [relative(getattr(b, name), getattr(a, name)) for a, b in pairs]
        print(f"{name}: first {apart[0]:.2g}, largest of {len(apart)} steps {max(apart):.2g}")
    exact = load_file((chosen.exact or chosen.one) / "tensors" / f"{ORACLE_PROBE}.safetensors")
    mine, theirs = (
        load_file(path / "tensors" / f"{REFERENCE_PROBE}.safetensors") for path in (chosen.one, chosen.other)
    )
    for prefix in (GRADIENT, UPDATED):
        ratios = {name: error(mine, exact, name) / error(theirs, exact, name) for name in measured(exact, prefix)}
        worst = max(ratios, key=lambda name: ratios[name])
        middle = statistics.median(ratios.values())
        print(f"{prefix} error over the other's: median {middle:.3f}, largest {ratios[worst]:.3f} at {worst}")


def _final(trace: Trace) -> Mapping[str, str]:
    return trace.footer.parameters if trace.footer else {}


def measured(tensors: Tensors, prefix: str) -> list[str]:
    """The tensors of a kind, or their sketches."""
    sketches = [name for name in tensors if name.startswith(prefix) and name.endswith(SKETCH)]
    return sketches or [name for name in tensors if name.startswith(prefix)]


def error(tensors: Tensors, exact: Tensors, name: str) -> float:
    """The norm of the difference; of a sketch, its estimate, without the number that it begins with."""
    first = 1 if name.endswith(SKETCH) else 0
    mine, theirs = (one[name].astype(np.float64).reshape(-1)[first:] for one in (tensors, exact))
    return float(np.linalg.norm(mine - theirs)) or sys.float_info.min


if __name__ == "__main__":
    main()
