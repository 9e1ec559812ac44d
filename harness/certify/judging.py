"""From runs that trainers made by themselves to a bundle, its findings, level and page.

Takes a case, a reference (a recorded baseline, or a collected run) and the collected runs of a subject. The case's
inputs are drawn here again; each run is compared with them row by row. Nothing is run.
"""

import datetime
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.attestation import Trust
from harness.base.errors import InputError
from harness.base.records import write_json
from harness.cases.case import Case, check_trains
from harness.cases.runs_of_a_case import ROLES, SUBJECT, SUBJECT_RESUMED, role
from harness.certify import environment
from harness.certify.baseline import check_drawn, find_baseline, place
from harness.certify.case_options import named_by_digest
from harness.certify.jobs import Options, recorded_jobs
from harness.certify.start import draw_start
from harness.certify.workspace import claimed
from harness.corpus.draw import draw_inputs
from harness.evidence.bundle import Bundle, finish_bundle
from harness.evidence.bundle_files import CASE, INPUTS, RUN
from harness.evidence.collected import check_layout, started
from harness.evidence.collected_parts import PartsOfCase, digests_of_parts
from harness.evidence.collected_run import CollectedRun, is_collected, outcome_of, read_collected
from harness.evidence.provenance import BASELINE, ENVIRONMENT, SOURCE, START, Occasion, Start
from harness.levels.certificate import Certificate
from harness.levels.rule import certify
from harness.levels.submission import submitted
from harness.report import write_report
from harness.runs.collected import ARMS, FIRST_GRADIENT, PARTS, RECORD, ROWS
from harness.runs.files import OUTCOME, TIMING, TRACE
from harness.runs.inputs import WEIGHTS, read_weights, weights_files
from harness.runs.trace import Arm, Side, Trace, read_trace
from harness.standards import Standard


@dataclass(frozen=True, kw_only=True)
class GivenRun:
    """A collected run that was given: its directory, the trace in it, and what else it left."""

    directory: Path
    trace: Trace
    left: CollectedRun


