"""The command line: `certify run | cases | compare | report | env`.

Exit codes: 0 the asked level is met, 1 it is not, 2 bad input or a missing prerequisite, 3 a run broke,
130 interrupted.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from harness import certify, environment
from harness.case import DEFAULT_CASE, Case, load_case, shipped_cases
from harness.comparison import compare_traces
from harness.errors import CertifyError, InputError
from harness.evidence import Bundle, read_bundle
from harness.judge import Outcome as Verdict
from harness.judge import describe_place
from harness.levels import Level
from harness.levels import certify as certify_level
from harness.progress import Progress
from harness.report import write_report
from harness.runners.launcher import variables
from harness.trace import Outcome, Run, decode_number, encode_number, read_trace

MET, NOT_MET, BAD_INPUT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
BROKEN_ENDS = ("crashed", "hung", "interrupted", "missing")
DEFAULT_THREADS = 1
DEFAULT_WORKERS = 2

app = typer.Typer(
    name="certify",
    help="Computes the level of a MindSpore model from evidence: trains it beside its PyTorch reference, compares "
    "every step, judges against frozen limits, and writes a page.\n\nBegin with: certify run",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# What typer's parser raises for unknown options and values; typer brings its own click or uses the installed one.
USAGE_ERROR: Any = typer.BadParameter.__base__
out_console, error_console = Console(highlight=False), Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines, nothing else.")]
CASE_HELP = "A shipped case by name (see 'certify cases') or the path of a case's YAML file."


@app.command()
def run(
    case: Annotated[str, typer.Argument(help=CASE_HELP)] = DEFAULT_CASE,
    text: Annotated[Path | None, typer.Option(help="Corpus: a WikiText .tokens file or any UTF-8 text.")] = None,
    data: Annotated[Path | None, typer.Option(help="Corpus: prefix of Megatron .bin and .idx files.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Hugging Face tokenizer directory; bytes without it.")] = None,
    standard: Annotated[list[str] | None, typer.Option(help="Standard by name or file, instead of the case's.")] = None,
    level: Annotated[Level, typer.Option(help="The level that has to be met for exit code 0.")] = Level.PRELIMINARY,
    out: Annotated[
        Path | None, typer.Option(help="Directory for the bundle; new under certify-runs/ without it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs that did not end.")] = False,
    device: Annotated[str, typer.Option(help="What the subject runs on: CPU or Ascend.")] = "CPU",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each run.")] = DEFAULT_THREADS,
    workers: Annotated[int, typer.Option(min=1, help="How many runs go at a time.")] = DEFAULT_WORKERS,
    subject: Annotated[str, typer.Option(help="Runner that is certified: a name or MODULE:CLASS.")] = "mindspore",
    reference: Annotated[str, typer.Option(help="Runner that it is compared with: a name or MODULE:CLASS.")] = "torch",
    as_json: JsonOption = False,
) -> int:
    """Certify a case: run both sides, compare, judge, and write bundle and page.

    Runs the reference twice, the subject twice, and both with learning rate 0, each in a process of its own. Exit
    code 0: the asked level is met. 1: it is not. 2: bad input or a missing prerequisite. 3: a run broke.
    """
    if device not in ("CPU", "Ascend"):
        raise InputError(f"There is no device {device!r}: choose CPU or Ascend.")
    chosen = certify.with_sources(load_case(case), text, data, tokenizer)
    standards = certify.load_standards(standard or chosen.standards, chosen)
    chosen = chosen.with_changes(standards=tuple(one.name for one in standards))
    base = Path("certify-runs")
    directory = out or (certify.find_unfinished if resume else certify.new_directory)(base, chosen.name)
    options = certify.Options(
        out=directory,
        resume=resume,
        device=device,
        threads=threads,
        workers=workers,
        subject=subject,
        reference=reference,
        command=("certify", *sys.argv[1:]),
    )
    bundle = _run_shown(chosen, standards, options, quiet=as_json)
    _print_verdict(bundle, as_json)
    return _exit_code(bundle, level)


def _run_shown(case: Case, standards: Any, options: certify.Options, quiet: bool) -> Bundle:
    try:
        with Progress(error_console, [job.run for job in certify.plan(case, options)], quiet=quiet) as progress:
            return certify.run(case, standards, options, progress.update)
    except KeyboardInterrupt:
        again = shlex.join(_resuming(options))
        error_console.print(f"Interrupted; no run is left behind. Nothing is lost, go on with: {again}")
        raise typer.Exit(INTERRUPTED) from None


def _resuming(options: certify.Options) -> list[str]:
    """The command as it was given, with what it takes to go on."""
    words = list(options.command)
    where = [] if "--out" in words else ["--out", str(options.out)]
    return [*words, *where, *([] if "--resume" in words else ["--resume"])]


def _exit_code(bundle: Bundle, level: Level) -> int:
    if any(one.outcome.status in BROKEN_ENDS for one in bundle.runs.values()):
        return BROKEN
    return MET if certify_level(bundle).reaches(level) else NOT_MET


STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.ERROR: "bold red", Verdict.INCONCLUSIVE: "yellow"}


def _print_verdict(bundle: Bundle, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_summary(bundle), ensure_ascii=False))
        return
    for one in bundle.runs.values():
        if one.outcome.status != "completed":
            out_console.print(f"{one.name}: {one.outcome.detail}", style="bold red", markup=False)
            if one.outcome.log_tail:
                out_console.print(_indented(one.outcome.log_tail), markup=False)
    for finding in bundle.findings:
        if finding.outcome is not Verdict.PASS:
            out_console.print(f"{finding.outcome:<12} {finding.message}", style=STYLES[finding.outcome], markup=False)
    certificate = certify_level(bundle)
    standards = ", ".join(f"{one.name} {one.digest()[:12]}" for one in bundle.standards)
    passed = sum(finding.outcome is Verdict.PASS for finding in bundle.findings)
    out_console.print(f"{passed} of {len(bundle.findings)} criteria pass ({standards})")
    out_console.print(f"Level: {certificate.level} on {certificate.scope}", style="bold")
    if certificate.missing:
        reasons = "; ".join(f"{r.text.lower()} ({r.detail})" for r in certificate.missing)
        out_console.print(f"Missing for {certificate.next_level}: {reasons}", markup=False)
    out_console.print(f"Page: {bundle.path / 'report.html'}", markup=False, soft_wrap=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _summary(bundle: Bundle) -> dict[str, Any]:
    certificate = certify_level(bundle)
    return {
        "case": bundle.case.name,
        "case_digest": bundle.case.digest(),
        "bundle": str(bundle.path),
        "bundle_digest": bundle.digest,
        "level": certificate.level,
        "scope": certificate.scope,
        "standards": {standard.name: standard.digest() for standard in bundle.standards},
        "missing": [f"{r.level}: {r.text} ({r.detail})" for r in certificate.missing],
        "runs": {name: one.outcome.detail for name, one in bundle.runs.items()},
        "findings": [
            {"standard": f.standard, "criterion": f.criterion, "outcome": f.outcome, "message": f.message}
            for f in bundle.findings
        ],
        "page": str(bundle.path / "report.html"),
    }


@app.command()
def cases(
    show: Annotated[str | None, typer.Option(help="Print one case in full, as YAML to begin a new one from.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the shipped cases, or print one."""
    if show:
        chosen = load_case(show)
        record = chosen.model_dump(mode="json")
        print(json.dumps(record) if as_json else yaml.safe_dump(record, sort_keys=False), end="")
        return MET
    loaded = [load_case(name) for name in shipped_cases()]
    if as_json:
        print(json.dumps({one.name: {"title": one.title, "digest": one.digest()} for one in loaded}))
        return MET
    table = Table("case", "what it is", "steps", "standards", "digest", box=None, pad_edge=False)
    for one in loaded:
        table.add_row(one.name, one.title, str(one.training.steps), ", ".join(one.standards), one.digest()[:12])
    out_console.print(table)
    out_console.print(
        f"\nThe default is {DEFAULT_CASE}. 'certify cases --show NAME' prints one to begin your own from."
    )
    return MET


