"""CPU seconds of a command, from start to end: this tree compared with other trees, in one run.

    python benchmarks/startup.py [--before DIR ...] [--bundle DIR] [--rounds N]

Each command is a process of its own in each tree, in turns. The first round is not counted; it fills the bytecode
caches. CPU seconds are user and system time of the process and its threads, as the kernel counts them for children.
`level` and `verify` are measured twice: on a directory without a bundle, where they import all they need and stop, and
on a published bundle, where they also read and recompute everything in it.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Prints a row for each command and a column for each tree: the median, and the range in brackets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, action="append", default=[], help="Another checkout to measure too.")
    parser.add_argument("--bundle", type=Path, default=ROOT / "reports" / "qwen3-tiny-fp32-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    trees = [*(tree.resolve() for tree in arguments.before), ROOT]
    cores = len(os.sched_getaffinity(0))
    print(f"Python {platform.python_version()}, {cores} cores; CPU seconds, median of {arguments.rounds}")
    width = max(map(len, map(str, trees)))
    for command in commands(arguments.bundle.resolve()):
        print(f"certify {' '.join(command)}")
        for tree, found in measure(trees, command, arguments.rounds).items():
            print(f"  {tree!s:<{width}} {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")


def commands(bundle: Path) -> list[list[str]]:
    """The measured commands, as arguments of `certify`."""
    nothing = str(ROOT / "benchmarks")
    on_bundles = [[verb, where] for verb in ("level", "verify") for where in (nothing, str(bundle))]
    return [["--help"], ["cases"], *on_bundles]


def measure(trees: Sequence[Path], command: Sequence[str], rounds: int) -> dict[Path, list[float]]:
    """CPU seconds of a command in each tree, round by round."""
    found: dict[Path, list[float]] = {tree: [] for tree in trees}
    for number in range(rounds + 1):
        for tree in trees:
            took = cpu_seconds(tree, command)
            if number:
                found[tree].append(took)
    return found


def cpu_seconds(tree: Path, command: Sequence[str]) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *command],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if "Traceback" in done.stderr:
        raise SystemExit(f"certify {' '.join(command)} failed in {tree}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
