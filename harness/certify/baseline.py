"""Baselines: the reference half of a case, recorded once, to judge a subject where no reference can run.

Takes the directory of a case's finished reference and oracle runs; gives `DIR/CASE/`, complete or not at all:

    baseline.json                 who, why, when, on what; the digest of every other file, and of itself
    case.json                     the case, its corpus and tokenizer by digest
    runs/NAME/{trace.jsonl, outcome.json}   tensors/NAME.safetensors
    attestations/*.json           signed statements about it, which are not among its files

Weights and batches are omitted: a run that is judged by it draws them again from the case, and they must have the
recorded digests. Rejects a recording that did not complete, is not finite or does not repeat, and a baseline that was
changed, is of another case, or is stale.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from harness.attestation import Trust
from harness.base.code import ROOT, reference_digest, source_digest
from harness.base.digest import digest_json
from harness.base.errors import AttestationError, EvidenceError, InputError
from harness.base.locks import remove_empty
from harness.base.records import encode, list_files, read_json, write_json
from harness.cases.case import Case, parse_case, shipped_cases
from harness.cases.runs_of_a_case import REFERENCE, REFERENCE_REPEAT, role
from harness.certify.case_options import with_recorded_sources
from harness.certify.committed import reference_digest_at
from harness.certify.versions import against_constraints
from harness.evidence.bundle import read_run, unusable
from harness.evidence.bundle_files import ATTESTATIONS, CASE
from harness.evidence.provenance import BASELINE, BASELINE_FORMAT, ENVIRONMENT, SOURCE, Baseline, Source, read_baseline
from harness.levels.recorded import SignedBaseline, check_about, read_signed_baseline
from harness.levels.submission import statement_paths
from harness.runners.job import Job
from harness.runs.files import OUTCOME, TRACE
from harness.runs.inputs import Inputs
from harness.runs.trace import Run, Trace

COMPARED = ("torch", "transformers")
MAX_AGE_DAYS = 365
DAY = timedelta(days=1)
DEFAULT_DIRECTORY = Path("baselines")


class BaselineState(StrEnum):
    """Whether a stored baseline can be used."""

    USABLE = "usable"
    STALE = "stale"
    UNUSED = "unused"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """Who records a baseline, why, and with which command."""

    author: str
    reason: str
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A stored baseline and its state on a day. `detail` states why it cannot be used and which command fixes that;
    `baseline` is None where it could not be read."""

    name: str
    state: BaselineState
    detail: str
    baseline: Baseline | None


def record_command(
    case_name: str, directory: Path, *, replace: bool, file: Path | None = None, more: Sequence[str] = ()
) -> str:
    """The command that records the baseline of a case, with `more` options; for a case that is not shipped as it is, it
    must name the file."""
    named = str(file) if file else case_name if case_name in shipped_cases() else f"FILE_OF_{case_name}"
    where = [] if directory == DEFAULT_DIRECTORY else ["--baselines", str(directory)]
    again = ["--replace"] if replace else []
    words = ["certify", "baseline", "record", named, *where, *more, *again]
    return shlex.join([*words, "--author", "NAME", "--reason", "WHY"])


def check_new(directory: Path, case_name: str, statement: Statement, *, replace: bool) -> None:
    """Rejects a recording before anything runs.

    Raises:
        InputError: author or reason is empty, or the name is taken: by a baseline without `replace`, or by something
            else.
    """
    empty = [name for name in ("author", "reason") if not getattr(statement, name).strip()]
    if empty:
        raise InputError(f"A baseline needs its {' and '.join(empty)}: give --author NAME --reason WHY.")
    if os.path.lexists(directory / case_name) and not replace:
        raise InputError(
            f"{directory / case_name} exists. To replace it: {record_command(case_name, directory, replace=True)}"
        )
    if os.path.lexists(directory / case_name) and not (directory / case_name / BASELINE).is_file():
        raise InputError(f"{directory / case_name} is no baseline and is not replaced. Choose other --baselines.")


