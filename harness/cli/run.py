"""`certify run`: runs a case, judges it, and writes bundle and page."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.attestation import Trust, load_trust
from harness.base.code import ROOT
from harness.base.errors import InputError
from harness.cases.case import DEFAULT_CASE, Case, load_case, shipped_cases
from harness.cases.runs_of_a_case import SUBJECT_REPEAT
from harness.certify import case_options, flow, workspace
from harness.certify.baseline import DEFAULT_DIRECTORY
from harness.certify.jobs import Options, plan, protection_of
from harness.cli.next_steps import next_steps
from harness.cli.options import (
    CASE_HELP,
    DEFAULT_WORKERS,
    BaselineOption,
    BaselineTrustOption,
    DataOption,
    JsonOption,
    LayersOption,
    ModelOption,
    ProfileOption,
    ProtectionOption,
    ReferenceDeviceOption,
    ReferenceProcessesOption,
    ReferencePythonOption,
    StepsOption,
    SubjectPythonOption,
    TextOption,
    ThreadsOption,
    TokenizerOption,
    VocabularyOption,
    WorkersOption,
    check_device,
    reference_device,
)
from harness.cli.progress import Progress
from harness.cli.terminal import BROKEN, MET, NOT_MET, Interrupted, error_console, out_console
from harness.cli.verdict import print_verdict
from harness.evidence.bundle import Bundle
from harness.levels.certificate import Certificate, Level
from harness.runners.environment_of_a_run import left_out
from harness.runners.job import Job
from harness.runners.protection import obstacle
from harness.runs.files import LOG, PROFILE


def run(
    case: Annotated[str, typer.Argument(help=CASE_HELP)] = DEFAULT_CASE,
    config: Annotated[
        Path | None, typer.Option(help="A training configuration of mindformers (YAML), instead of CASE.")
    ] = None,
    text: TextOption = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    model: ModelOption = None,
    layers: LayersOption = None,
    vocab: VocabularyOption = None,
    steps: StepsOption = None,
    standard: Annotated[list[str] | None, typer.Option(help="Standard by name or file, instead of the case's.")] = None,
    level: Annotated[Level, typer.Option(help="The level required for exit code 0.")] = Level.PRELIMINARY,
    out: Annotated[
        Path | None, typer.Option(help="Directory for the bundle; default: a new one under certify-runs/.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the runs that did not finish.")] = False,
    keep_weights: Annotated[
        bool,
        typer.Option("--keep-weights", help="Keep initial and trained weights, in OUT-weights/."),
    ] = False,
    device: Annotated[str, typer.Option(help="Device of the subject: CPU or Ascend.")] = "CPU",
    threads: ThreadsOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    subject: Annotated[str, typer.Option(help="Runner that is certified: a name or MODULE:CLASS.")] = "mindspore",
    reference: Annotated[str, typer.Option(help="Runner that it is compared with: a name or MODULE:CLASS.")] = "torch",
    oracle: Annotated[str, typer.Option(help="Runner of the exact values: a name or MODULE:CLASS.")] = "oracle",
    reference_on: ReferenceDeviceOption = "cpu",
    reference_processes: ReferenceProcessesOption = 1,
    subject_python: SubjectPythonOption = None,
    reference_python: ReferencePythonOption = None,
    baseline: BaselineOption = None,
    trust: BaselineTrustOption = None,
    protection: ProtectionOption = "auto",
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> int:
    """Certify a case: run both sides, compare, judge, and write bundle and page.

    Runs reference and subject twice, both with learning rate 0, the float64 oracle, and probes of gradients and
    optimizer, each in a process of its own. Exit code 0: the required level is reached. 1: it is not. 2: bad input or a
    missing prerequisite. 3: a run failed.
    """
    check_device(device)
    if config is not None and case != DEFAULT_CASE:
        raise InputError(f"--config {config} replaces the case; omit {case}.")
    loaded = load_case(case if config is None else str(config))
    chosen = case_options.with_options(
        loaded, text=text, data=data, tokenizer=tokenizer, model=model, layers=layers, vocabulary=vocab, steps=steps
    )
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
        reference_device=reference_device(reference_on),
        command=("certify", *sys.argv[1:]),
        reference_processes=reference_processes,
        subject_python=subject_python,
        reference_python=reference_python,
        baselines=baselines_of(baseline, chosen.name),
        trust=trust_of(trust, baseline),
        keep_weights=keep_weights,
        protection=protection_of(protection),
        profile=case_options.profiled_steps(profile, chosen),
    )
    bundle, certificate = run_shown(chosen, standards, options, quiet=as_json)
    print_verdict(bundle, certificate, as_json)
    code = exit_code(bundle, certificate, level)
    if not as_json and options.profile:
        print_profile(bundle)
    if not as_json and certificate.reaches(Level.PRELIMINARY):
        print_next_steps(bundle)
    return code


def baselines_of(given: Path | None, case: str) -> Path | None:
    """The directory of baselines that `--baseline` names; None where it is not given. In place of the default without a
    baseline of the case, that of the checkout of this program, which holds the shipped ones.

    Raises:
        InputError: it names a case.
    """
    if given is not None and not given.is_dir() and str(given) in shipped_cases():
        raise InputError(
            f"--baseline takes a directory, and {given} is a case: put it first, or --baseline={DEFAULT_DIRECTORY}."
        )
    shipped = ROOT / DEFAULT_DIRECTORY
    if given == DEFAULT_DIRECTORY and not (given / case).exists() and (shipped / case).is_dir():
        return shipped
    return given


def trust_of(trust: Path | None, baseline: Path | None) -> Trust | None:
    """Whose signatures count, where a trust file is given.

    Raises:
        InputError: it cannot be used, or there is no baseline whose signature it could check.
    """
    if trust is not None and baseline is None:
        raise InputError(
            "--trust checks the signature of a baseline: give --baseline too. 'certify level' and 'certify verify' "
            "check the signatures of a bundle."
        )
    return load_trust(trust) if trust else None


def print_profile(bundle: Bundle) -> None:
    """Where the output of the profiler is, and what its run is no evidence of."""
    place = bundle.path / "runs" / SUBJECT_REPEAT / PROFILE
    if not any(place.rglob("*")):
        out_console.print(f"Nothing was profiled: see {place.with_name(LOG)}", markup=False, soft_wrap=True)
        return
    text = f"Profile: {place}. The times of {SUBJECT_REPEAT} are no evidence: profiled steps take longer."
    out_console.print(text, markup=False, soft_wrap=True)


def print_next_steps(bundle: Bundle) -> None:
    """What to do with a bundle that has a level to sign for."""
    out_console.print("Next:", markup=False)
    for step in next_steps(bundle, Path.cwd()):
        out_console.print(f"  {step.command}  # {step.result}", markup=False, soft_wrap=True)


def run_shown(case: Case, standards: Any, options: Options, quiet: bool) -> tuple[Bundle, Certificate]:
    """Runs a case with its progress on the terminal."""

    def announce(line: str) -> None:
        if not quiet:
            error_console.print(line, markup=False, soft_wrap=True)

    def explain(sentence: str) -> None:
        error_console.print(sentence, markup=False, soft_wrap=True)

    jobs = plan(case, options)
    for text in _remarks(jobs, options) if not quiet else ():
        error_console.print(text, style="yellow", markup=False, soft_wrap=True)
    try:
        with Progress(error_console, [job.run for job in jobs], quiet=quiet) as progress:
            return flow.run(case, standards, options, progress.update, announce, explain)
    except KeyboardInterrupt:
        again = shlex.join(_resuming(options))
        raise Interrupted(f"Interrupted; no process is left and nothing is lost. Resume with: {again}") from None


def _remarks(jobs: Sequence[Job], options: Options) -> Iterator[str]:
    """What runs do not have here."""
    if omitted := left_out({job.runner for job in jobs}):
        yield f"Runs do not search {', '.join(omitted)}, which PYTHONPATH names: install what they need from there."
    if options.protection == "auto" and (why := obstacle()):
        yield f"This machine gives runs no namespaces ({why}): the subject's runs come first."


def _resuming(options: Options) -> list[str]:
    """The given command, with the options that resume it."""
    words = list(options.command)
    where = [] if "--out" in words else ["--out", str(options.out)]
    return [*words, *where, *([] if "--resume" in words else ["--resume"])]


def exit_code(bundle: Bundle, certificate: Certificate, level: Level) -> int:
    """The exit code of a run of a case."""
    if any(not one.outcome.ended for one in bundle.runs.values()):
        return BROKEN
    return MET if certificate.reaches(level) else NOT_MET
