"""`certify run | cases | env`: runs a case, and shows what can be run and on what."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Column, Table

from harness.base.errors import InputError
from harness.cases.case import DEFAULT_CASE, Case, load_case, shipped_cases
from harness.certify import case_options, environment, flow, workspace
from harness.certify.baseline import DEFAULT_DIRECTORY
from harness.certify.jobs import Options, plan
from harness.cli.progress import Progress
from harness.cli.terminal import (
    BROKEN,
    CASE_HELP,
    INTERRUPTED,
    MET,
    NOT_MET,
    BaselinesOption,
    JsonOption,
    error_console,
    out_console,
)
from harness.cli.verdict import print_verdict
from harness.evidence.bundle import Bundle
from harness.levels.rule import Certificate, Level
from harness.runners.launcher import variables

DEFAULT_THREADS = 1
DEFAULT_WORKERS = 2

SourceText = Annotated[Path | None, typer.Option("--text", help="Corpus: a WikiText .tokens file or any UTF-8 text.")]
SourceData = Annotated[Path | None, typer.Option("--data", help="Corpus: prefix of Megatron .bin and .idx files.")]
SourceTokenizer = Annotated[
    Path | None, typer.Option("--tokenizer", help="Hugging Face tokenizer directory; bytes without it.")
]
SourceModel = Annotated[
    Path | None, typer.Option("--model", help="A checkpoint in Hugging Face's form to ask, in a case of inference.")
]


def run(
    case: Annotated[str, typer.Argument(help=CASE_HELP)] = DEFAULT_CASE,
    config: Annotated[
        Path | None, typer.Option(help="A training configuration of mindformers (YAML), in place of CASE.")
    ] = None,
    text: SourceText = None,
    data: SourceData = None,
    tokenizer: SourceTokenizer = None,
    model: SourceModel = None,
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
    oracle: Annotated[str, typer.Option(help="Runner that gives the exact values: a name or MODULE:CLASS.")] = "oracle",
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Judge against the recorded baseline; reference and oracle do not run.")
    ] = False,
    baselines: BaselinesOption = DEFAULT_DIRECTORY,
    as_json: JsonOption = False,
) -> int:
    """Certify a case: run both sides, compare, judge, and write bundle and page.

    Runs reference and subject twice, both with learning rate 0, the float64 oracle, and probes of gradients and
    optimizer, each in a process of its own. Exit code 0: the asked level is met. 1: it is not. 2: bad input or a
    missing prerequisite. 3: a run broke.
    """
    if device not in ("CPU", "Ascend"):
        raise InputError(f"There is no device {device!r}: choose CPU or Ascend.")
    if config is not None and case != DEFAULT_CASE:
        raise InputError(f"--config {config} stands for a case; leave {case} out.")
    chosen = case_options.with_sources(load_case(case if config is None else str(config)), text, data, tokenizer)
    if model is not None:
        chosen = case_options.with_model(chosen, model)
    chosen, standards = case_options.judged_by(chosen, standard or ())
    base = Path("certify-runs")
    directory = out or (workspace.find_unfinished if resume else workspace.new_directory)(base, chosen.name)
    options = Options(
        out=directory,
        resume=resume,
        device=device,
        threads=threads,
        workers=workers,
        subject=subject,
        reference=reference,
        oracle=oracle,
        command=("certify", *sys.argv[1:]),
        baselines=baselines if baseline else None,
    )
    bundle, certificate = run_shown(chosen, standards, options, quiet=as_json)
    print_verdict(bundle, certificate, as_json)
    return exit_code(bundle, certificate, level)


def run_shown(case: Case, standards: Any, options: Options, quiet: bool) -> tuple[Bundle, Certificate]:
    """Runs a case with its progress on the terminal."""
    try:
        with Progress(error_console, [job.run for job in plan(case, options)], quiet=quiet) as progress:
            return flow.run(case, standards, options, progress.update)
    except KeyboardInterrupt:
        again = shlex.join(_resuming(options))
        error_console.print(f"Interrupted; no run is left behind. Nothing is lost, go on with: {again}")
        raise typer.Exit(INTERRUPTED) from None


def _resuming(options: Options) -> list[str]:
    """The command as it was given, with what it takes to go on."""
    words = list(options.command)
    where = [] if "--out" in words else ["--out", str(options.out)]
    return [*words, *where, *([] if "--resume" in words else ["--resume"])]


def exit_code(bundle: Bundle, certificate: Certificate, level: Level) -> int:
    """What a run of a case ends with."""
    if any(not one.outcome.ended for one in bundle.runs.values()):
        return BROKEN
    return MET if certificate.reaches(level) else NOT_MET


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
    name = Column("case", no_wrap=True)  # it is to be typed again
    table = Table(name, "what it is", "steps", "standards", "digest", box=None, pad_edge=False)
    for one in loaded:
        table.add_row(one.name, one.title, str(one.training.steps), ", ".join(one.standards), one.digest()[:12])
    out_console.print(table)
    out_console.print(
        f"\nThe default is {DEFAULT_CASE}. 'certify cases --show NAME' prints one to begin your own from."
    )
    return MET


def env(as_json: JsonOption = False) -> int:
    """Show what a run would run on: device, machine, packages, variables, source revision."""
    here = environment.describe("CPU", DEFAULT_THREADS, variables(DEFAULT_THREADS))
    found = {**vars(here), "source": vars(environment.source())}
    if as_json:
        print(json.dumps(found))
        return MET
    out_console.print(yaml.safe_dump(found, sort_keys=False), end="", markup=False)
    missing = [name for name in ("mindspore", "torch", "transformers") if here.packages[name] is None]
    if missing:
        out_console.print(f"A run also needs: {', '.join(missing)}. Install with: pip install '.[run]'", markup=False)
    return MET
