"""A night that several machines make: each runs a part of the matrix, and their nights are gathered into one.

Which engine starts the parts does not matter: a matrix of jobs, an array, an indexed job. Part K of N has the cells K,
K + N, K + 2 N and so on of the matrix. A gathered result is read and judged again from its bundle; the cells of a part
that never came are *not run*.
"""

import dataclasses
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.attestation import Trust
from harness.base.errors import InputError
from harness.base.locks import locked
from harness.base.parts import Part, read_part
from harness.base.records import write_json
from harness.base.text import listed
from harness.certify.prerequisites import Prerequisite
from harness.evidence.bundle_files import MANIFEST
from harness.nightly import NIGHT_FORMAT, CellResult, CellState, Night
from harness.nightly.causes import CellCause
from harness.nightly.history import BUNDLE, CELLS, LOCK, NIGHT, moment, new_place, nights, prune
from harness.nightly.matrix import Cell, Matrix, case_of, name_of
from harness.nightly.results import compared_with_before, read_result

Listener = Callable[[CellResult], None]


def cells_of(part: Part, matrix: Matrix) -> tuple[Cell, ...]:
    """The cells of a part.

    Raises:
        InputError: it has none.
    """
    share = tuple(part.share(matrix.cells))
    if not share:
        raise InputError(
            f"--part {part} has no cell: the matrix {matrix.name} has {len(matrix.cells)}, so at most "
            f"{len(matrix.cells)} machines have one to run."
        )
    return share


def gather(
    matrix: Matrix,
    path: Path,
    history: Path,
    parts: Sequence[Path],
    trust: Trust | None,
    listener: Listener,
) -> Night:
    """Makes one night of the newest nights of parts, each from a history of its own.

    Args:
        matrix: all cells.
        path: the file of the matrix.
        history: where the gathered night is kept, next to those before.
        parts: the histories of the parts.
        trust: whose signatures count for levels.
        listener: gets every result.

    Raises:
        InputError: a directory holds no night of a part of this matrix, two are of one part, or they are of different
            code; or another night runs in the history.
    """
    came = _came(matrix, parts)
    count = next(iter(came)).of
    with locked(history / LOCK, user="nightly", option="--history"):
        place = new_place(history)
        earlier = [one for one in nights(history) if one[1].name < place.name and one[1].ended]
        fresh = _not_gathered_before(came, earlier)
        night = _gathered(matrix, place.name, fresh)
        for index, cell in enumerate(matrix.cells):
            part = Part(number=index % count + 1, of=count)
            result = _of_part(matrix, path, cell, part, fresh, place, trust)
            result = compared_with_before(result, place, earlier, trust)
            night = dataclasses.replace(night, cells=(*night.cells, result))
            write_json(place / NIGHT, night)
            listener(result)
        night = dataclasses.replace(night, ended=moment())
        write_json(place / NIGHT, night)
        prune(history, matrix.keep, matrix.keep_gib)
    return night


def _came(matrix: Matrix, directories: Sequence[Path]) -> Mapping[Part, tuple[Path, Night]]:
    """The newest night of each directory, by its part."""
    found = dict[Part, tuple[Path, Night]]()
    for directory in directories:
        there = nights(directory)
        if not there or there[-1][1].part is None:
            raise InputError(f"{directory} is no history of a part: 'certify nightly MATRIX --part K/N' writes one.")
        place, night = there[-1]
        part = read_part(str(night.part))
        if night.matrix != matrix.digest():
            raise InputError(f"{directory} holds part {part} of another matrix, or of this one before it was edited.")
        if part in found:
            raise InputError(f"{found[part][0].parents[1]} and {directory} are both part {part}.")
        found[part] = place, night
    if len({part.of for part in found}) > 1:
        raise InputError(f"The parts do not belong together: {listed([str(part) for part in found])}.")
    revisions = {str(night.revision) for _, night in found.values()}
    if len(revisions) > 1:
        raise InputError(f"The parts were run by different code: {listed(sorted(revisions))}.")
    return found


def _not_gathered_before(
    came: Mapping[Part, tuple[Path, Night]], earlier: Sequence[tuple[Path, Night]]
) -> Mapping[Part, tuple[Path, Night]]:
    """The parts of this night. One that the last gathered night has already did not come again, unless a part was
    missing there: then that night is gathered once more.

    Raises:
        InputError: that night has all of them.
    """
    last = next((night for _, night in reversed(earlier) if night.gathered is not None), None)
    before = last.gathered or {} if last is not None else {}
    if len(before) < next(iter(came)).of:
        return came
    fresh = {part: one for part, one in came.items() if before.get(str(part)) != _identity(one[1])}
    if last is not None and not fresh:
        raise InputError(f"These parts were gathered before, as the night {last.name}.")
    return fresh


def _identity(night: Night) -> str:
    """Which night of a part it is."""
    return f"{night.name} on {night.host}"


def _gathered(matrix: Matrix, name: str, parts: Mapping[Part, tuple[Path, Night]]) -> Night:
    """A night without results yet, on all machines that had a part."""
    came = [night for _, night in parts.values()]
    missing = dict[str, tuple[Prerequisite, ...]]()
    for night in came:
        for device, found in night.prerequisites.items():
            lacking = tuple(dataclasses.replace(one, name=f"{night.host}: {one.name}") for one in found if not one.met)
            missing[device] = missing.get(device, ()) + lacking
    return Night(
        format=NIGHT_FORMAT,
        name=name,
        matrix=matrix.digest(),
        revision=came[0].revision,
        started=min(night.started for night in came),
        ended=None,
        host=", ".join(sorted({night.host for night in came})),
        prerequisites=missing,
        cells=(),
        total=len(matrix.cells),
        gathered={str(part): _identity(night) for part, (_, night) in parts.items()},
    )


def _of_part(
    matrix: Matrix,
    path: Path,
    cell: Cell,
    part: Part,
    came: Mapping[Part, tuple[Path, Night]],
    place: Path,
    trust: Trust | None,
) -> CellResult:
    """The result of a cell from the night of its part: what its bundle gives, which is copied; without one, why."""
    case = case_of(cell, path.resolve().parent)
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
    source, night = came.get(part, (None, None))
    stated = next((one for one in night.cells if one.cell == result.cell), None) if night else None
    if source is None or stated is None:
        why = f"part {part} was not finished" if night else f"part {part} did not come"
        again = shlex.join(["certify", "nightly", str(path), "--part", str(part)])
        return dataclasses.replace(result, reason=f"{why}. Run it: {again}, and gather again", cause=CellCause.MACHINE)
    result = dataclasses.replace(result, seconds=stated.seconds)
    directory, left = place / CELLS / result.cell, source / CELLS / result.cell
    if left.is_dir():
        shutil.copytree(left, directory, symlinks=True)
    if (directory / BUNDLE / MANIFEST).is_file():
        return read_result(result, directory, place, trust, of=case)
    if stated.state is CellState.NOT_RUN:
        waits = stated.awaits_baseline and cell.baseline is not None
        return dataclasses.replace(result, reason=stated.reason, awaits_baseline=waits)
    reason = stated.reason if stated.state is CellState.BROKEN else f"part {part} came without its bundle"
    return dataclasses.replace(result, state=CellState.BROKEN, reason=reason)
