"""What planted defects share: a case whose reference half is there, by which a subject is judged and, where it trains,
diagnosed. The weights that a case of inference trains belong to the shared half."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import InputError
from harness.base.records import read_json, write_json
from harness.cases.case import Case
from harness.cases.runs_of_a_case import SUBJECT_REPEAT, SUBJECT_RESUMED, TRAINING
from harness.certify.diagnose import jobs as tapped_jobs
from harness.certify.diagnose import look_later, names_the_cause
from harness.certify.flow import prepare
from harness.certify.jobs import Options, all_jobs
from harness.certify.workspace import claimed
from harness.comparison.measurement import Comparison
from harness.diagnosis.diagnosis import first_difference
from harness.evidence.bundle import compare_runs, unusable
from harness.evidence.bundle_files import CASE, INPUTS
from harness.evidence.judge import Finding, Outcome, judge
from harness.runners.executor import Executor
from harness.runners.job import Job
from harness.runs.inputs import Inputs
from harness.runs.trace import Run
from harness.standards import Standard
from harness.studies.bits import bits_of
from harness.studies.variations import SUBJECT as CORRECT

# The runs of a subject that show only whether it does the same again.
AGAIN = (SUBJECT_REPEAT, SUBJECT_RESUMED)
BITS = "bits.json"  # what the runs of the correct subject computed
Jobs = Callable[[Case, Options], list[Job]]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A case with its inputs and the finished runs that all subjects share: in `plain` those that are judged by, in
    `tapped` those that show what is inside their first step; None where nothing takes one."""

    case: Case
    inputs: Inputs
    standards: tuple[Standard, ...]
    options: Options
    plain: Path
    tapped: Path | None


def set_up(case: Case, standards: Sequence[Standard], options: Options, executor: Executor) -> Bench:
    """Makes the shared runs of a case under `options.out`; runs that are finished there are reused.

    Raises:
        InputError: a run did not complete, or is not finite.
    """
    plain = options.out / "plain"
    tapped = options.out / "tapped" if case.task.judges_steps else None
    begun = plain.exists()
    with claimed(plain, resume=begun):
        case, inputs = prepare(case, standards, dataclasses.replace(options, out=plain, resume=begun))
        write_json(plain / INPUTS, inputs)
    _make_shared(case, all_jobs, dataclasses.replace(options, out=plain, resume=True), executor)
    if tapped is not None:
        _share(tapped, plain, (CASE, "inputs"))
        _make_shared(case, tapped_jobs, dataclasses.replace(options, out=tapped, resume=True), executor)
    return Bench(case=case, inputs=inputs, standards=tuple(standards), options=options, plain=plain, tapped=tapped)


def _make_shared(case: Case, every: Jobs, options: Options, executor: Executor) -> None:
    jobs = [job for job in every(case, options) if not _of_subject(job)]
    for run in executor.execute(jobs, case):
        if why := unusable(run):
            raise InputError(f"Nothing can be measured by this reference: {why}")


def _of_subject(job: Job) -> bool:
    """Whether a run is of the judged subject. Weights for inference are always trained by the shipped subject."""
    return job.side == "subject" and job.run != TRAINING


@dataclass(frozen=True, kw_only=True)
class JudgedSubject:
    """A subject by the reference half of a bench; `bits` are the digests of what its runs computed, and `unmade` names
    the runs that were not made. No finding is about one of those: it would count as a detection."""

    comparison: Comparison
    findings: tuple[Finding, ...]
    bits: Mapping[str, str]
    unmade: tuple[str, ...]


