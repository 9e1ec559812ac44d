"""`certify baseline`: the recorded reference half of a case, and whether it is still usable."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.attestation import Trust, load_trust
from harness.base.errors import InputError
from harness.cases.case import Case, load_case, shipped_cases
from harness.certify import case_options, flow
from harness.certify.baseline import (
    DEFAULT_DIRECTORY,
    MAX_AGE_DAYS,
    BaselineState,
    Checked,
    Statement,
    check_baseline,
    record_command,
    stored_names,
)
from harness.certify.jobs import Options, recorded_jobs
from harness.cli.options import (
    CASE_HELP,
    DEFAULT_WORKERS,
    BaselinesOption,
    BaselineTrustOption,
    BundleArgument,
    CaseArgument,
    DataOption,
    JsonOption,
    ModelOption,
    ReferenceDeviceOption,
    ReferenceProcessesOption,
    ReferencePythonOption,
    TextOption,
    ThreadsOption,
    TokenizerOption,
    WorkersOption,
    reference_device,
)
from harness.cli.progress import Progress
from harness.cli.terminal import BAD_INPUT, MET, NOT_MET, Interrupted, error_console, out_console
from harness.evidence.bundle import read_bundle
from harness.evidence.provenance import Baseline


def record(
    case: CaseArgument,
    author: Annotated[str, typer.Option(help="Who records it.")],
    reason: Annotated[str, typer.Option(help="Why it is recorded, or recorded again.")],
    baselines: BaselinesOption = DEFAULT_DIRECTORY,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing baseline.")] = False,
    text: TextOption = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    model: ModelOption = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    reference: Annotated[str, typer.Option(help="Runner of the reference: a name or MODULE:CLASS.")] = "torch",
    oracle: Annotated[str, typer.Option(help="Runner of the exact values: a name or MODULE:CLASS.")] = "oracle",
    reference_on: ReferenceDeviceOption = "cpu",
    reference_processes: ReferenceProcessesOption = 1,
    reference_python: ReferencePythonOption = None,
) -> int:
    """Run reference and oracle of a case and record them as its baseline, all or nothing.

    Exit code 0: recorded. 2: bad input, a missing prerequisite, or runs that cannot be a baseline.
    """
    chosen = case_options.with_options(load_case(case), text=text, data=data, tokenizer=tokenizer, model=model)
    command = ("certify", *sys.argv[1:])
    options = Options(
        out=baselines,
        threads=threads,
        workers=workers,
        reference=reference,
        oracle=oracle,
        reference_device=reference_device(reference_on),
        reference_processes=reference_processes,
        reference_python=reference_python,
        command=command,
    )
    statement = Statement(author=author, reason=reason, command=command)
    try:
        with Progress(error_console, [job.run for job in recorded_jobs(chosen, options)], False) as progress:
            made = flow.record(chosen, options, statement, baselines, progress.update, replace=replace)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; nothing was recorded and no process is left.") from None
    _print_recorded(baselines / chosen.name, made)
    return MET


def extract(
    bundle: BundleArgument,
    author: Annotated[str, typer.Option(help="Who records it.")],
    reason: Annotated[str, typer.Option(help="Why it is recorded, or recorded again.")],
    baselines: BaselinesOption = DEFAULT_DIRECTORY,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing baseline.")] = False,
) -> int:
    """Make the reference half of a finished bundle the baseline of its case, all or nothing. Nothing runs.

    Exit code 0: recorded. 2: bad input, or runs that cannot be a baseline.
    """
    statement = Statement(author=author, reason=reason, command=("certify", *sys.argv[1:]))
    found = read_bundle(bundle)
    made = flow.extract(found, statement, baselines, replace=replace)
    _print_recorded(baselines / found.case.name, made)
    return MET


def _print_recorded(path: Path, made: Baseline) -> None:
    out_console.print(f"Recorded: {path} ({made.seal[:12]})", markup=False, soft_wrap=True)


def list_baselines(baselines: BaselinesOption = DEFAULT_DIRECTORY, as_json: JsonOption = False) -> int:
    """List the recorded baselines and their states. Exit code 0 for any state; 'verify' judges them."""
    found = [_check(baselines, name, None, MAX_AGE_DAYS) for name in stored_names(baselines)]
    if as_json:
        print(json.dumps({"baselines": [_summary(one) for one in found]}))
        return MET
    if not found:
        out_console.print(f"No baseline is recorded under {baselines}.", markup=False, soft_wrap=True)
    for one in found:
        made = one.baseline
        what = f"{made.seal[:12]}, recorded {made.recorded} by {made.author}: {made.reason}" if made else one.detail
        out_console.print(f"{one.name}: {one.state}; {what}", markup=False, soft_wrap=True)
    return MET


def verify(
    case: Annotated[str | None, typer.Argument(help=f"{CASE_HELP} Default: all baselines.")] = None,
    baselines: BaselinesOption = DEFAULT_DIRECTORY,
    max_age: Annotated[
        int, typer.Option("--max-age", min=0, help="Days after which a baseline is stale.")
    ] = MAX_AGE_DAYS,
    trust: BaselineTrustOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check every byte of the baselines, and whether each is still usable; with --trust, also who signed it.

    Exit code 0: all are usable. 1: one is stale or unused. 2: one was changed or, with --trust, is not signed by a
    person of it; or there is none.
    """
    trusted = load_trust(trust) if trust else None
    chosen = load_case(case) if case else None
    names = [chosen.name] if chosen else stored_names(baselines)
    if not names:
        raise InputError(
            f"No baseline is recorded under {baselines}. "
            "Record one: certify baseline record CASE --author NAME --reason WHY"
        )
    for name in names:
        if not (baselines / name).is_dir():
            command = record_command(name, baselines, replace=False)
            raise InputError(f"There is no baseline {baselines / name}. Record one: {command}")
    found = [_check(baselines, name, chosen, max_age, trusted) for name in names]
    if as_json:
        print(json.dumps({"baselines": [_summary(one) for one in found]}))
    else:
        for one in found:
            out_console.print(f"{one.name}: {one.state}; {one.detail}", markup=False, soft_wrap=True)
    states = {one.state for one in found}
    if BaselineState.UNVERIFIED in states:
        return BAD_INPUT
    return MET if states <= {BaselineState.USABLE} else NOT_MET


def _check(baselines: Path, name: str, chosen: Case | None, max_age: int, trust: Trust | None = None) -> Checked:
    case = chosen or (load_case(name) if name in shipped_cases() else None)
    return check_baseline(baselines, name, case, datetime.now(UTC), max_age, trust)


def _summary(one: Checked) -> dict[str, str | None]:
    return {
        "case": one.name,
        "state": one.state,
        "detail": one.detail,
        "digest": one.baseline.seal if one.baseline else None,
    }
