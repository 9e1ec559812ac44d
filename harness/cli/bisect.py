"""`certify bisect`: the first bad commit between two nights."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.attestation import load_trust
from harness.base.code import ROOT
from harness.cli.options import JsonOption, TrustOption
from harness.cli.terminal import MET, NOT_MET, Interrupted, error_console, out_console
from harness.nightly.bisect import Found, Tried, ends_of
from harness.nightly.bisect import bisect as run_bisection
from harness.nightly.matrix import load_matrix, name_of

STYLES = {"good": "green", "bad": "bold red", "skip": "yellow"}


def bisect(
    matrix: Annotated[Path, typer.Argument(help="The cells (YAML), as for 'certify nightly'.")],
    cell: Annotated[
        str | None, typer.Argument(help="The cell, as the summary names it; default: the only one that fails.")
    ] = None,
    history: Annotated[Path, typer.Option(help="Directory of all nights.")] = Path("nightly"),
    good: Annotated[
        str | None, typer.Option(help="A good revision; default: that of the last night in which the cell was good.")
    ] = None,
    bad: Annotated[
        str | None, typer.Option(help="A bad revision; default: that of the newest night in which the cell fails.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="The checkout whose revisions are tried; default: that of this program.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Directory for worktree, bundles and results.")] = Path(
        "certify-runs/bisect"
    ),
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> int:
    """Name the first bad commit between two nights: run a cell that fails at revision after revision.

    Each revision runs in a worktree, with this interpreter and its packages; the checkout is not changed. Both ends
    run first, to see that the code is what changed. A revision that cannot run the cell is skipped. A bisection that
    was killed is resumed by the same command. Exit code 0: the commit is named. 1: it is not: skipped revisions are
    left, or something else than the code changed. 2: bad input.
    """
    chosen, trusted = load_matrix(matrix), load_trust(trust) if trust else None
    ends = ends_of(chosen, history, cell, good, bad)
    begin = f"{name_of(ends.cell)}: good {ends.good_revision}, bad {ends.bad_revision}"
    if not as_json:
        error_console.print(begin, markup=False, soft_wrap=True)
    listener = _quiet if as_json else _shown
    try:
        found = run_bisection(chosen, matrix, repository or ROOT, work, ends, trusted, listener)
    except KeyboardInterrupt:
        again = shlex.join(["certify", *sys.argv[1:]])
        raise Interrupted(f"Interrupted; finished revisions are kept. Resume with: {again}") from None
    if as_json:
        record = {
            "cell": name_of(ends.cell),
            "commits": [one.revision for one in found.commits],
            "why": found.why,
            "tried": [{"revision": one.revision, "verdict": one.verdict, "detail": one.detail} for one in found.tried],
        }
        print(json.dumps(record))
    else:
        _print(found, work)
    return MET if len(found.commits) == 1 else NOT_MET


def _quiet(tried: Tried) -> None:
    pass


def _shown(tried: Tried) -> None:
    line = f"{tried.verdict}: {tried.revision[:12]} {tried.subject} ({tried.seconds / 60:.1f} min): {tried.detail}"
    error_console.print(line, style=STYLES[tried.verdict], markup=False, soft_wrap=True)


def _print(found: Found, work: Path) -> None:
    if len(found.commits) == 1:
        out_console.print(f"First bad commit: {found.commits[0]}", style="bold", markup=False, soft_wrap=True)
    elif found.commits:
        out_console.print("Skipped revisions are left. The first bad commit is one of:", style="bold", markup=False)
        for one in found.commits:
            out_console.print(f"  {one}", markup=False, soft_wrap=True)
    else:
        out_console.print(f"No commit is named: {found.why}", style="bold", markup=False, soft_wrap=True)
    out_console.print(f"{len(found.tried)} revisions; bundles and logs: {work}", markup=False, soft_wrap=True)
