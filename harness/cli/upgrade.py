"""`certify upgrade`: what an upgrade of the frameworks changes in the numbers of a case."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness.cases.case import DEFAULT_CASE, load_case
from harness.certify import case_options
from harness.certify.jobs import Options
from harness.certify.uv_environments import interpreter_of, versions_of
from harness.cli.diff import show
from harness.cli.options import CASE_HELP, DEFAULT_WORKERS, JsonOption, WorkersOption
from harness.cli.run import run_shown
from harness.cli.terminal import BROKEN, MET, NOT_MET, error_console, out_console
from harness.evidence.diff import DifferenceKind, diff_bundles

BEFORE, AFTER = "before", "after"


def upgrade(
    from_: Annotated[Path, typer.Option("--from", help="Constraints of the versions that are there.")],
    to: Annotated[Path, typer.Option("--to", help="Constraints of the versions to go to.")],
    case: Annotated[str, typer.Argument(help=CASE_HELP)] = DEFAULT_CASE,
    out: Annotated[Path, typer.Option(help="Directory for both bundles.")] = Path("certify-upgrade"),
    resume: Annotated[bool, typer.Option("--resume", help="Resume the runs that did not finish.")] = False,
    workers: WorkersOption = DEFAULT_WORKERS,
    subject: Annotated[str, typer.Option(help="Runner that is certified: a name or MODULE:CLASS.")] = "mindspore",
    as_json: JsonOption = False,
) -> int:
    """Run a case under two sets of versions, and show what the upgrade changes.

    uv makes an environment for each set, or takes one that resolved to the same. Exit code 0: the same bits, or drift
    without a regression. 1: a regression. 2: bad input or a missing prerequisite. 3: a run failed.
    """
    chosen = load_case(case)
    standards = case_options.load_standards(chosen.standards, chosen)
    sets = {BEFORE: versions_of(from_), AFTER: versions_of(to)}
    # both before the first run: a set that cannot be installed is known in minutes, not after a training
    pythons = {name: interpreter_of(versions) for name, versions in sets.items()}
    bundles = []
    for name, python in pythons.items():
        if not as_json:
            error_console.print(f"{name}: {_listed(sets[name])}", markup=False, soft_wrap=True)
        options = Options(
            out=out / name,
            resume=resume and (out / name).exists(),
            workers=workers,
            subject=subject,
            subject_python=python,
            reference_python=python,
            command=("certify", *sys.argv[1:]),
        )
        bundles.append(run_shown(chosen, standards, options, quiet=as_json)[0])
    if any(not run.outcome.ended for bundle in bundles for run in bundle.runs.values()):
        broken = [
            f"{one.path.name}/{run.name}" for one in bundles for run in one.runs.values() if not run.outcome.ended
        ]
        error_console.print(f"These runs failed: {', '.join(broken)}", markup=False, soft_wrap=True)
        return BROKEN
    found = diff_bundles(*bundles)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    else:
        show(found)
        for bundle in bundles:
            out_console.print(f"Page: {bundle.path / 'report.html'}", markup=False, soft_wrap=True)
    return NOT_MET if found.kind is DifferenceKind.REGRESSION else MET


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
