"""`certify site | nightly`: publishes the levels, and runs a matrix of cases every night."""

import json
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.attestation import Trust, load_trust
from harness.base.errors import InputError
from harness.base.parts import read_part
from harness.cli.options import AtOption, JsonOption, TrustOption, moment
from harness.cli.terminal import MET, NOT_MET, Interrupted, error_console, out_console
from harness.nightly import CellChange, CellResult, CellState, Night
from harness.nightly.branch import attach, commit
from harness.nightly.history import NIGHTS, bundles
from harness.nightly.matrix import load_matrix
from harness.nightly.night import run_night
from harness.nightly.parts import gather
from harness.nightly.results import failing
from harness.nightly.summary import headline, summary
from harness.site import write_site

PowerOption = Annotated[
    list[Path] | None,
    typer.Option("--power", help="A study that 'certify power' recorded; may be given several times."),
]
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"  # a file that is shown on the page of a job
STYLES = {CellChange.REGRESSION: "bold red", CellChange.NOT_RUN: "yellow", CellChange.FIXED: "green"}


def site(
    bundles: Annotated[list[Path], typer.Argument(help="Directories of bundles, at any depth.")],
    out: Annotated[Path, typer.Option(help="Directory of the site; an existing site is replaced.")],
    power: PowerOption = None,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write a static site: the table of levels with its evidence, versions, history, detection power.

    It opens from a file or any web server, without a network. Exit code 0: written; invalid bundles are listed on it.
    """
    when = moment(at)
    written = write_site(bundles, out, power or [], load_trust(trust) if trust else None, when)
    if as_json:
        cells = {cell.id: cell.level for cell in written.site.cells}
        print(json.dumps({"out": str(out), "cells": cells, "refused": dict(written.site.unreadable)}))
        return MET
    for cell in written.site.cells:
        changed = f" ({'; '.join(cell.changed)})" if cell.changed else ""
        line = f"{cell.level}: {cell.case}{changed} on {cell.scope.device}"
        out_console.print(line, markup=False, soft_wrap=True)
    without = sum(row.computed is None for row in written.site.rows)
    out_console.print(f"no evidence: {without} of {len(written.site.stated.levels)} stated levels", markup=False)
    for name, why in written.site.unreadable:
        out_console.print(f"not valid evidence: {name}: {why}", style="yellow", markup=False, soft_wrap=True)
    out_console.print(f"Site: {out / 'index.html'}", markup=False, soft_wrap=True)
    return MET


def nightly(
    matrix: Annotated[Path, typer.Argument(help="The cells (YAML): cases, devices, levels, time limits.")],
    history: Annotated[Path, typer.Option(help="Directory of all nights.")] = Path("nightly"),
    part: Annotated[
        str | None,
        typer.Option(help="Run only this share of the cells, K/N such as 2/8; other machines run the others."),
    ] = None,
    gathered: Annotated[
        list[Path] | None,
        typer.Option("--gather", help="Run nothing: make one night of the histories of parts; give each."),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(help="Keep the history on this git branch, checked out at --history, with one commit per night."),
    ] = None,
    power: PowerOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run every cell of a matrix, compare with the night before, publish the site, and write a summary in Markdown.

    A cell that fails or cannot run is a result, and the night continues. A killed night is resumed where it stopped.
    Several machines share a night by --part, each with a history of its own, and --gather makes one of it.
    Exit code 0: no cell fails by the matrix's policy. 1: some do. 2: bad input, or another night is running.
    """
    chosen, trusted = load_matrix(matrix), load_trust(trust) if trust else None
    share = read_part(part) if part is not None else None
    if share and gathered:
        raise InputError("--part runs a share of the cells, and --gather runs nothing; give one of them.")
    if branch:
        attach(history, branch)
    listener = _quiet if as_json else _shown
    try:
        if gathered:
            night = gather(chosen, matrix, history, gathered, trusted, listener)
        else:
            night = run_night(chosen, matrix.resolve().parent, history, trusted, listener, share)
    except KeyboardInterrupt:
        words = ["certify", "nightly", str(matrix), "--history", str(history)]
        words += (
            ["--part", str(share)] if share else [word for one in gathered or () for word in ("--gather", str(one))]
        )
        again = shlex.join(words)
        raise Interrupted(f"Interrupted; finished cells are kept. Resume with: {again}") from None
    bad = failing(night, chosen)
    text = summary(night, bad)
    place = history / NIGHTS / night.name / "summary.md"
    place.write_text(text, encoding="utf-8")
    if page := os.environ.get(STEP_SUMMARY):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(text)
    published = _publish(history, power or [], trusted)
    if branch:
        commit(history, f"Night {night.name}: {headline(night, bad)}")
    if as_json:
        cells = {cell.cell: {"state": cell.state, "level": cell.level, "change": cell.change} for cell in night.cells}
        failed = [cell.cell for cell in bad]
        print(
            json.dumps(
                {"night": night.name, "cells": cells, "failing": failed, "summary": str(place), "site": published}
            )
        )
    else:
        _print_night(night, bad, place, published)
    return NOT_MET if bad else MET


def _publish(history: Path, studies: list[Path], trust: Trust | None) -> str | None:
    """The site of all nights; None if no night has a bundle yet."""
    there = bundles(history)
    if not there:
        return None
    write_site([history / NIGHTS], history / "site", studies, trust, datetime.now(UTC))
    return str(history / "site" / "index.html")


def _quiet(cell: CellResult) -> None:
    pass


def _shown(cell: CellResult) -> None:
    found = cell.level if cell.state is CellState.JUDGED else cell.state
    why = cell.why or cell.reason
    states = ", ".join(dict.fromkeys([str(found), str(cell.change)]))  # both are "not run" for a cell that was not run
    line = f"{cell.cell}: {states} ({cell.seconds / 60:.1f} min): {why}"
    error_console.print(line, style=STYLES.get(cell.change, ""), markup=False, soft_wrap=True)


def _print_night(night: Night, bad: list[CellResult], summary_file: Path, published: str | None) -> None:
    out_console.print(
        f"Nightly {night.name}: {headline(night, bad)}", style="bold red" if bad else "bold green", markup=False
    )
    out_console.print(f"Summary: {summary_file}", markup=False, soft_wrap=True)
    out_console.print(f"Site: {published or 'no bundle yet'}", markup=False, soft_wrap=True)