def judge_collected(
    case: Case,
    standards: Sequence[Standard],
    references: Sequence[Path],
    subjects: Sequence[Path],
    out: Path,
    command: Sequence[str],
    trust: Trust | None = None,
) -> tuple[Bundle, Certificate]:
    """Judges collected runs and writes bundle and page. With `trust`, a baseline must be signed.

    Raises:
        CertifyError: the case, a run, the baseline or the output directory cannot be used.
    """
    check_trains(case, "Collected runs are judged step by step")
    given = assigned("subject", [read_given(path) for path in subjects])
    recorded = _baseline_of(references)
    if recorded is None:
        given |= assigned("reference", [read_given(path) for path in references])
    _check_steps(case, given)
    if trust is not None and recorded is None:
        raise InputError("--trust checks the signature of a baseline, and --reference names none.")
    options = Options(out=out, command=tuple(command), trust=trust)
    with claimed(out, resume=False):
        case = _prepare(case, standards, given, recorded, options)
    if case.evidence == "sketches":
        for path in weights_files(out / "inputs" / WEIGHTS):
            path.unlink(missing_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    submission = submitted(finish_bundle(out), trust, now)
    certificate = certify(submission, now)
    write_report(submission, certificate)
    return submission.bundle, certificate


def read_given(directory: Path) -> GivenRun:
    """A collected run, by its directory or its trace.

    Raises:
        InputError: there is none.
        EvidenceError: it was changed after it was collected.
    """
    place = directory.parent if directory.name == TRACE else directory
    if not (place / TRACE).is_file():
        raise InputError(
            f"{directory} is no collected run: it has no {TRACE}. Give the directory that the collector wrote, or as "
            "--reference the directory of a recorded baseline."
        )
    trace = read_trace(place / TRACE)
    if not is_collected(trace):
        raise InputError(
            f"{place / TRACE} is the trace of {trace.header.run}, a run of the harness, and not of a collector. Compare"
            f" it with another one: certify compare {place / TRACE} OTHER"
        )
    return GivenRun(directory=place, trace=trace, left=read_collected(place, trace))


def _collectable(side: Side, arm: Arm) -> tuple[str, ...]:
    """The runs of a side that can be collected with an arm, in the order in which they are given."""
    return tuple(name for name, known in ROLES.items() if known == (side, arm)) if arm in ARMS else ()


def assigned(side: Side, runs: Sequence[GivenRun]) -> dict[str, GivenRun]:
    """The runs of a side by name: the first that trains, its repeat, and the one with learning rate 0.

    Raises:
        InputError: there are more of a kind than the case has, or none that trains.
    """
    found: dict[str, GivenRun] = {}
    for one in runs:
        names = _collectable(side, one.trace.header.arm)
        free = next((name for name in names if name not in found), None)
        if free is None:
            raise InputError(
                f"{one.directory} is one {one.trace.header.arm} run too many of the {side}: {len(names)} are judged."
            )
        found[free] = one
    if _collectable(side, "train")[0] not in found:
        raise InputError(f"No run of the {side} trains: give one that was collected with arm 'train'.")
    return found


def _check_steps(case: Case, given: Mapping[str, GivenRun]) -> None:
    for name, one in given.items():
        if name == SUBJECT_RESUMED and not one.left.record.resumed_after:
            raise InputError(f"{one.directory} was collected with arm 'resumed', and it was never resumed.")
        known = role(name, case)
        if known is not None and known[0] == "subject":
            check_layout(str(one.directory), case, one.left.ranks)
        steps = case.steps_of(*known) if known else 0
        if one.trace.header.steps != steps:
            raise InputError(
                f"{one.directory} was collected for {one.trace.header.steps} steps, and {name} of {case.name} has "
                f"{steps}. Train as many steps as the case has, or give a case with other training.steps."
            )


def _baseline_of(references: Sequence[Path]) -> Path | None:
    """The directory of a recorded baseline, if that is what the reference is."""
    found = [path for path in references if (path / BASELINE).is_file()]
    if found and len(references) > 1:
        raise InputError(f"{found[0]} is a baseline, which holds every run of the reference: give it alone.")
    return found[0] if found else None


def _prepare(
    case: Case, standards: Sequence[Standard], given: Mapping[str, GivenRun], recorded: Path | None, options: Options
) -> Case:
    """Everything of the bundle but what is concluded; what makes it resumable comes last, so that an error leaves
    nothing."""
    out = options.out
    inputs = draw_inputs(case, out / "inputs")
    if recorded is not None:
        if recorded.name != case.name:
            raise InputError(f"{recorded} is the baseline of another case than {case.name}.")
        jobs = recorded_jobs(case, options)
        found = find_baseline(recorded.parent, case, jobs, trust=options.trust)
        check_drawn(found, named_by_digest(case, inputs), inputs)
        place(recorded.parent, recorded.name, out, jobs)
    case = named_by_digest(case, inputs)
    write_json(out / CASE, case.record())
    for standard in standards:
        write_json(out / "standards" / f"{standard.name}.json", standard.model_dump(mode="json"))
    _list_parts(case, given, out)
    (out / "tensors").mkdir(exist_ok=True)
    for name, one in given.items():
        _copy(one, out / "runs" / name)
    first = given[SUBJECT].left.record
    write_json(out / ENVIRONMENT, first.environment)
    write_json(out / SOURCE, environment.source())
    # Of the subject and not of this judgement, so that one run that is judged twice is one run.
    write_json(out / START, Start(nonce=first.nonce, committed=draw_start().committed))
    occasion = Occasion(
        command=options.command,
        started=started(one.left for one in given.values()),
        seconds=round(math.fsum(one.left.timing.total for one in given.values()), 1),
        host=first.host,
    )
    write_json(out / RUN, occasion)
    write_json(out / INPUTS, inputs)
    return case


def _list_parts(case: Case, given: Mapping[str, GivenRun], out: Path) -> None:
    """The digests of the parts of the case's weights that ranks state, where the bundle does not keep the weights."""
    stated = [one.left.parts for one in given.values() if one.left.parts is not None]
    if case.evidence != "sketches" or not stated:
        return
    write_json(out / "inputs" / PartsOfCase.FILE, digests_of_parts(read_weights(out / "inputs" / WEIGHTS), stated))


def _copy(one: GivenRun, directory: Path) -> None:
    directory.mkdir(parents=True)
    gradient = (FIRST_GRADIENT,) if one.left.gradient else ()
    per_rank = [ROWS, *([PARTS] if one.left.parts else [])]
    for kind in per_rank:
        (directory / kind).mkdir()
    of_ranks = [f"{kind}/{rank}.jsonl" for kind in per_rank for rank in range(one.left.ranks)]
    for name in (TRACE, TIMING, RECORD, *gradient, *of_ranks):
        shutil.copyfile(one.directory / name, directory / name)
    write_json(directory / OUTCOME, outcome_of(one.trace, one.left.record))
