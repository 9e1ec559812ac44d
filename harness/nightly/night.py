"""One night: prerequisites, then every cell in a process of its own with a time limit, then the summary.

A cell that fails, hangs or cannot run is a result, and the night continues. Each result is written at once, so a killed
night is resumed where it stopped.
"""

import dataclasses
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.attestation import Trust
from harness.base.errors import CertifyError
from harness.base.locks import locked
from harness.base.parts import Part
from harness.base.records import write_json
from harness.cases.case import Case
from harness.certify import environment
from harness.certify.baseline import record_command
from harness.certify.jobs import ALL_SIDES, RECORDED_SIDES, Options
from harness.certify.prerequisites import Needs, needs, prerequisites, together
from harness.certify.uv_environments import interpreter_of
from harness.nightly import NIGHT_FORMAT, CellResult, CellState, Night
from harness.nightly.causes import CellCause
from harness.nightly.cell_process import LOG, carry_out, command_of, left_no_bundle, of_both, pythons_of
from harness.nightly.history import CELLS, LOCK, NIGHT, moment, new_place, nights, prune
from harness.nightly.matrix import Cell, Matrix, case_of, name_of
from harness.nightly.parts import cells_of
from harness.nightly.results import compared_with_before, read_result

Listener = Callable[[CellResult], None]


def run_night(
    matrix: Matrix, base: Path, history: Path, trust: Trust | None, listener: Listener, part: Part | None = None
) -> Night:
    """Runs all cells of a matrix, or of a part of it, that are not finished yet; compares each with the night before.

    Args:
        matrix: the cells.
        base: the directory that the cells' paths are relative to.
        history: where nights are kept; a second night there is an error while this one runs.
        trust: whose signatures count for levels.
        listener: gets every result, also those from before a kill.
        part: which share of the cells; None is all.

    Raises:
        InputError: a cell's case cannot be used, the part has no cell, or another night runs in the history.
        KeyboardInterrupt: the night was interrupted; the same command resumes it.
    """
    cells = matrix.cells if part is None else cells_of(part, matrix)
    cases = [case_of(cell, base) for cell in cells]
    with locked(history / LOCK, user="nightly", option="--history"):
        night, place = _started_night(matrix, cells, cases, history, base, part)
        earlier = [one for one in nights(history) if one[1].name < night.name and one[1].ended]
        for cell, case in zip(cells, cases, strict=True):
            name = name_of(cell)
            done = next((one for one in night.cells if one.cell == name), None)
            if done is None:
                done = _run_cell(matrix, cell, case, night, place, base, trust)
                done = compared_with_before(done, place, earlier, trust)
                night = dataclasses.replace(night, cells=(*night.cells, done))
                write_json(place / NIGHT, night)
            listener(done)
        night = dataclasses.replace(night, ended=moment())
        write_json(place / NIGHT, night)
        prune(history, matrix.keep, matrix.keep_gib)
    return night


def _started_night(
    matrix: Matrix, cells: Sequence[Cell], cases: Sequence[Case], history: Path, base: Path, part: Part | None
) -> tuple[Night, Path]:
    """The unfinished night with this matrix, part and code, or a new one."""
    source = environment.source()
    # If files differ from the revision, or there is none, only their digest identifies the code.
    committed = source.revision is not None and not source.dirty
    revision = source.state if committed else f"{source.state} ({source.sha256[:12]})"
    for place, night in nights(history)[-1:]:
        same = (night.matrix, night.revision, night.part) == (matrix.digest(), revision, str(part) if part else None)
        if night.ended is None and same:
            return night, place
    needed = defaultdict[str, list[Needs]](list)
    for cell, case in zip(cells, cases, strict=True):
        options = _options(cell, history, base)
        found = needs(case, options, options.sides)
        # What an environment has that uv makes later is checked by the run itself.
        needed[cell.device].append(dataclasses.replace(found, packages={}) if cell.versions else found)
    place = new_place(history)
    night = Night(
        format=NIGHT_FORMAT,
        name=place.name,
        matrix=matrix.digest(),
        revision=revision,
        started=moment(),
        ended=None,
        host=socket.gethostname(),
        prerequisites={device: prerequisites(together(every)) for device, every in needed.items()},
        cells=(),
        total=len(cells),
        part=str(part) if part else None,
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
        **pythons_of(cell, base),
    )


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
        pythons = pythons_of(cell, base) if not cell.versions else of_both(interpreter_of(cell.versions))
    except CertifyError as without:
        return dataclasses.replace(result, reason=" ".join(str(without).split()))
    begun, limit = time.monotonic(), cell.limit or matrix.limit
    code = carry_out(command_of(cell, str(described), directory, base, pythons), directory / LOG, limit)
    result = dataclasses.replace(result, seconds=round(time.monotonic() - begun, 1))
    if reason := left_no_bundle(code, directory, limit):
        return dataclasses.replace(result, state=CellState.BROKEN, reason=reason)
    return read_result(result, directory, place, trust)


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
