"""The evidence bundle: a directory from which every number, finding and level can be recomputed.

Written by a run, read by everything after it. Reading checks every byte of every file
(`harness.evidence.bundle_files`), recomputes comparison and findings from the traces, and rejects a bundle that states
other findings.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base.digest import digest_each, digest_file, digest_tensors
from harness.base.errors import EvidenceError, InputError
from harness.base.numbers import decode_number
from harness.base.records import encode, parse, read_json, write_json
from harness.cases.case import Case, parse_case
from harness.cases.runs_of_a_case import required_runs, role
from harness.comparison.measurement import Comparison, Tensors
from harness.evidence.bundle_files import (
    CASE,
    FINDINGS,
    INPUTS,
    MANIFEST,
    PAGE,
    RECORD,
    RUN,
    check_files,
    check_page,
    covered,
    seal,
)
from harness.evidence.collected import Drawn, check_stated, in_role, required_of
from harness.evidence.collected_parts import PartsOfCase
from harness.evidence.collected_run import CollectedRun, check_different, is_collected, read_collected
from harness.evidence.fed import check_fed
from harness.evidence.judge import Finding, judge, restated
from harness.evidence.kept import Kept
from harness.evidence.made_by import check_made_by
from harness.evidence.measuring import Recorded, measure_recorded, read_batches
from harness.evidence.provenance import (
    BASELINE,
    ENVIRONMENT,
    SOURCE,
    START,
    Baseline,
    Environment,
    Occasion,
    Source,
    Start,
    read_baseline_record,
    read_environment,
    read_occasion,
    read_source,
    read_start,
)
from harness.evidence.timing import Timing, read_timing
from harness.runs.files import OUTCOME, TIMING, TRACE
from harness.runs.inputs import BATCHES, WEIGHTS, Inputs, check_batches, digests_of_weights, read_tensors, read_weights
from harness.runs.trace import Run, RunOutcome, read_trace
from harness.runs.watched import split
from harness.standards import Standard, parse_standard


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The content of a bundle and what follows from it.

    `digest` is the digest of its manifest, `record` that of its record; both are empty before it is finished.
    `baseline` is the source of reference and oracle; None if they ran with the subject. `start` is what was drawn when
    the runs started; None for a bundle of a version that drew nothing. `timings` holds, by run, the time of each step;
    `collected` the runs that a trainer made by itself, with what they left.
    """

    path: Path
    digest: str
    record: str
    case: Case
    standards: tuple[Standard, ...]
    inputs: Inputs
    environment: Environment
    source: Source
    occasion: Occasion
    baseline: Baseline | None
    start: Start | None
    timings: Mapping[str, Timing]
    runs: Mapping[str, Run]
    comparison: Comparison
    findings: tuple[Finding, ...]
    collected: Mapping[str, CollectedRun] = field(default_factory=dict)

    @property
    def absent(self) -> tuple[str, ...]:
        """The required runs that were not made."""
        return tuple(name for name in required_of(self.case, self.runs, self.collected) if name not in self.runs)

    @property
    def not_collected(self) -> tuple[str, ...]:
        """The runs of its case that a bundle of collected runs does without."""
        return tuple(name for name in required_runs(self.case) if name not in {*self.runs, *self.absent})


def finish_bundle(directory: Path, kept: Kept | None = None) -> Bundle:
    """Judges the runs in a directory, writes findings and manifest, and reads everything back.

    Raises:
        EvidenceError: a file is not what was `kept` of it, or the runs are no evidence.
    """
    found = covered(directory) if kept is not None else {}
    if kept is not None:
        kept.check(found, but=(FINDINGS,))
    bundle = _compute(directory)
    write_json(directory / FINDINGS, bundle.findings)
    seal(directory, {name: digest for name, digest in found.items() if name != FINDINGS})
    return read_bundle(directory)


def read_bundle(directory: Path) -> Bundle:
    """Reads a bundle, checks every byte of its files and every finding against the traces.

    The signatures under `attestations/` are not checked here; `harness.attestation` does that.

    Raises:
        EvidenceError: no bundle, another format, a file extra, missing or changed, or a finding that does
            not follow from the traces.
    """
    check_files(directory)
    check_page(directory / PAGE)
    bundle = _compute(directory)
    if not _follow(read_json(directory / FINDINGS), bundle):
        raise EvidenceError(f"{directory / FINDINGS} does not follow from the traces of its bundle.")
    return bundle


def _follow(recorded: Any, bundle: Bundle) -> bool:
    """Whether findings are those of a bundle's traces, except for the last digits of a number: see `restated`."""
    try:
        values = [[decode_optional(judged["value"]) for judged in finding["judged"]] for finding in recorded]
        standards = {standard.name: standard for standard in bundle.standards}
        same = [
            restated(bundle.comparison, standards[finding.standard], finding, found)
            for finding, found in zip(bundle.findings, values, strict=True)
        ]
    except (KeyError, TypeError, ValueError):
        return False
    return bool(recorded == encode(same))


