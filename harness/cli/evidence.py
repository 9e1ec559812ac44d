"""`certify compare | report`: traces and bundles that are there already, read without any framework."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from harness.cli.terminal import MET, NOT_MET, JsonOption, out_console
from harness.cli.verdict import print_verdict
from harness.comparison import compare_traces
from harness.evidence import read_bundle
from harness.judge import describe_place, statistic
from harness.report import write_report
from harness.trace import Outcome, Run, decode_number, encode_number, read_trace


def compare(
    reference: Annotated[Path, typer.Argument(help="Trace file (runs/NAME/trace.jsonl of a bundle).")],
    subject: Annotated[Path, typer.Argument(help="Trace file to compare with it.")],
    as_json: JsonOption = False,
) -> int:
    """Print how far two traces are apart, and the first step at which they differ. Judges nothing.

    Exit code 0: both runs came to their end, with the same numbers in every step. 1: not so.
    """
    runs = [_as_run(path) for path in (reference, subject)]
    found = {m.name.removeprefix("pair."): m for m in compare_traces("pair", *runs)}
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
    for name in unfinished:
        out_console.print(
            f"{name} has no end: its run was killed, or lines were cut off.", markup=False, soft_wrap=True
        )
    return MET if same else NOT_MET


def _as_run(path: Path) -> Run:
    trace = read_trace(path)
    outcome = Outcome(status="completed", last_step=len(trace.steps), detail="read from a file")
    return Run(name=str(path), outcome=outcome, trace=trace)


def _row(found: Any, number: str) -> dict[str, Any]:
    relative, signed, differs = (found[f"{number}.{measure}"] for measure in ("relative", "signed", "differs"))
    places = zip(differs.places, differs.values, strict=True)
    first = next((describe_place(place) for place, value in places if value != 0), None)
    return {
        "mean": encode_number(statistic("mean", relative.values)),
        "maximum": encode_number(statistic("maximum", relative.values)),
        "bias": encode_number(statistic("bias", signed.values)),
        "first_difference": first,
    }


def report(
    bundle: Annotated[Path, typer.Argument(help="Directory of a finished bundle.")],
    as_json: JsonOption = False,
) -> int:
    """Check a bundle against its manifest and its own traces, and write its page again. Needs no framework.

    Exit code 0: the bundle holds what was recorded, whatever its level. 2: it does not.
    """
    read = read_bundle(bundle)
    write_report(read)
    print_verdict(read, as_json)
    return MET