def judge_subject(
    bench: Bench, runner: str, directory: Path, executor: Executor, *, every_run: bool = True
) -> JudgedSubject:
    """Runs a subject in a directory of its own and judges it by the reference half of a bench. Without `every_run`, one
    that its first runs reject is neither repeated nor resumed: nothing that follows can make it pass.

    Raises:
        InputError: a run broke.
    """
    _share(directory, bench.plain, ("inputs", "runs/*", "tensors/*"))
    jobs = _of_a_subject(bench, all_jobs, runner, directory)
    later = [] if every_run else [job for job in jobs if job.run in AGAIN]
    runs = _execute(bench, [job for job in jobs if job not in later], executor)
    comparison, findings = _judged(bench, directory)
    if later and not any(finding.outcome is Outcome.FAIL for finding in findings):
        runs += _execute(bench, later, executor)
        later = []
        comparison, findings = _judged(bench, directory)
    if later:  # every run that was made has ended, so only one that was not made is an error
        findings = tuple(finding for finding in findings if finding.outcome is not Outcome.ERROR)
    unmade = tuple(job.run for job in later)
    return JudgedSubject(comparison=comparison, findings=findings, bits=bits_of(runs), unmade=unmade)


def _judged(bench: Bench, directory: Path) -> tuple[Comparison, tuple[Finding, ...]]:
    _, comparison = compare_runs(directory, bench.case, bench.inputs)
    return comparison, tuple(finding for standard in bench.standards for finding in judge(comparison, standard))


def correct_bits(bench: Bench, executor: Executor) -> Mapping[str, str]:
    """The digests of what the runs of the correct subject compute, made once for a bench.

    Raises:
        InputError: a run broke.
    """
    kept = bench.options.out / BITS
    if not kept.is_file():
        directory = bench.options.out / "correct"
        shutil.rmtree(directory, ignore_errors=True)
        _share(directory, bench.plain, ("inputs", "runs/*", "tensors/*"))
        write_json(kept, bits_of(_execute(bench, _of_a_subject(bench, all_jobs, CORRECT, directory), executor)))
        shutil.rmtree(directory)
    found: Mapping[str, str] = read_json(kept)
    return found


def name_place(bench: Bench, runner: str, directory: Path, executor: Executor, later: Sequence[int] = ()) -> str | None:
    """The place that a diagnosis of a subject names; None if it finds nothing, and for inference. Where the first step
    agrees, the `later` ones are looked into, up to the first that names one.

    Raises:
        CertifyError: a run broke.
    """
    if bench.tapped is None:
        return None
    _share(directory, bench.tapped, (CASE, "inputs", "runs/*", "tensors/*"))
    _execute(bench, _of_a_subject(bench, tapped_jobs, runner, directory), executor)
    named = first_difference(directory)
    if named is not None and names_the_cause(named):
        return named.place
    for step in later if bench.case.parallel.world_size == 1 else ():
        out = directory.with_name(f"{directory.name}-{step}")
        options = dataclasses.replace(bench.options, out=out, subject=runner, resume=False)
        found = look_later(bench.case, options, bench.tapped, step, executor)
        shutil.rmtree(out)
        if found.named is not None and names_the_cause(found.named):
            return found.named.place
    return named.place if named else None


def _of_a_subject(bench: Bench, every: Jobs, runner: str, directory: Path) -> list[Job]:
    """The runs of a subject, to be made in that directory."""
    options = dataclasses.replace(bench.options, out=directory, subject=runner, resume=False)
    return [job for job in every(bench.case, options) if _of_subject(job)]


def _execute(bench: Bench, jobs: Sequence[Job], executor: Executor) -> list[Run]:
    """A subject's runs, made here. One that breaks is no measurement: any gate rejects a missing run."""
    runs = executor.execute(jobs, bench.case)
    for run in runs:
        if not run.outcome.ended:
            raise InputError(
                f"{jobs[0].runner} does not run, so it shows nothing of the gate: {run.name} {run.outcome.detail}.\n"
                f"{run.outcome.log_tail}"
            )
    return runs


def _share(directory: Path, source: Path, patterns: Sequence[str]) -> None:
    """Puts links to the files of `source` into a directory."""
    for path in (path for pattern in patterns for path in sorted(source.glob(pattern))):
        link = directory / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path.resolve())
