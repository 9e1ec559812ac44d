"""`certify diagnose`: names the first place at which a subject differs."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from harness.base.errors import InputError
from harness.cases.case import DEFAULT_CASE, Case
from harness.certify import workspace
from harness.certify.diagnose import PAGE, chosen, export_taps, find, investigate, jobs, later_step, runner_of
from harness.certify.jobs import Options
from harness.cli.options import (
    DEFAULT_WORKERS,
    JsonOption,
    LayersOption,
    ModelOption,
    ReferencePythonOption,
    SubjectPythonOption,
    ThreadsOption,
    VocabularyOption,
    WorkersOption,
    check_device,
    without_option,
)
from harness.cli.progress import Progress
from harness.cli.terminal import BROKEN, MET, NOT_MET, Interrupted, error_console, out_console
from harness.diagnosis.diagnosis import Check, Diagnosis, record
from harness.diagnosis.errors_by_place import ALLOWED_RATIO, Reading
from harness.evidence.bundle import Bundle
from harness.report.words import number
from harness.runs.trace import Side

STYLES = {"agrees": "green", "differs": "bold red", "not recorded": "yellow"}
SHOWN = 6  # readings next to the first that differs
RunnerOption = Annotated[str | None, typer.Option(help="Runner: a name or MODULE:CLASS.")]


def diagnose(
    what: Annotated[
        str, typer.Argument(help="A case by name or YAML file, or the directory of a bundle.")
    ] = DEFAULT_CASE,
    subject: Annotated[
        str | None, typer.Option(help="Runner to diagnose: a name or MODULE:CLASS; by default the bundle's.")
    ] = None,
    reference: RunnerOption = None,
    oracle: RunnerOption = None,
    model: ModelOption = None,
    layers: LayersOption = None,
    vocab: VocabularyOption = None,
    rows: Annotated[int | None, typer.Option(help="Only so many rows of each step.", min=1)] = None,
    length: Annotated[int | None, typer.Option(help="Only so many tokens of each row.", min=1)] = None,
    step: Annotated[
        int | None,
        typer.Option(help="Diagnose this step if the first agrees; of a bundle by default the first beyond a limit."),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(help="Diagnose what msprobe dumped of step 1 (level L0 or mix) instead of running the subject."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Also write what taps saw as dumps of msprobe, one for each side, below this.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for runs and page; default: a new one under certify-runs/.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device of the subject: CPU or Ascend.")] = None,
    subject_python: SubjectPythonOption = None,
    reference_python: ReferencePythonOption = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    as_json: JsonOption = False,
) -> int:
    """Name the first place at which a subject differs: a module, a gradient, or what comes after step 1.

    Runs step 1 on subject, reference and float64 oracle, each in a process of its own, and compares every module's
    output and gradient; where they agree, a later step, from the weights that the subject has before it.

    Exit code 0: nothing differs. 1: a place is named. 2: bad input. 3: the subject's run failed.
    """
    if dump is not None and (subject is not None or step is not None):
        raise InputError("--dump stands for the subject in step 1: omit --subject and --step.")
    found = find(what)
    case = chosen(found, model=model, layers=layers, vocabulary=vocab, rows=rows, length=length)
    on = device or (found.environment.device if isinstance(found, Bundle) else "CPU")
    check_device(on)
    options = Options(
        out=out or workspace.new_directory(Path("certify-runs"), f"{case.name}-diagnosis"),
        resume=False,
        device=on,
        threads=threads,
        workers=workers,
        command=("certify", *sys.argv[1:]),
        subject=_runner(found, "subject", subject, "mindspore"),
        reference=_runner(found, "reference", reference, "torch"),
        oracle=_runner(found, "oracle", oracle, "oracle"),
        subject_python=subject_python,
        reference_python=reference_python,
    )
    later = later_step(found, case, step) if dump is None else None
    diagnosis = _run_shown(found, case, options, later, dump, quiet=as_json)
    exported = export_taps(options.out, export) if export is not None else ()
    if as_json:
        where: dict[str, Any] = {"directory": str(options.out), "page": str(options.out / PAGE)}
        where |= {"exported": [str(path) for path in exported]} if exported else {}
        print(json.dumps({**record(diagnosis), **where}, ensure_ascii=False))
    else:
        print_diagnosis(diagnosis, options.out / PAGE)
        for path in exported:
            out_console.print(f"Dump: {path}", markup=False, soft_wrap=True)
    if diagnosis.named is not None:
        return NOT_MET
    return BROKEN if diagnosis.broken else MET


def _runner(found: Case | Bundle, side: Side, given: str | None, usual: str) -> str:
    if given is not None:
        return given
    return usual if isinstance(found, Case) else runner_of(found, side)


def _run_shown(
    found: Case | Bundle, case: Case, options: Options, later: int | None, dump: Path | None, quiet: bool
) -> Diagnosis:
    try:
        named = [job.run for job in jobs(case, options) if dump is None or job.side != "subject"]
        with Progress(error_console, named, quiet=quiet) as progress:
            return investigate(found, case, options, progress.update, later, dump)
    except KeyboardInterrupt:
        again = shlex.join(without_option(options.command, "--out"))
        raise Interrupted(f"Interrupted; no process is left. Start again, in a new directory: {again}") from None


def print_diagnosis(diagnosis: Diagnosis, page: Path) -> None:
    """The sentence, then a tree with the numbers."""
    style = "bold red" if diagnosis.named or diagnosis.broken else "bold green"
    out_console.print(diagnosis.sentence, style=style, markup=False, soft_wrap=True)
    tree = Tree(f"{diagnosis.case}, {diagnosis.subject or 'subject'}", guide_style="dim")
    for check in diagnosis.checks:
        _add_check(tree, check, diagnosis)
    tapping = tree.add("taps")
    for side, taps in diagnosis.taps.items():
        cost = f"{taps.cost:.2f} times a plain step" if taps.cost is not None else "cost not measured"
        bits = f"other bits in {len(taps.differing)} gradients!" if taps.differing else "no bit changed"
        tapping.add(f"{side}: {taps.missing or f'{cost}, {bits}'}")
    if diagnosis.omitted:
        tree.add(Text(f"not compared, as they have no place: {', '.join(diagnosis.omitted)}"))
    out_console.print(tree)
    out_console.print(f"Page: {page}", markup=False, soft_wrap=True)


def _add_check(tree: Tree, check: Check, diagnosis: Diagnosis) -> None:
    branch = tree.add(Text.assemble((check.state, STYLES[check.state]), f" {check.name}: {check.detail}"))
    reading = diagnosis.named.reading if diagnosis.named else None
    directions: dict[str, Any] = {
        "values": "forward", "gradients by place": "backward", "gradients of parameters": "parameter",
    }  # fmt: skip
    if reading is not None and directions.get(check.name) == reading.direction:
        branch.add(_around(reading, diagnosis.readings))


def _around(named: Reading, readings: tuple[Reading, ...]) -> Table:
    """The first reading that differs, with those before and after it."""
    same = [reading for reading in readings if reading.direction == named.direction]
    at = same.index(named)
    table = Table(
        "place", "subject", "reference", f"ratio (allowed {ALLOWED_RATIO:g})", "verdict", box=None, pad_edge=False
    )
    for reading in same[max(0, at - SHOWN // 2) : at + SHOWN // 2 + 1]:
        errors = [
            number(error) if error is not None else "not recorded" for error in (reading.subject, reading.reference)
        ]
        style = "bold red" if reading is named else None
        ratio = "" if reading.state == "not recorded" else number(reading.ratio)
        table.add_row(reading.name, *errors, ratio, reading.state, style=style)
    return table
