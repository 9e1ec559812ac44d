"""What planted defects share: a case whose reference half is there, by which a subject is judged and diagnosed."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.case import Case
from harness.certify import prepare
from harness.comparison import Comparison
from harness.diagnosis import first_difference
from harness.errors import InputError
from harness.evidence import CASE, INPUTS, compare_runs, read_run, unusable
from harness.inputs import Inputs
from harness.investigate import jobs as tapped_jobs
from harness.jobs import Options, all_jobs
from harness.judge import Finding, judge
from harness.records import write_json
from harness.runners import Job
from harness.runners.launcher import run_jobs
from harness.standards import Standard

Execute = Callable[[Sequence[Job], Case], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A case with its inputs and the finished runs of reference and oracle: in `plain` those that are judged by, in
    `tapped` those that show what is inside their first step."""

    case: Case
    inputs: Inputs
    standards: tuple[Standard, ...]
    options: Options
    plain: Path
    tapped: Path


def set_up(case: Case, standards: Sequence[Standard], options: Options) -> Bench:
    """Runs reference and oracle of a case under `options.out`; what is finished there from before is taken as it is.

    Raises:
        InputError: a run did not complete, or is not finite.
    """
    plain, tapped = options.out / "plain", options.out / "tapped"
    case, inputs = prepare(case, standards, dataclasses.replace(options, out=plain, resume=plain.exists()))
    write_json(plain / INPUTS, vars(inputs))
    _share(tapped, plain, (CASE, "inputs"))
    for directory, every in ((plain, all_jobs), (tapped, tapped_jobs)):
        jobs = every(case, dataclasses.replace(options, out=directory, resume=True))
        others = [job for job in jobs if job.side != "subject"]
        run_jobs(others, case, workers=options.workers, listener=lambda run, trace: None)
        for job in others:
            if why := unusable(read_run(Path(job.directory))):
                raise InputError(f"Nothing can be measured by this reference: {why}")
    return Bench(case=case, inputs=inputs, standards=tuple(standards), options=options, plain=plain, tapped=tapped)


def judge_subject(
    bench: Bench, runner: str, directory: Path, execute: Execute
) -> tuple[Comparison, tuple[Finding, ...]]:
    """Runs a subject in a directory of its own and judges it by the reference half of a bench.

    Raises:
        InputError: a run broke.
    """
    _share(directory, bench.plain, ("inputs", "runs/*", "tensors/*"))
    _execute(bench, all_jobs, runner, directory, execute)
    _, comparison = compare_runs(directory, bench.case, bench.inputs)
    return comparison, tuple(finding for standard in bench.standards for finding in judge(comparison, standard))


def name_place(bench: Bench, runner: str, directory: Path, execute: Execute) -> str | None:
    """The place that a diagnosis of a subject names, None where it finds nothing.

    Raises:
        InputError: a run broke.
    """
    _share(directory, bench.tapped, (CASE, "inputs", "runs/*", "tensors/*"))
    _execute(bench, tapped_jobs, runner, directory, execute)
    named = first_difference(directory)
    return named.place if named else None


def _execute(
    bench: Bench, every: Callable[[Case, Options], list[Job]], runner: str, directory: Path, execute: Execute
) -> None:
    """Makes the subject's runs. One that breaks is no measurement: any gate refuses a run that is not there."""
    options = dataclasses.replace(bench.options, out=directory, subject=runner, resume=False)
    jobs = [job for job in every(bench.case, options) if job.side == "subject"]
    execute(jobs, bench.case)
    for run in (read_run(Path(job.directory)) for job in jobs):
        if not run.outcome.ended:
            raise InputError(
                f"{runner} does not run, so it shows nothing of the gate: {run.name} {run.outcome.detail}.\n"
                f"{run.outcome.log_tail}"
            )


def _share(directory: Path, source: Path, patterns: Sequence[str]) -> None:
    """Puts links to what lies in `source` into a directory."""
    for path in (path for pattern in patterns for path in sorted(source.glob(pattern))):
        link = directory / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(path.resolve())
