"""What the protection of the runs costs: `certify run` of one case with each protection in turn, in one run.

    python benchmarks/isolation.py [--case NAME] [--rounds N] [--before DIR ...] [OPTION OF certify run ...]

Wall-clock and CPU seconds of the whole command, all of its runs included, as a user starts it. CPU seconds are user and
system time, as the kernel counts them for children that ended. The first in a round changes from round to round, as it
has colder caches. `--before` names another checkout, which is run as it protects by default; one from before there was
any protection shows the cost of all of it. The commands of this checkout must end with the same findings.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROTECTIONS = ("order", "namespaces")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A checkout, and the protection that its runs get; None: the one that it chooses."""

    tree: Path
    protection: str | None

    @property
    def name(self) -> str:
        return self.protection or str(self.tree)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Seconds of one command, and how many of its criteria passed."""

    wall: float
    user: float
    system: float
    passed: str


def main() -> None:
    """Prints a line for each command as it ends, then a row for each way: the medians, and the range of wall clock."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="qwen3-tiny-fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, action="append", default=[], help="Another checkout to measure too.")
    arguments, options = parser.parse_known_args()
    ways = [Way(tree=tree.resolve(), protection=None) for tree in arguments.before]
    ways += [Way(tree=ROOT, protection=name) for name in PROTECTIONS]
    print(f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores, {arguments.case}", flush=True)
    found: dict[str, list[Taken]] = {way.name: [] for way in ways}
    for number in range(arguments.rounds):
        turn = number % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            taken = take(way, arguments.case, options)
            found[way.name].append(taken)
            print(f"round {number + 1}, {way.name}: {taken.wall:.1f} s, {taken.user:.1f} s user, "
                  f"{taken.system:.1f} s system, {taken.passed}", flush=True)  # fmt: skip
    print(*table(found), sep="\n")
    if len({taken.passed for name in PROTECTIONS for taken in found[name]}) > 1:
        raise SystemExit("the commands did not end with the same findings")


def table(found: dict[str, list[Taken]]) -> list[str]:
    """The medians, side by side."""
    lines = ["", "| protection | wall, s | range | user, s | system, s |", "| --- | --- | --- | --- | --- |"]
    for name, every in found.items():
        wall = [taken.wall for taken in every]
        user, system = (statistics.median(getattr(taken, key) for taken in every) for key in ("user", "system"))
        spread = f"{min(wall):.1f} to {max(wall):.1f}"
        lines.append(f"| {name} | {statistics.median(wall):.1f} | {spread} | {user:.1f} | {system:.1f} |")
    return lines


def take(way: Way, case: str, options: list[str]) -> Taken:
    """Runs a case once, with these further options.

    Raises:
        SystemExit: the command failed, or its runs had another protection, so nothing was measured.
    """
    with tempfile.TemporaryDirectory(prefix="isolation-") as directory:
        out = Path(directory) / "bundle"
        protected = ["--protection", way.protection] if way.protection else []
        command = [sys.executable, "-m", "harness.cli", "run", case, "--out", str(out), "--json", *protected, *options]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(way.tree)}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        result = json.loads(done.stdout)
    except ValueError:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}") from None
    if way.protection and result["protection"] != way.protection:
        raise SystemExit(f"{' '.join(command)} had the protection {result['protection']}")
    return Taken(
        wall=wall,
        user=after.ru_utime - before.ru_utime,
        system=after.ru_stime - before.ru_stime,
        passed=passed(result),
    )


def passed(result: dict[str, Any]) -> str:
    """What came out, in a few words."""
    outcomes = [finding["outcome"] for finding in result["findings"]]
    return f"{outcomes.count('PASS')} of {len(outcomes)} criteria pass"


if __name__ == "__main__":
    main()
