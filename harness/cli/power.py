"""`certify power`: which planted defects the gate rejects, and whether clean runs raise an alarm."""

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
from harness.base.parts import Part, read_part
from harness.base.records import encode_json
from harness.base.whole_files import whole_file
from harness.cases.case import DEFAULT_CASE, load_case
from harness.cases.task import PRETRAIN
from harness.certify.case_options import at_most
from harness.certify.jobs import Options
from harness.cli.options import DEFAULT_WORKERS, GatherOption, JsonOption, PartOption, WorkersOption
from harness.cli.terminal import MET, NOT_MET, Interrupted, error_console, out_console
from harness.defects import AREAS, PARALLEL, Defect, defects_of_file, load_defect, shipped_defects
from harness.defects.draw import drawn_defects
from harness.power.page import PowerPage, build_page, render_power
from harness.power.rates import false_alarms, misses
from harness.power.record import Clean, Planted, PowerStudy, first_sightings, read_power
from harness.studies.power import StudyPlan, gather, run_study

WORK = Path("certify-runs") / "power"
# The time of a clean run as a share of a defect's, until one was made. A shorter run was already done before.
CLEAN_SHARE, RUN_SECONDS = 0.12, 0.1


def power(
    out: Annotated[Path, typer.Option(help="File for the recorded study, such as power.json; it must be new.")],
    defects: Annotated[
        list[str] | None,
        typer.Option(
            help="A defect by id, an area, or FILE.py; may be given several times. Default: all defects of training in "
            "one process. Defects of several ranks are the area 'parallel', those of inference 'inference'."
        ),
    ] = None,
    drawn: Annotated[
        int,
        typer.Option(
            min=0, help="Number of faults whose kind, place, size and step are drawn; without --defects they alone."
        ),
    ] = 0,
    clean: Annotated[int | None, typer.Option(min=0, help="Number of clean runs; default: all.")] = None,
    case: Annotated[
        str | None,
        typer.Option(help="Plant in this case, and vary it for clean runs. Defects for another case are omitted."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=2, help="Plant in at most so many steps of a case, by the same limits; default: all."),
    ] = None,
    all_runs: Annotated[
        bool, typer.Option("--all-runs", help="Repeat and resume also a defect that its first runs reject.")
    ] = False,
    standard: Annotated[list[str] | None, typer.Option(help="Judge by this standard instead of the case's.")] = None,
    part: PartOption = None,
    gathered: GatherOption = None,
    work: Annotated[Path, typer.Option(help="Directory for intermediate results.")] = WORK,
    workers: WorkersOption = DEFAULT_WORKERS,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the results in --work.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Plant each defect in the real subject and record what rejects it; make clean runs and record false alarms.

    Exit code 0: every defect was rejected and no clean run was. 1: otherwise. 2: bad input or a missing prerequisite.
    """
    if out.exists():
        raise InputError(f"{out} exists. Choose another --out: a recorded study is never overwritten.")
    if gathered:
        _check_gathering(part, defects, drawn, clean, case, steps, standard)
        return _recorded(gather(gathered, ("certify", *sys.argv[1:]), _part_again), out, as_json)
    chosen = _chosen(defects, case) if defects or not drawn else []
    whole = case or DEFAULT_CASE
    chosen += drawn_defects(drawn, at_most(load_case(whole), steps), of=whole)
    plan = StudyPlan(
        defects=tuple(chosen),
        case=case,
        steps=steps,
        standards=tuple(standard or ()),
        clean=clean,
        every_run=all_runs,
        part=read_part(part) if part is not None else None,
    )
    options = Options(out=work, resume=resume, workers=workers, command=("certify", *sys.argv[1:]))
    try:
        study = run_study(plan, options, _Shown(plan, quiet=as_json))
    except KeyboardInterrupt:
        again = shlex.join([*options.command, *([] if resume else ["--resume"])])
        raise Interrupted(f"Interrupted; finished results are in {work}. Resume with: {again}") from None
    return _recorded(study, out, as_json)


def _recorded(study: PowerStudy, out: Path, as_json: bool) -> int:
    """Writes a study and, of a whole one, its page; prints what it shows."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, overwrite=False) as file:
        file.write(encode_json(study))
    if study.share is not None:
        found = {"study": str(out), "part": study.share.part, "planted": len(study.planted), "clean": len(study.clean)}
        gathering = f"Part {study.share.part}: {out}. When all are recorded: certify power --gather FILE ... --out FILE"
        print(json.dumps(found)) if as_json else out_console.print(gathering, markup=False, soft_wrap=True)
        return MET
    study = read_power(out)  # so that the page is that of the file, which may order names differently
    with whole_file(out.with_suffix(".html"), overwrite=True) as file:
        file.write(render_power(study).encode())
    page = build_page(study)
    if as_json:
        rates = {row.name: {"rate": row.rate, "interval": row.interval} for row in page.rates}
        names = {"missed": [one for one, _ in page.missed], "none": [one for one, _ in page.none]}
        print(json.dumps({"study": str(out), "rates": rates, **names}))
    else:
        _print(page, study.seconds, out)
    return MET if not any(misses(study)) and not false_alarms(study).count else NOT_MET


def _part_again(part: Part) -> str:
    """The command that makes a part, as far as it is known here."""
    return f"certify power --part {part} --out part-{part.number}.json (with the options of the other parts)"


def _check_gathering(part: str | None, *others: object) -> None:
    if part is not None or any(others):
        raise InputError("--gather runs nothing: give it with --out alone.")


def _chosen(names: Sequence[str] | None, case: str | None) -> list[Defect]:
    """The chosen defects, each once. With a case, by default all of its task that need no other case; a defect that is
    named is always planted there.

    Raises:
        InputError: a defect is not known, its file cannot be used, or there is no such case.
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
    """One line per result, with the remaining time, estimated separately for defects and clean runs."""

    def __init__(self, plan: StudyPlan, quiet: bool) -> None:
        self._left: dict[type, int] = {Planted: len(plan.defects_here), Clean: len(plan.clean_here)}
        self._took: dict[type, list[float]] = {Planted: [], Clean: []}
        self._total, self._quiet, self._last = plan.size, quiet, time.monotonic()

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
    if planted.none:
        return f"{planted.defect.id} is none here: no bit differs"
    if not first:
        return f"{planted.defect.id} MISSED"
    when = {None: "after the run", 0: "before the first step"}.get(first[0].step, f"at step {first[0].step}")
    others = f" and {len(first) - 1} more" if len(first) > 1 else ""
    return f"{planted.defect.id} rejected {when} by {first[0].criterion}{others}"


def _clean_line(clean: Clean) -> str:
    refused = ", ".join(one.criterion for one in clean.sightings)
    return f"{clean.variation}, seed {clean.seed}: " + (f"FALSE ALARM by {refused}" if refused else "no alarm")


def _print(page: PowerPage, seconds: float, out: Path) -> None:
    """The first section of the page, as lines."""
    table = Table("criterion", "refuses", "first", "alone", box=None, pad_edge=False)
    for one in page.criteria:
        redundant = " (redundant: never the first)" if one.redundant else ""
        table.add_row(one.criterion, str(one.finds), f"{one.first}{redundant}", str(one.only))
    out_console.print(table)
    for row in page.rates:
        out_console.print(f"{row.name}, {row.note}: {row.rate}, {row.interval}", markup=False, soft_wrap=True)
    for word, those in (("missed", page.missed), ("none here", page.none)):
        for defect, why in those:
            out_console.print(f"{word}: {defect}: {why}", markup=False, soft_wrap=True)
    where = f"recorded in {out}; page: {out.with_suffix('.html')}"
    out_console.print(f"{seconds / 60:.1f} minutes; {where}", markup=False, soft_wrap=True)