def decode_optional(value: Any) -> float | None:
    """Inverse of how a number, or none, is recorded."""
    return None if value is None else decode_number(value)


def read_run(directory: Path) -> Run:
    """One run from its directory: its outcome, and its trace if there is one.

    Raises:
        EvidenceError: the trace was edited, or the outcome cannot be read.
    """
    outcome = parse(RunOutcome, read_json(directory / OUTCOME), directory / OUTCOME)
    trace = directory / TRACE
    return Run(name=directory.name, outcome=outcome, trace=read_trace(trace) if trace.is_file() else None)


def unusable(run: Run) -> str | None:
    """Why a run cannot measure anything: it did not complete, or one of its numbers is not finite."""
    if run.outcome.status != "completed" or run.trace is None or not run.trace.complete:
        tail = f"\n{run.outcome.log_tail}" if run.outcome.log_tail else ""
        return f"{run.name} did not complete. {run.outcome.detail}.{tail}"
    bad = run.trace.first_non_finite
    return f"{run.name} is not finite at step {bad.step}." if bad else None


def compare_runs(directory: Path, case: Case, inputs: Inputs) -> tuple[dict[str, Run], Comparison]:
    """The runs of a case in a directory, and all of their measurements.

    Raises:
        EvidenceError: inputs, traces or tensors are not as recorded, or a run does not belong to this case.
    """
    runs, comparison, _ = _compare(directory, case, inputs)
    return runs, comparison


def _compare(directory: Path, case: Case, inputs: Inputs) -> tuple[dict[str, Run], Comparison, dict[str, CollectedRun]]:
    """The runs, their measurements, and what those runs left that a trainer made by itself.

    Raises:
        EvidenceError: inputs, traces or tensors are not as recorded, or a run does not belong to this case.
    """
    runs = {path.name: read_run(path) for path in _children(directory / "runs")}
    drawn = directory / "inputs"
    check_batches(drawn, inputs)
    kept = case.evidence == "tensors"
    digests, weights = digests_of_weights(drawn, inputs, kept=kept), read_weights(drawn / WEIGHTS) if kept else {}
    collected = {
        name: read_collected(directory / "runs" / name, run.trace)
        for name, run in runs.items()
        if run.trace is not None and is_collected(run.trace)
    }
    if collected:
        check_different(directory, collected)
        batches, of_case = Drawn(read_batches(drawn)), PartsOfCase(drawn, digests, weights)
        runs |= {
            name: in_role(runs[name], name, case, inputs, batches, of_case, left) for name, left in collected.items()
        }
    for run in runs.values():
        _check_role(run, case, directory / "runs" / run.name)
    if (directory / START).is_file():
        made_here = {name: run for name, run in runs.items() if name not in collected}
        check_fed(case, read_tensors(drawn / BATCHES), made_here, directory)
    _check_owners(directory / "tensors", runs)
    left = {name: parts for name, run in runs.items() if (parts := _left_tensors(directory, run, case)) is not None}
    recorded = Recorded(
        case=case,
        directory=drawn,
        inputs=inputs,
        digests=digests,
        weights=weights,
        runs=runs,
        left={name: tensors for name, (tensors, _) in left.items()},
        steps={name: steps for name, (_, steps) in left.items()},
        collected=collected,
    )
    try:
        return runs, measure_recorded(recorded), collected
    except ArithmeticError as error:  # numbers that no run gives, such as counts of 0
        raise EvidenceError(f"The numbers in {directory} cannot be compared: {error}.") from None


def _used_baseline(directory: Path, case: Case, runs: Mapping[str, Run]) -> Baseline | None:
    """The baseline that a bundle names, if any; every run except the subject's must be as recorded there."""
    if not (directory / BASELINE).exists():
        return None
    baseline = read_baseline_record(directory / BASELINE)
    if baseline.case_digest != case.digest():
        raise EvidenceError(f"{directory / BASELINE} was recorded for another case than that of its bundle.")
    for name in runs:
        of_run = role(name, case)
        if of_run is None or of_run[0] == "subject":
            continue
        paths = (f"runs/{name}/{TRACE}", f"runs/{name}/{OUTCOME}", f"tensors/{name}.safetensors")
        for path in paths:
            found = digest_file(directory / path) if (directory / path).is_file() else None
            if found != baseline.files.get(path):
                raise EvidenceError(f"{directory / path} is not what the baseline of its bundle recorded.")
    return baseline


