"""`certify power`: what the gate sees of planted defects, and whether clean runs raise an alarm."""

import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from harness.base.errors import InputError
from harness.base.records import encode_json
from harness.base.whole_files import whole_file
from harness.cases.case import load_case
from harness.cases.task import PRETRAIN
from harness.certify.jobs import Options
from harness.cli.options import DEFAULT_WORKERS, JsonOption, WorkersOption
from harness.cli.terminal import MET, NOT_MET, Interrupted, error_console, out_console
from harness.defects import AREAS, PARALLEL, Defect, defects_of_file, load_defect, shipped_defects
from harness.power.page import PowerPage, build_page, render_power
from harness.power.rates import false_alarms, found
from harness.power.record import Clean, Planted, first_sightings, read_power
from harness.studies.power import Asked, run_study

WORK = Path("certify-runs") / "power"
# What a clean run takes of a defect's time, until one was made. What takes less than a moment was there already.
CLEAN_SHARE, RUN_SECONDS = 0.12, 0.1


def power(
    out: Annotated[Path, typer.Option(help="File for the recorded study, such as power.json; it must be new.")],
    defects: Annotated[
        list[str] | None,
        typer.Option(
            help="A defect by id, an area, or FILE.py; may be given several times. Default: all of training in one "
            "process; those of several ranks are the area 'parallel', those of a model that is asked 'inference'."
        ),
    ] = None,
    clean: Annotated[int | None, typer.Option(min=0, help="How many clean runs; all without it.")] = None,
    case: Annotated[
        str | None,
        typer.Option(help="Plant in this case, and vary it for clean runs. Defects that ask for another are left out."),
    ] = None,
    standard: Annotated[list[str] | None, typer.Option(help="Judge by this standard, not the case's.")] = None,
    work: Annotated[Path, typer.Option(help="Directory for what is done so far.")] = WORK,
    workers: WorkersOption = DEFAULT_WORKERS,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what --work holds.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Plant each defect in the real subject and see what refuses it; make clean runs and see that nothing does.

    Exit code 0: every defect was refused and no clean run was. 1: not so. 2: bad input or a missing prerequisite.
    """
    if out.exists():
        raise InputError(f"{out} exists. Choose another --out: a recorded study is not written over.")
    asked = Asked(defects=tuple(_chosen(defects, case)), case=case, standards=tuple(standard or ()), clean=clean)
    options = Options(out=work, resume=resume, workers=workers, command=("certify", *sys.argv[1:]))
    try:
        study = run_study(asked, options, _Shown(asked, quiet=as_json))
    except KeyboardInterrupt:
        again = shlex.join([*options.command, *([] if resume else ["--resume"])])
        raise Interrupted(f"Interrupted; what was concluded is in {work}. Go on with: {again}") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, overwrite=False) as file:
        file.write(encode_json(study))
    study = read_power(out)  # the page is what anyone makes of the file, also where that orders names otherwise
    with whole_file(out.with_suffix(".html"), overwrite=True) as file:
        file.write(render_power(study).encode())
    page = build_page(study)
    if as_json:
        rates = {row.name: {"rate": row.rate, "interval": row.interval} for row in page.rates}
        print(json.dumps({"study": str(out), "rates": rates, "missed": [missed for missed, _ in page.missed]}))
    else:
        _print(page, study.seconds, out)
    return MET if found(study).count == len(study.planted) and not false_alarms(study).count else NOT_MET


def _chosen(names: Sequence[str] | None, case: str | None) -> list[Defect]:
    """The defects that are meant, each once. In a case that is asked for, all of its task but those that ask for
    another case; any that is named is planted there.

    Raises:
        InputError: one is not known, its file cannot be used, or there is no such case.
    """
    shipped = list(shipped_defects().values())
    if case is not None:
        task = load_case(case).task
        shipped = [one for one in shipped if one.task == task and one.case in (case, task.usual_case)]
    if not names:
        return [one for one in shipped if one.area != PARALLEL and (case or one.task == PRETRAIN)]
    wanted = list[Defect]()
    for name in names:
        if name in AREAS:
            wanted += [one for one in shipped if one.area == name]
        elif name.endswith(".py"):
            wanted += defects_of_file(Path(name))
        else:
            wanted.append(load_defect(name))
    if not wanted:
        raise InputError(f"No defect of {', '.join(names)} can be planted in {case}. Name one, or another --case.")
    return list({one.id: one for one in wanted}.values())


class _Shown:
    """A line a result, with the time that is left: defects and clean runs take their own."""

    def __init__(self, asked: Asked, quiet: bool) -> None:
        self._left: dict[type, int] = {Planted: len(asked.defects), Clean: asked.size - len(asked.defects)}
        self._took: dict[type, list[float]] = {Planted: [], Clean: []}
        self._total, self._quiet, self._last = asked.size, quiet, time.monotonic()

    def __call__(self, one: Planted | Clean) -> None:
        self._left[type(one)] -= 1
        took, self._last = time.monotonic() - self._last, time.monotonic()
        if took > RUN_SECONDS:
            self._took[type(one)].append(took)
        if self._quiet:
            return
        planted, clean = (float(np.mean(took)) if took else None for took in (self._took[Planted], self._took[Clean]))
        if clean is None:
            clean = CLEAN_SHARE * (planted or 0.0)
        left = self._left[Planted] * (planted or 0.0) + self._left[Clean] * clean
        what = _planted_line(one) if isinstance(one, Planted) else _clean_line(one)
        done = self._total - sum(self._left.values())
        error_console.print(f"{done} of {self._total}, {left / 60:.0f} min left: {what}", markup=False, soft_wrap=True)


def _planted_line(planted: Planted) -> str:
    first = first_sightings(planted.sightings)
    if not first:
        return f"{planted.defect.id} was NOT seen"
    when = {None: "after the run", 0: "before the first step"}.get(first[0].step, f"at step {first[0].step}")
    others = f" and {len(first) - 1} more" if len(first) > 1 else ""
    return f"{planted.defect.id} seen {when} by {first[0].criterion}{others}"


def _clean_line(clean: Clean) -> str:
    refused = ", ".join(one.criterion for one in clean.sightings)
    return f"{clean.variation}, seed {clean.seed}: " + (f"FALSE ALARM of {refused}" if refused else "no alarm")


def _print(page: PowerPage, seconds: float, out: Path) -> None:
    """What the page shows first, in lines."""
    table = Table("criterion", "refuses", "first", "alone", box=None, pad_edge=False)
    for one in page.criteria:
        redundant = " (redundant: never the first)" if one.redundant else ""
        table.add_row(one.criterion, str(one.finds), f"{one.first}{redundant}", str(one.only))
    out_console.print(table)
    for row in page.rates:
        out_console.print(f"{row.name}, {row.note}: {row.rate}, {row.interval}", markup=False, soft_wrap=True)
    for missed, why in page.missed:
        out_console.print(f"not seen: {missed}: {why}", markup=False, soft_wrap=True)
    where = f"recorded in {out}, shown by {out.with_suffix('.html')}"
    out_console.print(f"{seconds / 60:.1f} minutes; {where}", markup=False, soft_wrap=True)
