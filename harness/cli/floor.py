"""`certify floor`: how far apart correct implementations of a case are, and the limits derived from it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.base.errors import InputError
from harness.base.parts import Part, read_part
from harness.base.records import encode_json
from harness.base.whole_files import whole_file
from harness.cases.case import check_trains, load_case
from harness.certify.jobs import Options
from harness.cli.options import (
    DEFAULT_WORKERS,
    CaseArgument,
    GatherOption,
    JsonOption,
    PartOption,
    WorkersOption,
    reference_device,
)
from harness.cli.progress import Progress
from harness.cli.terminal import MET, Interrupted, error_console, out_console
from harness.evidence.floor import QUANTITIES, FloorStudy, quantity
from harness.studies.floor import gather, names_of_runs, repeats, repeats_of_kinds, repeats_of_shapes, share_of
from harness.studies.floor import study as run_study

# What is shown of each kind of reference.
DISTANCES = (
    ("train.loss.relative", "first"),
    ("train.loss.relative", "maximum"),
    ("train.grad_norm.relative", "maximum"),
    ("train.parameters.relative", "maximum"),
    ("oracle.gradients.ratio", "maximum"),
)


def floor(
    case: CaseArgument,
    out: Annotated[Path, typer.Option(help="File for the study, such as floors/my-case.json; it must be new.")],
    seeds: Annotated[int, typer.Option(min=0, help="Repeats with moved weights, for each attention.")] = 10,
    shapes: Annotated[
        bool,
        typer.Option("--shapes", help="Also repeat the case in other, small shapes, for limits that hold there."),
    ] = False,
    reference_on: Annotated[
        str, typer.Option("--reference-device", help="Also repeat the reference on this device: cuda or npu.")
    ] = "cpu",
    reference_processes: Annotated[
        int, typer.Option("--reference-processes", min=1, help="Also repeat it over so many processes, by FSDP2.")
    ] = 1,
    part: PartOption = None,
    gathered: GatherOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    as_json: JsonOption = False,
) -> int:
    """Measure how far apart correct implementations of a case are, and print the limits derived from it.

    Repeats the reference with other threads, another attention, and weights moved by one unit in the last place; with
    --reference-device and --reference-processes also on another device and over several processes. States how far each
    kind is from the reference. Take a limit from it before the run that it judges, never after.

    Exit code 0: recorded. 2: bad input, a missing prerequisite, or a run failed.
    """
    if out.exists():
        raise InputError(f"{out} exists. Choose another --out: a recorded study is never overwritten.")
    if gathered:
        if part is not None:
            raise InputError("--gather runs nothing: omit --part.")
        return _recorded(gather(gathered, ("certify", *sys.argv[1:]), lambda one: _part_again(case, one)), out, as_json)
    kinds = repeats_of_kinds(seeds, reference_device(reference_on), reference_processes)
    chosen, perturbed = load_case(case), repeats(seeds) + kinds + (repeats_of_shapes() if shapes else ())
    check_trains(chosen, "'certify floor' repeats the training of the reference")
    here, share = share_of(chosen, perturbed, read_part(part) if part is not None else None)
    options = Options(out=out, workers=workers, command=("certify", *sys.argv[1:]))
    try:
        with Progress(error_console, names_of_runs(chosen, options, here), quiet=as_json) as progress:
            made = run_study(chosen, options, here, progress.update, share)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; nothing was recorded and no process is left.") from None
    return _recorded(made, out, as_json)


def _recorded(made: FloorStudy, out: Path, as_json: bool) -> int:
    """Writes a study and prints it; of a part, what it is a part of."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, overwrite=False) as file:
        file.write(encode_json(made))
    if made.share is None:
        _print(made, out, as_json)
    elif as_json:
        print(json.dumps({"study": str(out), "part": made.share.part, "repeats": len(made.repeats)}))
    else:
        gathering = f"certify floor {made.case} --gather FILE ... --out FILE"
        out_console.print(
            f"Part {made.share.part}: {out}. When all are recorded: {gathering}", markup=False, soft_wrap=True
        )
    return MET


def _part_again(case: str, part: Part) -> str:
    """The command that makes a part, as far as it is known here."""
    return f"certify floor {case} --part {part} --out part-{part.number}.json (with the options of the other parts)"


def _print(study: FloorStudy, out: Path, as_json: bool) -> None:
    rows = [
        (measurement, of, *study.envelope(measurement, of), study.limit(measurement, of))
        for measurement, of in QUANTITIES
        if quantity(measurement, of) in study.values
    ]
    if as_json:
        names = ("measurement", "statistic", "lowest", "highest", "limit")
        quantities = [dict(zip(names, row, strict=True)) for row in rows]
        kinds = {kind: _distances(one) for kind, one in study.by_kind().items()}
        found = {"study": str(out), "repeats": len(study.repeats), "quantities": quantities, "kinds": kinds}
        print(json.dumps(found))
        return
    table = Table("quantity", "lowest", "highest", "derived limit", box=None, pad_edge=False)
    for measurement, of, lowest, highest, limit in rows:
        table.add_row(f"{of} of {measurement}", f"{lowest:.2g}", f"{highest:.2g}", f"{limit:.2g}")
    out_console.print(table)
    out_console.print(_of_kinds(study))
    out_console.print(f"{len(study.repeats)} repeats of {study.case}: {out}", markup=False, soft_wrap=True)


def _of_kinds(study: FloorStudy) -> Table:
    """How far each kind of reference is from the reference itself, at most."""
    words = [f"{of} of {measurement}" for measurement, of in DISTANCES]
    table = Table("kind of reference", "repeats", *words, box=None, pad_edge=False)
    for kind, one in study.by_kind().items():
        table.add_row(kind, str(len(one.repeats)), *(f"{value:.2g}" for value in _distances(one).values()))
    return table


def _distances(study: FloorStudy) -> dict[str, float]:
    return {quantity(measurement, of): study.envelope(measurement, of)[1] for measurement, of in DISTANCES}
