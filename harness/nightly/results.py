"""What came out of a cell: its bundle read and judged, and the change since the night before with its cause."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.attestation import Trust
from harness.base.errors import CertifyError
from harness.cases.case import Case
from harness.certify.case_options import with_recorded_sources
from harness.certify.workspace import unfinished
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import MANIFEST
from harness.evidence.diff import diff_bundles
from harness.evidence.judge import Outcome
from harness.evidence.protection_of_runs import protection_of
from harness.levels.certificate import Certificate
from harness.levels.rule import certify
from harness.levels.submission import Submission, read_submission
from harness.levels.verdict_words import conclude
from harness.nightly import CellChange, CellResult, CellState, Night, compared
from harness.nightly.causes import CellCause, cause_of_break, cause_of_change
from harness.nightly.history import BUNDLE
from harness.nightly.matrix import Matrix

FAILED = (Outcome.FAIL, Outcome.ERROR)


def failing(night: Night, matrix: Matrix) -> list[CellResult]:
    """The cells that make a night fail, by the matrix's policy."""
    return [cell for cell in night.cells if fails(cell, matrix)]


def fails(cell: CellResult, matrix: Matrix) -> bool:
    """Whether a cell makes a night fail, by the matrix's policy."""
    return bool(set(_faults(cell)) & set(matrix.fail_on))


def _faults(cell: CellResult) -> Iterator[str]:
    if cell.change is CellChange.REGRESSION:
        yield "regression"
    if cell.below:
        yield "below"
    if cell.state is CellState.BROKEN:
        yield "broken"
    if cell.state is CellState.NOT_RUN and not cell.awaits_baseline:
        yield "not run"


def read_result(
    result: CellResult, directory: Path, place: Path, trust: Trust | None, of: Case | None = None
) -> CellResult:
    """The result of a cell that left a bundle in its directory, within the directory of the night. `of`: the case that
    it has to be of, where it comes from another machine."""
    try:
        submission = read_submission(directory / BUNDLE, trust, now := datetime.now(UTC))
    except CertifyError as error:
        return dataclasses.replace(result, state=CellState.BROKEN, reason=str(error))
    if of is not None and (other := _of_another(submission.bundle, of, result.device)):
        return dataclasses.replace(result, state=CellState.BROKEN, reason=f"its bundle is of another {other}")
    return _judged(result, submission, certify(submission, now), place)


def _of_another(bundle: Bundle, case: Case, device: str) -> str:
    """In what a bundle is not of a cell: its case or its device; empty if it is."""
    if with_recorded_sources(case, bundle.case).digest() != bundle.case.digest():
        return f"case, {bundle.case.name}"
    return "" if bundle.environment.device == device else f"device, {bundle.environment.device}"


def _judged(result: CellResult, submission: Submission, certificate: Certificate, place: Path) -> CellResult:
    bundle, conclusion = submission.bundle, conclude(submission.bundle, certificate)
    closest = conclusion.closest
    return dataclasses.replace(
        result,
        state=CellState.BROKEN if unfinished(bundle.path) else CellState.JUDGED,
        reason="; ".join(f"{name}: {text}" for name, text in conclusion.broken.items()) or conclusion.sentence,
        bundle=bundle.path.relative_to(place).as_posix(),
        digest=bundle.digest,
        level=certificate.level,
        worst=round(closest.used, 6) if closest and math.isfinite(closest.used) else None,
        worst_criterion=closest.criterion if closest else None,
        protection=protection_of(bundle) or "not recorded",
        failing=tuple(f"{outcome}: {text}" for outcome, text in conclusion.findings if outcome in FAILED),
    )


def compared_with_before(
    result: CellResult, place: Path, earlier: Sequence[tuple[Path, Night]], trust: Trust | None
) -> CellResult:
    """The result of a cell with its change since the last of the earlier nights that has a bundle of it, and with the
    cause of a failure."""
    return _with_cause(_with_change(result, place, earlier, trust))


def _with_change(
    result: CellResult, place: Path, earlier: Sequence[tuple[Path, Night]], trust: Trust | None
) -> CellResult:
    """The result of a cell with its change since the last night that has a bundle of it."""
    if result.bundle is None:
        return dataclasses.replace(result, change=CellChange.NOT_RUN, why=result.reason)
    for directory, night in reversed(earlier):
        before = next((one for one in night.cells if one.cell == result.cell and one.bundle), None)
        if before is None or before.bundle is None or not (directory / before.bundle / MANIFEST).is_file():
            continue
        now = datetime.now(UTC)
        try:
            pair = [read_submission(path, trust, now) for path in (directory / before.bundle, place / result.bundle)]
        except CertifyError as error:
            why = f"the bundle of {night.name} cannot be compared with: {error}"
            return dataclasses.replace(result, change=CellChange.NEW, why=why)
        first, second = (certify(one, now).level for one in pair)
        change, why = compared(pair[0].bundle, pair[1].bundle, result.required, (first, second))
        cause = cause_of_change(diff_bundles(*(one.bundle for one in pair))) if change is CellChange.REGRESSION else ""
        return dataclasses.replace(result, change=change, against=night.name, why=why, cause=cause)
    return dataclasses.replace(result, change=CellChange.NEW, why="no earlier night has a bundle of this cell")


def _with_cause(result: CellResult) -> CellResult:
    """The result with the cause of a run that broke, and of a level that is too low from the first night on."""
    if result.cause or not (result.state is CellState.BROKEN or result.below):
        return result
    cause = cause_of_break(result.reason) if result.state is CellState.BROKEN else CellCause.UNKNOWN
    return dataclasses.replace(result, cause=cause)