@app.command()
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
    from harness.judge import statistic

    relative, signed, differs = (found[f"{number}.{measure}"] for measure in ("relative", "signed", "differs"))
    places = zip(differs.places, differs.values, strict=True)
    first = next((describe_place(place) for place, value in places if value != 0), None)
    return {
        "mean": encode_number(statistic("mean", relative.values)),
        "maximum": encode_number(statistic("maximum", relative.values)),
        "bias": encode_number(statistic("bias", signed.values)),
        "first_difference": first,
    }


@app.command()
def report(
    bundle: Annotated[Path, typer.Argument(help="Directory of a finished bundle.")],
    as_json: JsonOption = False,
) -> int:
    """Check a bundle against its manifest and its own traces, and write its page again. Needs no framework.

    Exit code 0: the bundle holds what was recorded, whatever its level. 2: it does not.
    """
    read = read_bundle(bundle)
    write_report(read)
    _print_verdict(read, as_json)
    return MET


@app.command()
def env(as_json: JsonOption = False) -> int:
    """Show what a run would run on: device, machine, packages, variables, source revision."""
    found = environment.describe("CPU", DEFAULT_THREADS, variables(DEFAULT_THREADS))
    found["source"] = vars(environment.source())
    if as_json:
        print(json.dumps(found))
        return MET
    out_console.print(yaml.safe_dump(found, sort_keys=False), end="", markup=False)
    missing = [name for name in ("mindspore", "torch", "transformers") if found["packages"][name] is None]
    if missing:
        out_console.print(f"A run also needs: {', '.join(missing)}. Install with: pip install '.[run]'", markup=False)
    return MET


def main() -> None:
    """Entry point: runs a command, and turns an error that a person can mend into a message."""
    try:
        code = app(standalone_mode=False)
    except CertifyError as error:
        error_console.print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        code = error.exit_code
    except typer.Exit as error:
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except USAGE_ERROR as error:
        error.show()
        code = BAD_INPUT
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        error_console.print(f"Error: {what}", style="red", markup=False, soft_wrap=True)
        code = BAD_INPUT
    sys.exit(code or MET)


if __name__ == "__main__":
    main()