def _compute(directory: Path) -> Bundle:
    """Everything that follows from a directory's case, standards, inputs and traces."""
    case = _read_case(directory / CASE)
    standards = tuple(_read_standard(directory / "standards", name) for name in case.standards)
    inputs = parse(Inputs, read_json(directory / INPUTS), directory / INPUTS)
    runs, comparison, collected = _compare(directory, case, inputs)
    source, baseline = read_source(directory / SOURCE), _used_baseline(directory, case, runs)
    _check_code(directory, runs, source, baseline, collected)
    check_made_by(directory, case, runs, source, collected)
    environment, occasion = read_environment(directory / ENVIRONMENT), read_occasion(directory / RUN)
    start = read_start(directory / START) if (directory / START).is_file() else None
    check_stated(directory, runs, collected, environment, start, occasion)
    findings = tuple(finding for standard in standards for finding in judge(comparison, standard))
    return Bundle(
        path=directory,
        digest=digest_file(directory / MANIFEST) if (directory / MANIFEST).is_file() else "",
        record=digest_file(directory / RECORD) if (directory / RECORD).is_file() else "",
        case=case,
        standards=standards,
        inputs=inputs,
        environment=environment,
        source=source,
        occasion=occasion,
        baseline=baseline,
        start=start,
        timings={name: read_timing(directory / "runs" / name / TIMING) for name in runs},
        runs=runs,
        comparison=comparison,
        findings=findings,
        collected=collected,
    )


def _read_case(path: Path) -> Case:
    try:
        return parse_case(read_json(path), str(path))
    except InputError as error:
        raise EvidenceError(f"The bundle's case cannot be read: {error}") from None


def _read_standard(directory: Path, name: str) -> Standard:
    if name != Path(name).name:
        raise EvidenceError(f"The bundle's case names the standard {name!r}, which is not a valid name.")
    path = directory / f"{name}.json"
    try:
        standard = parse_standard(read_json(path), str(path))
    except InputError as error:
        raise EvidenceError(f"The bundle's standard cannot be read: {error}") from None
    if standard.name != name:
        raise EvidenceError(f"{path} holds the standard {standard.name}.")
    return standard


def _check_role(run: Run, case: Case, directory: Path) -> None:
    """Rejects a run that the case does not have, and a trace of another run or for other steps."""
    of_run = role(run.name, case)
    if of_run is None:
        raise EvidenceError(f"{directory} is not a run of this case.")
    if run.trace is None:
        return
    side, arm = of_run
    steps = case.steps_of(side, arm)
    header = run.trace.header
    if (header.run, header.side, header.arm, header.steps) != (run.name, side, arm, steps):
        raise EvidenceError(
            f"{directory / TRACE} is the trace of {header.run} ({header.side}, {header.arm}, {header.steps} steps), "
            f"not of {run.name} ({side}, {arm}, {steps} steps)."
        )


def _check_code(
    directory: Path, runs: Mapping[str, Run], source: Source, baseline: Baseline | None, collected: Container[str]
) -> None:
    """Rejects a run that was carried out by other code than is recorded, and one that does not state its code though
    its version does. Runs of bundles without a start are older, and are not checked for that; nor are those of a
    baseline, or collected ones, whose trainer is no code of this program."""
    stating = (directory / START).is_file()
    for name, run in runs.items():
        if run.trace is None:
            continue
        of_baseline = baseline if run.trace.header.side != "subject" else None
        recorded = of_baseline.source if of_baseline is not None else source
        stated, runner = run.trace.header.provenance, run.trace.header.runner
        pairs = [
            (
                "this program",
                stated.get("code"),
                recorded.sha256,
                stating and of_baseline is None and name not in collected,
            )
        ]
        if (of_runner := (recorded.runners or {}).get(runner)) is not None:
            pairs.append((f"the runner {runner}", stated.get("runner_file"), of_runner, True))
        for what, found, wanted, required in pairs:
            if found is None and required:
                raise EvidenceError(
                    f"{directory / 'runs' / name} does not state the code of {what} that carried it out."
                )
            if found is not None and found != wanted:
                raise EvidenceError(
                    f"{directory / 'runs' / name} was carried out by code of {what} of the digest {str(found)[:12]}, "
                    f"and the code that is recorded has {wanted[:12]}. Its process imported other files, or they were "
                    "edited while it ran. Start again with another --out, from one checkout."
                )


def _children(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise EvidenceError(f"{directory.parent} is not a bundle: it has no {directory.name}/.")
    return sorted(path for path in directory.iterdir() if path.is_dir())


def _check_owners(directory: Path, runs: Mapping[str, Run]) -> None:
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.suffix != ".safetensors" or path.stem not in runs:
            raise EvidenceError(f"{path} belongs to no run of this bundle.")


def _left_tensors(directory: Path, run: Run, case: Case) -> tuple[Tensors, Tensors] | None:
    """The tensors of a run or their sketches, as the case states, and what it left of its steps, if they were kept; by
    the digests in its trace."""
    path = directory / "tensors" / f"{run.name}.safetensors"
    if not path.is_file() or run.trace is None or run.trace.footer is None:
        return None
    tensors, footer = read_tensors(path), run.trace.footer
    plain, steps = split(tensors)
    if case.evidence == "sketches":
        same = digest_tensors(plain) == footer.kept
    else:
        only_steps = footer.watched is not None and run.trace.header.side == "oracle" and not plain
        same = only_steps or digest_each(plain) == footer.parameters
    if not same or (digest_tensors(steps) if steps else None) != footer.watched:
        raise EvidenceError(f"{path}: the digests of its tensors differ from those in the trace of {run.name}.")
    return plain, steps
