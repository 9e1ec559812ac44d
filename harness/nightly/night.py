"""One night: prerequisites, then every cell in a process of its own with a time limit, then the summary.

A cell that fails, hangs or cannot run is a result, and the night continues. Each result is written at once, so a killed
night is resumed where it stopped.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from harness.attestation import Trust
from harness.base.errors import CertifyError
from harness.base.locks import locked
from harness.base.records import read_record, write_json
from harness.cases.case import Case
from harness.certify import environment
from harness.certify.baseline import record_command
from harness.certify.jobs import ALL_SIDES, RECORDED_SIDES, Options
from harness.certify.prerequisites import Needs, needs, prerequisites, together
from harness.certify.uv_environments import interpreter_of
from harness.certify.workspace import unfinished
from harness.evidence.bundle_files import INPUTS, MANIFEST
from harness.evidence.diff import diff_bundles
from harness.evidence.judge import Outcome
from harness.evidence.protection_of_runs import protection_of
from harness.levels.certificate import Certificate
from harness.levels.rule import certify
from harness.levels.submission import Submission, read_submission
from harness.levels.verdict_words import conclude
from harness.nightly import NIGHT_FORMAT, CellChange, CellResult, CellState, Night, compared
from harness.nightly.causes import CellCause, cause_of_break, cause_of_change
from harness.nightly.matrix import Cell, Matrix, case_of, name_of
from harness.runners.processes import end_with_parent, log_error, own_code

NIGHTS, NIGHT, CELLS, BUNDLE, LOG, LOCK = "nights", "night.json", "cells", "bundle", "log.txt", ".lock"
INTERRUPT_SECONDS = 30.0
FAILED = (Outcome.FAIL, Outcome.ERROR)

Listener = Callable[[CellResult], None]


def run_night(matrix: Matrix, base: Path, history: Path, trust: Trust | None, listener: Listener) -> Night:
    """Runs all cells of a matrix that are not finished yet, and compares each with the night before.

    Args:
        matrix: the cells.
        base: the directory that the cells' paths are relative to.
        history: where nights are kept; a second night there is an error while this one runs.
        trust: whose signatures count for levels.
        listener: gets every result, also those from before a kill.

    Raises:
        InputError: a cell's case cannot be used, or another night runs in the history.
        KeyboardInterrupt: the night was interrupted; the same command resumes it.
    """
    cases = [case_of(cell, base) for cell in matrix.cells]
    with locked(history / LOCK, user="nightly", option="--history"):
        night, place = _started_night(matrix, cases, history, base)
        earlier = [one for one in nights(history) if one[1].name < night.name and one[1].ended]
        for cell, case in zip(matrix.cells, cases, strict=True):
            name = name_of(cell)
            done = next((one for one in night.cells if one.cell == name), None)
            if done is None:
                done = _run_cell(matrix, cell, case, night, place, base, trust)
                done = _with_cause(_with_change(done, place, earlier, trust))
                night = dataclasses.replace(night, cells=(*night.cells, done))
                write_json(place / NIGHT, night)
            listener(done)
        night = dataclasses.replace(night, ended=_now())
        write_json(place / NIGHT, night)
        _prune(history, matrix.keep)
    return night


def nights(history: Path) -> list[tuple[Path, Night]]:
    """The nights of a history, the oldest first.

    Raises:
        EvidenceError: the record of one was edited.
    """
    found = sorted(path.parent for path in (history / NIGHTS).glob(f"*/{NIGHT}"))
    return [(path, read_record(Night, path / NIGHT, NIGHT_FORMAT)) for path in found]


def bundles(history: Path) -> list[Path]:
    """Every bundle that a history still has."""
    return sorted(path.parent for path in (history / NIGHTS).glob(f"*/{CELLS}/*/{BUNDLE}/{MANIFEST}"))


def failing(night: Night, matrix: Matrix) -> list[CellResult]:
    """The cells that make a night fail, by the matrix's policy."""
    return [cell for cell in night.cells if set(_faults(cell)) & set(matrix.fail_on)]


def _faults(cell: CellResult) -> Iterator[str]:
    if cell.change is CellChange.REGRESSION:
        yield "regression"
    if cell.below:
        yield "below"
    if cell.state is CellState.BROKEN:
        yield "broken"
    if cell.state is CellState.NOT_RUN and not cell.awaits_baseline:
        yield "not run"


def _started_night(matrix: Matrix, cases: Sequence[Case], history: Path, base: Path) -> tuple[Night, Path]:
    """The unfinished night with this matrix and this code, or a new one."""
    source = environment.source()
    # If files differ from the revision, or there is none, only their digest identifies the code.
    committed = source.revision is not None and not source.dirty
    revision = source.state if committed else f"{source.state} ({source.sha256[:12]})"
    for place, night in nights(history)[-1:]:
        if night.ended is None and (night.matrix, night.revision) == (matrix.digest(), revision):
            return night, place
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}"
    needed = defaultdict[str, list[Needs]](list)
    for cell, case in zip(matrix.cells, cases, strict=True):
        options = _options(cell, history, base)
        found = needs(case, options, options.sides)
        # What an environment has that uv makes later is checked by the run itself.
        needed[cell.device].append(dataclasses.replace(found, packages={}) if cell.versions else found)
    place = history / NIGHTS / name
    night = Night(
        format=NIGHT_FORMAT,
        name=name,
        matrix=matrix.digest(),
        revision=revision,
        started=_now(),
        ended=None,
        host=socket.gethostname(),
        prerequisites={device: prerequisites(together(every)) for device, every in needed.items()},
        cells=(),
        total=len(matrix.cells),
    )
    write_json(place / NIGHT, night)
    return night, place


