"""`certify import | compare`: reads runs of other tools from their logs, and compares any two runs."""

import contextlib
import dataclasses
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from harness.base.errors import CertifyError, EvidenceError, InputError
from harness.base.near_names import did_you_mean
from harness.base.numbers import decode_number, encode_number
from harness.base.records import encode, encode_json
from harness.base.whole_files import whole_file
from harness.cases.case import load_case
from harness.cli.options import CASE_HELP, JsonOption
from harness.cli.terminal import MET, NOT_MET, out_console
from harness.comparison.measurement import Series
from harness.comparison.scores import score_differences
from harness.comparison.training import compare_steps
from harness.evidence.judge import describe_place, statistic
from harness.logs import PRINTED, Format, ImportedRun, is_import, read_import
from harness.logs.differences import LogDifference, differences
from harness.logs.imports import FORMATS, contradictions, detect, import_log
from harness.logs.sources import name_of
from harness.runs.trace import Run, RunOutcome, Trace, read_trace

STYLES = {"same": "green", "differs": "bold red", "INCONCLUSIVE": "yellow"}


def import_(
    logs: Annotated[
        list[Path],
        typer.Argument(
            help="Log files of one run, of all ranks or one, their directory or archive; - reads from a pipe."
        ),
    ],
    source: Annotated[
        str | None, typer.Option("--format", help=f"The tool that wrote it: {', '.join(FORMATS)}; default: detected.")
    ] = None,
    case: Annotated[str | None, typer.Option(help=f"Check it against a case. {CASE_HELP}")] = None,
    rank: Annotated[
        str | None,
        typer.Option(help="The rank or file to read; default: the one with the most steps that have a loss."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New file for it; default: NAME.import.json here.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Convert the log of a run of another tool to a file for 'certify compare'.

    Everything that is omitted, repeated or unreadable is reported. The resolution of printed numbers is kept. If the
    file exists with this very content, nothing is written.
    Exit code 0: imported. 1: imported, and it contradicts the case. 2: it cannot be imported.
    """
    if source is not None and source not in FORMATS:
        raise InputError(f"There is no format {source!r}: choose {', '.join(FORMATS)}.{did_you_mean(source, FORMATS)}")
    chosen = load_case(case) if case else None
    run = import_log(logs, cast(Format | None, source), rank)
    against = contradictions(run, chosen) if chosen else []
    if chosen:
        run = dataclasses.replace(
            run, case={"name": chosen.name, "digest": chosen.digest()}, notes=(*run.notes, *against)
        )
    destination = out or Path(f"{name_of(logs[0]) or logs[0].resolve().name}.import.json")
    _write(run, destination)
    if as_json:
        kept = {"out": str(destination), "steps": len(run.steps), "last": run.steps[-1].step, "total": run.total}
        print(json.dumps({**kept, "format": run.source, "origin": run.origin, "notes": run.notes, "against": against}))
    else:
        _print_imported(run, against, destination)
    return NOT_MET if against else MET


def _write(run: ImportedRun, destination: Path) -> None:
    """Writes the file, unless it is there already.

    Raises:
        InputError: it is there with other content, or cannot be written.
    """
    content = encode_json(run)
    if destination.is_file() and destination.read_bytes() == content:
        return
    if os.path.lexists(destination):
        raise InputError(f"{destination} exists, with other content. Choose another name with --out, or remove it.")
    with whole_file(destination, overwrite=False) as file:
        file.write(content)


def _print_imported(run: ImportedRun, against: Sequence[str], destination: Path) -> None:
    first, last = run.steps[0].step, run.steps[-1].step
    of = f" of {run.total}" if run.total else ""
    _print(f"{run.source}, {run.origin}: {len(run.steps)} steps, {first} to {last}{of}")
    for name in PRINTED:
        known = [number for step in run.steps if (number := getattr(step, name))]
        if known:
            coarsest = max(number.resolution for number in known)
            _print(f"  {name}: {len(known)} steps, " + (f"known to {coarsest:.2g}" if coarsest else "every bit"))
        elif any(note.startswith(f"{name}: ") for note in run.notes):
            _print(f"  {name}: no number was read")
        else:
            _print(f"  {name}: not in the log")
    for note in run.notes:
        _print(f"  {note}", "red" if note in against else "yellow")
    _print(f"Imported: {destination}")


def compare(
    reference: Annotated[Path, typer.Argument(help="Trace (runs/NAME/trace.jsonl of a bundle) or imported log.")],
    subject: Annotated[Path, typer.Argument(help="Trace or imported log to compare with it.")],
    as_json: JsonOption = False,
) -> int:
    """Print the differences of two runs and the first step at which they differ. Judges nothing.

    An imported log has only printed digits: a difference that they could hide is INCONCLUSIVE. For runs that scored an
    evaluation, every document is compared.
    Exit code 0: both runs finished, with the same numbers in every step. 1: otherwise.
    """
    if is_import(reference) or is_import(subject):
        return _compare_logs(reference, subject, as_json)
    runs = [_as_run(path) for path in (reference, subject)]
    if any(_is_scored(run) for run in runs):
        return _compare_scored(runs[0], runs[1], as_json)
    found = compare_steps(*runs)
    numbers = ("loss", "grad_norm", "learning_rate", "tokens")
    rows = {number: _row(found, number) for number in numbers}
    unfinished = [run.name for run in runs if run.trace is None or run.trace.footer is None]
    same = not unfinished and all(row["first_difference"] is None for row in rows.values())
    if as_json:
        print(json.dumps({"same": same, "unfinished": unfinished, "numbers": rows}))
        return MET if same else NOT_MET
    table = Table("number", "mean relative", "largest relative", "bias", "first difference", box=None, pad_edge=False)
    for number, row in rows.items():
        numbers_shown = [f"{decode_number(row[key]):.3g}" for key in ("mean", "maximum", "bias")]
        table.add_row(number, *numbers_shown, row["first_difference"] or "none")
    out_console.print(table)
    _print_unfinished(unfinished)
    return MET if same else NOT_MET


def _is_scored(run: Run) -> bool:
    return run.trace is not None and run.trace.header.arm == "infer"


def _compare_scored(reference: Run, subject: Run, as_json: bool) -> int:
    """Two runs that scored an evaluation, document by document."""
    runs = (reference, subject)
    if not all(map(_is_scored, runs)):
        raise InputError("One trace is of training, the other of inference: they have no number in common.")
    unfinished = [run.name for run in runs if run.trace is None or run.trace.footer is None]
    found = score_differences(reference, subject)
    same = not unfinished and bool(found.values) and not any(value != 0 for value in found.values)
    first = next((str(p) for p, value in zip(found.places, found.values, strict=True) if value != 0), None)
    largest = statistic("maximum", found.values) if found.values else math.nan
    if as_json:
        numbers = {"documents": len(found.values), "maximum": encode_number(largest), "first_difference": first}
        print(json.dumps({"same": same, "unfinished": unfinished, "log_likelihoods": numbers}))
        return MET if same else NOT_MET
    _print(f"{len(found.values)} documents; log-likelihoods up to {largest:.3g} apart, first in {first or 'none'}")
    _print_unfinished(unfinished)
    return MET if same else NOT_MET


def _print_unfinished(names: Sequence[str]) -> None:
    for name in names:
        _print(f"{name} is incomplete: its run was killed, or lines were cut off.")


def _compare_logs(reference: Path, subject: Path, as_json: bool) -> int:
    runs = [_read(path) for path in (reference, subject)]
    ended = [run.ends if isinstance(run, ImportedRun) else run.footer is not None for run in runs]
    unfinished = [str(path) for path, ends in zip((reference, subject), ended, strict=True) if not ends]
    found = differences(*runs)
    same = not unfinished and all(one.result == "same" for one in found)
    if as_json:
        encoded = {one.number: {**encode(one), "result": one.result} for one in found}
        print(json.dumps({"same": same, "unfinished": unfinished, "numbers": encoded}))
        return MET if same else NOT_MET
    table = Table("number", "compared", "alone", "mean", "largest", "bias", "hidden", box=None, pad_edge=False)
    for one in found:
        apart = [f"{number:.3g}" for number in (one.mean, one.maximum, one.bias, one.hidden)]
        table.add_row(one.number, str(one.compared), str(one.alone), *apart)
    out_console.print(table)
    _print("mean, largest and bias are relative to the first run; hidden: the absolute difference the digits can hide")
    for one in found:
        _print(f"{one.number}: {_result(one)}", STYLES[one.result])
    _print_unfinished(unfinished)
    return MET if same else NOT_MET


def _read(path: Path) -> Trace | ImportedRun:
    """A trace or an imported run.

    Raises:
        InputError: it is a log that was not imported.
        EvidenceError: it is none of these, or was edited.
    """
    return read_import(path) if is_import(path) else _read_trace(path)


def _read_trace(path: Path) -> Trace:
    try:
        return read_trace(path)
    except EvidenceError as error:
        if kind := _kind_of_log(path):
            again = shlex.join(["certify", "import", str(path)])
            raise InputError(f"{path} is a log of {kind}, and no trace. Import it first: {again}") from None
        raise error


def _kind_of_log(path: Path) -> str | None:
    with contextlib.suppress(CertifyError, OSError):
        if path.suffix == ".json" and b"log_history" not in path.read_bytes():
            return None
        return detect([path])
    return None


def _result(one: LogDifference) -> str:
    if one.first is not None:
        return f"differs from step {one.first} on"
    if one.result == "same":
        return "the same in every step"
    if not one.compared:
        why = "one run does not have it, or no steps of both cover the same span"
    elif one.hidden:
        why = f"no difference beyond what the digits can hide, up to {one.hidden:.3g}"
    else:
        why = f"no difference in the common steps; {one.alone} steps are in one run only"
    return f"{one.result}: {why}"


def _print(text: str, style: str = "") -> None:
    out_console.print(text, style=style, markup=False, soft_wrap=True)


def _as_run(path: Path) -> Run:
    trace = _read_trace(path)
    outcome = RunOutcome(status="completed", last_step=len(trace.steps), detail="read from a file")
    return Run(name=str(path), outcome=outcome, trace=trace)


def _row(found: Mapping[str, Series], number: str) -> dict[str, Any]:
    relative, signed, differs = (found[f"{number}.{measure}"] for measure in ("relative", "signed", "differs"))
    places = zip(differs.places, differs.values, strict=True)
    first = next((describe_place(place) for place, value in places if value != 0), None)
    return {
        "mean": encode_number(statistic("mean", relative.values)),
        "maximum": encode_number(statistic("maximum", relative.values)),
        "bias": encode_number(statistic("bias", signed.values)),
        "first_difference": first,
    }
