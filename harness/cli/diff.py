"""`certify diff`: what changed between two bundles."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption
from harness.cli.terminal import MET, NOT_MET, out_console
from harness.evidence.bundle import read_bundle
from harness.evidence.diff import BundleDifference, DifferenceKind, diff_bundles


def diff(
    before: Annotated[Path, typer.Argument(help="Directory of a finished bundle.")],
    after: Annotated[Path, typer.Argument(help="Directory of another bundle, of the same case.")],
    as_json: JsonOption = False,
) -> int:
    """Show what changed between two bundles, and whether it is toolchain drift or a regression.

    Exit code 1: a regression, or another case. 0: anything else.
    """
    found = diff_bundles(read_bundle(before), read_bundle(after))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    else:
        show(found)
    return NOT_MET if found.kind in (DifferenceKind.REGRESSION, DifferenceKind.ANOTHER_CASE) else MET


def show(found: BundleDifference) -> None:
    """Prints what changed, where the subject began to differ, and the verdict."""
    section = ""
    for change in found.changes:
        if change.section != section:
            section = change.section
            out_console.print(f"{section}:", style="bold")
        words = f"{change.before} -> {change.after}" if change.before else change.after
        out_console.print(f"  {change.name}: {words}", markup=False, soft_wrap=True)
    if found.where:
        out_console.print("subject:", style="bold")
    for line in found.where:
        out_console.print(f"  {line}", markup=False, soft_wrap=True)
    out_console.print(f"{found.kind}: {found.reason}", style="bold", markup=False, soft_wrap=True)