def _options(cell: Cell, history: Path, base: Path) -> Options:
    runners: dict[str, Any] = {side: named for side in ALL_SIDES if (named := getattr(cell, side))}
    baselines = Path(cell.baseline) if cell.baseline else None
    return Options(
        out=history,
        command=(),
        device=cell.device,
        baselines=baselines,
        protection=cell.protection,
        **runners,
        **_pythons(cell, base),
    )


def _pythons(cell: Cell, base: Path) -> dict[str, Any]:
    """The interpreters that a cell names, as options of a run."""
    named = {"subject_python": cell.subject_python, "reference_python": cell.reference_python}
    return {option: Path(os.path.normpath(base / path)) for option, path in named.items() if path}


def _made(python: Path) -> dict[str, Path]:
    return {"subject_python": python, "reference_python": python}


def _run_cell(
    matrix: Matrix, cell: Cell, case: Case, night: Night, place: Path, base: Path, trust: Trust | None
) -> CellResult:
    """Runs a cell, unless its device is not ready or its baseline was not recorded."""
    directory = place / CELLS / name_of(cell)
    result = CellResult(
        cell=name_of(cell),
        case=case.name,
        device=cell.device,
        layout=str(case.parallel),
        required=cell.level or matrix.level,
        state=CellState.NOT_RUN,
        reason="",
        seconds=0.0,
    )
    missing = [one for one in night.prerequisites[cell.device] if not one.met]
    if missing:
        reason = "; ".join(f"{one.name}: {one.found} ({one.remedy})" for one in missing)
        return dataclasses.replace(result, reason=reason, cause=CellCause.MACHINE)
    directory.mkdir(parents=True, exist_ok=True)
    described = directory / "case.yaml"
    described.write_text(yaml.safe_dump(case.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    if lacking := _no_baseline(cell, case, described, base):
        return dataclasses.replace(result, reason=lacking, awaits_baseline=True)
    try:
        pythons = _pythons(cell, base) if not cell.versions else _made(interpreter_of(cell.versions))
    except CertifyError as without:
        return dataclasses.replace(result, reason=" ".join(str(without).split()))
    begun = time.monotonic()
    code = _run(_command(cell, described, directory, base, pythons), directory / LOG, cell.limit or matrix.limit)
    result = dataclasses.replace(result, seconds=round(time.monotonic() - begun, 1))
    if code is None:
        limit = f"{(cell.limit or matrix.limit) / 60:g} min"
        return dataclasses.replace(
            result, state=CellState.BROKEN, reason=f"not finished within its limit of {limit}; stopped"
        )
    if code < 0:
        reason = f"its process was killed by {signal.Signals(-code).name}"
        return dataclasses.replace(result, state=CellState.BROKEN, reason=reason)
    if not (directory / BUNDLE / MANIFEST).is_file():
        error = log_error(directory / LOG).strip().splitlines()
        reason = error[-1] if error else f"exit code {code}, without a message"
        return dataclasses.replace(result, state=CellState.BROKEN, reason=reason)
    try:
        submission = read_submission(directory / BUNDLE, trust, now := datetime.now(UTC))
    except CertifyError as error:
        return dataclasses.replace(result, state=CellState.BROKEN, reason=str(error))
    return _judged(result, submission, certify(submission, now), place)


def _no_baseline(cell: Cell, case: Case, described: Path, base: Path) -> str | None:
    """Why a cell cannot be judged by its baseline, where that was never recorded, with the command that records it."""
    if cell.baseline is None:
        return None
    directory = Path(os.path.normpath(base / cell.baseline))
    if os.path.lexists(directory / case.name):
        return None
    own = cell.case == case.name and not cell.layout  # else only its file says what it is
    runners = [word for side in RECORDED_SIDES if (named := getattr(cell, side)) for word in (f"--{side}", named)]
    command = record_command(
        case.name, directory, replace=False, file=None if own else described.absolute(), more=runners
    )
    return f"there is no baseline {directory / case.name}. Where the reference can run, record it: {command}"


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


def _command(cell: Cell, described: Path, directory: Path, base: Path, pythons: Mapping[str, Path]) -> list[str]:
    out = directory / BUNDLE
    words = [sys.executable, "-m", "harness.cli", "run", str(described), "--device", cell.device, "--out", str(out)]
    if (out / INPUTS).is_file() and not (out / MANIFEST).exists():
        words.append("--resume")
    elif out.exists():  # killed before there was anything to resume
        shutil.rmtree(out)
    if cell.baseline:
        words += ["--baseline", str(base / cell.baseline)]
    if cell.protection != "auto":
        words += ["--protection", cell.protection]
    for option, path in pythons.items():
        words += [f"--{option.replace('_', '-')}", str(path)]
    for side in ("subject", "reference", "oracle"):
        if runner := getattr(cell, side):
            words += [f"--{side}", runner]
    return words


def _run(command: Sequence[str], log: Path, limit: float) -> int | None:
    """Runs a command with its output in a file; returns its exit code, or None if it did not finish in time."""
    parent = os.getpid()
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **own_code()},
            preexec_fn=lambda: end_with_parent(parent),
        )  # fmt: skip
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Interrupts a run, so that it ends its own processes; kills it if it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _prune(history: Path, keep: int) -> None:
    """Deletes the bundles of old nights; their results stay."""
    for place, _ in nights(history)[:-keep]:
        shutil.rmtree(place / CELLS, ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