def check_recordable(case: Case) -> None:
    """Rejects a case whose reference runs with weights that no other machine has.

    Raises:
        InputError: its weights are trained on each machine.
    """
    if case.trains_weights:
        raise InputError(
            f"There is no baseline of {case.name}: its weights are trained on each machine, and not to the same bits. "
            "Use a checkpoint, which is the same everywhere: --model DIR ('certify checkpoint' writes one)."
        )


@contextmanager
def workplace(directory: Path, case_name: str) -> Iterator[Path]:
    """A directory for the runs of a recording, next to where the baseline will be; gone when the block ends.

    Raises:
        InputError: it cannot be made.
    """
    try:
        absent = [one for one in (directory, *directory.parents) if not one.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        # No case has a name that begins with a dot, so the leftover of a killed recording is never read as a baseline.
        path = Path(tempfile.mkdtemp(prefix=f".{case_name}.", suffix=".partial", dir=directory))
    except OSError as error:
        raise InputError(f"The directory {directory} cannot be written: {error.strerror}.") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        remove_empty(absent)


def store(
    work: Path,
    runs: Path,
    case: Case,
    inputs: Inputs,
    statement: Statement,
    destination: Path,
    recorded: str | None = None,
    reference_code: str | None = None,
) -> Baseline:
    """Makes the reference half of the finished runs in a directory the baseline `destination`, or replaces it.

    `work` is a directory on the same file system, for what is not complete yet. `recorded` is when they were made (ISO
    8601, UTC), None for now; `reference_code` is the digest of the code that made them, None for the code here.

    Raises:
        InputError: a run did not complete or is not finite, or the repeat differs.
    """
    every = [read_run(path) for path in sorted((runs / "runs").iterdir())]
    sides = {run.name: role(run.name, case) for run in every}
    found = [run for run in every if (side := sides[run.name]) and side[0] != "subject"]
    _check_good(found)
    kept = [f"runs/{run.name}/{name}" for run in found for name in (TRACE, OUTCOME)]
    tensors = [f"tensors/{run.name}.safetensors" for run in found]
    kept += [name for name in tensors if (runs / name).is_file()]
    whole = work / "whole"
    for name in (CASE, *kept):
        (whole / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(runs / name, whole / name)
    fields = {
        "format": BASELINE_FORMAT,
        "case": case.name,
        "case_digest": case.digest(),
        "author": encode(statement.author.strip()),
        "reason": encode(statement.reason.strip()),
        "recorded": recorded or datetime.now(UTC).isoformat(timespec="seconds"),
        "command": encode(statement.command),
        "inputs": encode(inputs),
        "environment": read_json(runs / ENVIRONMENT),
        "source": read_json(runs / SOURCE),
        "reference_code": reference_code or reference_digest(ROOT),
        "files": list_files(whole, (CASE, *kept)),
    }
    write_json(whole / BASELINE, {**fields, "seal": digest_json(fields)})
    baseline = read_baseline(whole)
    _take_place(whole, destination, aside=work / "before")
    return baseline


def reference_code_of(source: Source, bundle: Path) -> str:
    """The digest of the code that made the reference of a bundle.

    Raises:
        InputError: it is not known here.
    """
    if source.sha256 == source_digest(ROOT):
        return reference_digest(ROOT)
    known = None if source.dirty or source.revision is None else reference_digest_at(ROOT, source.revision)
    if known is None:
        raise InputError(
            f"{bundle} was made by other code than is here ({source.state}), so it is not known which code made its "
            "reference. Extract in a checkout whose history has that revision, or record a baseline: certify baseline "
            "record"
        )
    return known


def _check_good(runs: Sequence[Run]) -> None:
    if absent := sorted({REFERENCE, REFERENCE_REPEAT} - {run.name for run in runs}):
        raise InputError(f"No baseline: there is no {' and no '.join(absent)}.")
    for run in runs:
        if why := unusable(run):
            raise InputError(f"No baseline: {why}")
    traces = {run.name: run.trace for run in runs if run.trace}
    first, again = traces[REFERENCE], traces[REFERENCE_REPEAT]
    for one, other in zip(first.lines, again.lines, strict=True):
        # repr distinguishes 0.0 and -0.0
        if repr(one) != repr(other):
            raise InputError(
                f"No baseline: {REFERENCE_REPEAT} differs from {REFERENCE} at step {one.step}, so the reference is not "
                "deterministic here. Try --threads 1, or another machine."
            )
    if _final(first) != _final(again):
        raise InputError(f"No baseline: the tensors of {REFERENCE_REPEAT} differ from those of {REFERENCE}.")


def _final(trace: Trace) -> Mapping[str, str]:
    return trace.footer.parameters if trace.footer else {}


def _take_place(whole: Path, destination: Path, aside: Path) -> None:
    """Renames a directory to its name; a directory that had that name is restored if that fails."""
    there = os.path.lexists(destination)
    if there:
        destination.rename(aside)
    try:
        whole.rename(destination)
    except BaseException:
        if there:
            aside.rename(destination)
        raise


def stored_names(directory: Path) -> list[str]:
    """The names under which a directory holds baselines.

    Raises:
        InputError: there is no such directory.
    """
    if not directory.is_dir():
        raise InputError(f"There is no directory {directory} of baselines. Name another: --baselines DIR.")
    return sorted(path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith("."))


def check_baseline(
    directory: Path, name: str, case: Case | None, now: datetime, max_age_days: int, trust: Trust | None = None
) -> Checked:
    """The state of the baseline `name` of a directory. `case` is the current case of that name, None if there is none.
    With `trust`, it must be signed by a person who is trusted. The detail of a usable baseline states who recorded it,
    when, why and on what, and who signed it."""
    path = directory / name
    fix = f"Record it again: {record_command(name, directory, replace=True)}"
    try:
        signed = read_signed_baseline(path, trust, now)
        recorded = parse_case(read_json(path / CASE), str(path / CASE))
    except (EvidenceError, InputError) as error:
        return Checked(name=name, state=BaselineState.UNVERIFIED, detail=f"{error} {fix}", baseline=None)
    baseline = signed.baseline

    def checked(state: BaselineState, detail: str) -> Checked:
        return Checked(name=name, state=state, detail=detail, baseline=baseline)

    if why := _not_vouched_for(signed):
        return checked(BaselineState.UNVERIFIED, why)
    if case is None:
        return checked(
            BaselineState.UNUSED, f"{path} is of no shipped case. Name the case's file, or remove the directory."
        )
    if with_recorded_sources(case, recorded).digest() != baseline.case_digest:
        return checked(BaselineState.UNUSED, f"{path} was recorded for another case than {case.name} is now. {fix}")
    age = now - datetime.fromisoformat(baseline.recorded)
    if age < -DAY:  # less may be the clocks of two machines
        return checked(
            BaselineState.STALE, f"{path} was recorded in the future: a clock is wrong here or was there. {fix}"
        )
    if age / DAY > max_age_days:
        return checked(BaselineState.STALE, f"{path} was recorded {age.days} days ago, allowed {max_age_days}. {fix}")
    if baseline.reference_code not in (None, reference_digest(ROOT)):
        return checked(BaselineState.STALE, f"{path} was recorded with other code of reference and oracle. {fix}")
    other = against_constraints(baseline.environment.packages, COMPARED)
    return checked(
        BaselineState.USABLE,
        f"recorded {baseline.recorded} by {baseline.author} on {signed.on}, {signed.by}: {baseline.reason}"
        + (f" (with other versions than the published evidence: {other})" if other else ""),
    )


def _not_vouched_for(signed: SignedBaseline) -> str | None:
    """Why the statements about a baseline forbid to use it: one is not about it; or by the trust file, where there is
    one, one is not valid, or none vouches for it."""
    attest = shlex.join(["certify", "attest", str(signed.path), "--role", "ROLE", "--key", "NAME.key"])
    remove = f"Remove its file from {signed.path / ATTESTATIONS} if it does not belong there."
    try:
        check_about(signed)
    except (AttestationError, EvidenceError) as error:
        return f"{error} {remove}"
    if not signed.trusted:
        return None
    if signed.rejected:
        return f"{signed.path}: {'; '.join(signed.rejected)} {remove}"
    if not signed.valid:
        return f"{signed.path} is not signed by a person of the trust file. Sign it: {attest}"
    return None


def find_baseline(
    directory: Path,
    case: Case,
    jobs: Sequence[Job],
    max_age_days: int = MAX_AGE_DAYS,
    trust: Trust | None = None,
) -> Baseline:
    """The baseline to judge a case by. `jobs` are the runs that it must hold; with `trust`, it must be signed.

    Raises:
        InputError: there is none, it is not usable, or it lacks a run or was recorded with another runner.
    """
    path = directory / case.name
    if not path.is_dir():
        command = record_command(case.name, directory, replace=False)
        # a wheel holds none: it stays small
        where = "" if (ROOT / DEFAULT_DIRECTORY).is_dir() else " The shipped ones are in a checkout, not in a wheel."
        raise InputError(f"There is no baseline {path}. Where the reference can run, record one: {command}{where}")
    found = check_baseline(directory, case.name, case, datetime.now(UTC), max_age_days, trust)
    if found.baseline is None or found.state is not BaselineState.USABLE:
        raise InputError(found.detail)
    command = record_command(case.name, directory, replace=True)
    for job in jobs:
        if f"runs/{job.run}/{TRACE}" not in found.baseline.files:
            raise InputError(f"{path} holds no {job.run}, which {case.name} requires. Record it again: {command}")
        trace = read_run(path / "runs" / job.run).trace
        if trace is None or trace.header.runner != job.runner:
            ran = trace.header.runner if trace else "nothing"
            raise InputError(f"{job.run} of {path} was run by {ran}, not by {job.runner}. Record it again: {command}")
    return found.baseline


def check_drawn(baseline: Baseline, case: Case, inputs: Inputs) -> None:
    """Rejects inputs that are not those of the recording.

    Raises:
        InputError: the case, its weights or its batches have other digests.
    """
    pairs = (
        ("corpus", inputs.corpus_sha256, baseline.inputs.corpus_sha256),
        ("tokenizer", inputs.tokenizer_sha256, baseline.inputs.tokenizer_sha256),
        ("weights", inputs.weights, baseline.inputs.weights),
        ("batches", inputs.batches, baseline.inputs.batches),
        ("case", case.digest(), baseline.case_digest),
    )
    for what, drawn, recorded in pairs:
        if drawn != recorded:
            raise InputError(
                f"The {what} of {case.name} is not that of its baseline: {_short(drawn)} against {_short(recorded)}. "
                "Give the corpus and tokenizer of the recording, or run without --baseline."
            )


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def place(directory: Path, name: str, out: Path, jobs: Sequence[Job]) -> None:
    """Copies the recorded runs of the jobs, their tensors, the record of the baseline and what was signed about it
    into a bundle's directory."""
    (out / "tensors").mkdir(parents=True, exist_ok=True)
    for job in jobs:
        (out / "runs" / job.run).mkdir(parents=True, exist_ok=True)
        kept = (f"runs/{job.run}/{TRACE}", f"runs/{job.run}/{OUTCOME}", f"tensors/{job.run}.safetensors")
        for path in kept:
            if (directory / name / path).is_file():
                shutil.copyfile(directory / name / path, out / path)
    shutil.copyfile(directory / name / BASELINE, out / BASELINE)
    for statement in statement_paths(directory / name):
        (out / ATTESTATIONS).mkdir(exist_ok=True)
        shutil.copyfile(statement, out / ATTESTATIONS / statement.name)
