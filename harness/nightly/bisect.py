"""The first bad commit between two nights: a cell runs at revision after revision, each judged as a night judges it.

Both ends run first: where the revision of the good night is bad now, or that of the bad night good, something else
than the code changed. A result is written when its revision has run, so a bisection that was killed continues with
those that are left. A revision that cannot run the cell is skipped.
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.attestation import Trust
from harness.base.digest import digest_json
from harness.base.errors import InputError, MissingPrerequisite
from harness.base.locks import locked
from harness.base.near_names import did_you_mean
from harness.base.records import read_record, write_json
from harness.certify.uv_environments import interpreter_of
from harness.nightly import CellResult, CellState, Night
from harness.nightly.causes import CellCause, cause_of_break
from harness.nightly.cell_process import LOG, carry_out, command_of, left_no_bundle, of_both, pythons_of
from harness.nightly.history import LOCK, nights
from harness.nightly.matrix import Cell, Matrix, case_of, name_of
from harness.nightly.results import compared_with_before, fails, read_result
from harness.nightly.revisions import Bisection, Commit, Verdict

FORMAT = "certify-bisect/1"
IT_IS_GOOD = "the cell is good at {} now, which was bad in its night: the code is not what changed"
IT_IS_BAD = "the cell is bad at {} now, which was good in its night: something else than the code changed"
TREE, RESULT = "tree", "result.json"
CANNOT_RUN_HERE = " cannot run here:\n"  # how a run that does not begin lists what is missing
# What says nothing about the code, unless it is what the bad night broke by.
OF_THE_MACHINE = (CellCause.DRIVER, CellCause.BUSY, CellCause.MEMORY, CellCause.PORT)
CANNOT_RUN = 2  # exit code of bad input and of a missing prerequisite
REVISION = re.compile(r"([0-9a-f]{7,64})(, with uncommitted changes)?.*")


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a cell gave at a revision; `detail` states why."""

    format: str
    revision: str
    subject: str
    verdict: Verdict
    detail: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Ends:
    """A cell that fails, with the last night in which it was good and the night in which it fails, and both
    revisions."""

    cell: Cell
    good: tuple[Path, Night]
    bad: tuple[Path, Night]
    good_revision: str
    bad_revision: str

    def result(self, night: Night) -> CellResult:
        """What the cell gave in a night."""
        return next(one for one in night.cells if one.cell == name_of(self.cell))


@dataclass(frozen=True, kw_only=True)
class Found:
    """The end of a bisection. `commits` is the first bad one, or all that it can be where revisions were skipped; empty
    where the code is not what changed, and `why` states it."""

    commits: tuple[Commit, ...]
    why: str
    tried: tuple[Tried, ...]


Listener = Callable[[Tried], None]


def ends_of(matrix: Matrix, history: Path, cell: str | None, good: str | None = None, bad: str | None = None) -> Ends:
    """The cell and the two nights that a bisection is about: by default the only cell that fails in the newest night
    that has one, and the last night before in which it did not fail.

    Args:
        matrix: the cells.
        history: the nights.
        cell: the name of the cell.
        good, bad: revisions in place of those of the two nights.

    Raises:
        InputError: there is no such cell, or there are no such nights; or a night's code is of no commit.
    """
    every = [one for one in nights(history) if one[1].ended and one[1].matrix == matrix.digest()]
    if not every:
        raise InputError(f"{history} holds no finished night of the matrix {matrix.name}.")
    named = _named(matrix, cell, every)
    made = [(place, night, found) for place, night in every if (found := _of(night, named)) is not None]
    failed = [place for place, _, found in made if fails(found, matrix) and found.state is not CellState.NOT_RUN]
    if not failed:
        raise InputError(f"{name_of(named)} fails in no night of {history}: there is nothing to bisect.")
    at = next(number for number, one in enumerate(made) if one[0] == failed[-1])
    before = [one for one in made[:at] if one[2].state is CellState.JUDGED and not fails(one[2], matrix)]
    if not before:
        raise InputError(f"{name_of(named)} was good in no night of {history} before {made[at][1].name}.")
    (bad_place, bad_night, _), (good_place, good_night, _) = made[at], before[-1]
    return Ends(
        cell=named,
        good=(good_place, good_night),
        bad=(bad_place, bad_night),
        good_revision=good or _revision(good_night, "--good"),
        bad_revision=bad or _revision(bad_night, "--bad"),
    )


def _named(matrix: Matrix, cell: str | None, every: list[tuple[Path, Night]]) -> Cell:
    known = {name_of(one): one for one in matrix.cells}
    if cell is not None:
        if cell not in known:
            raise InputError(f"The matrix {matrix.name} has no cell {cell!r}.{did_you_mean(cell, tuple(known))}")
        return known[cell]
    failing = [one.cell for one in every[-1][1].cells if fails(one, matrix) and one.state is not CellState.NOT_RUN]
    if len(failing) != 1:
        which = f"these fail: {', '.join(failing)}" if failing else "none fails"
        raise InputError(f"Name the cell: in the newest night, {every[-1][1].name}, {which}.")
    return known[failing[0]]


def _of(night: Night, cell: Cell) -> CellResult | None:
    return next((one for one in night.cells if one.cell == name_of(cell)), None)


def _revision(night: Night, option: str) -> str:
    found = REVISION.fullmatch(night.revision or "")
    if found is None or found[2]:
        raise InputError(
            f"The night {night.name} ran code that is no commit: {night.revision}. Give a revision: {option} REVISION."
        )
    return found[1]


def bisect(
    matrix: Matrix, path: Path, repository: Path, work: Path, ends: Ends, trust: Trust | None, listener: Listener
) -> Found:
    """Runs the cell at the revisions between both ends until the first bad commit is known.

    Args:
        matrix: all cells.
        path: the file of the matrix.
        repository: the checkout whose revisions are bisected; nothing in it changes.
        work: where the worktree, the bundles and the results are, also those of an earlier attempt.
        ends: see `ends_of`.
        trust: whose signatures count for levels.
        listener: gets every result, also earlier ones.

    Raises:
        InputError: a revision is not one of the repository, or another bisection runs in the directory.
        MissingPrerequisite: the machine cannot run the cell now, whatever the code.
        KeyboardInterrupt: it was interrupted; the same command resumes it.
    """
    work = work.absolute()
    with locked(work / LOCK, user="bisection", option="--work"):
        begun = Bisection(repository, work / TREE, ends.good_revision, ends.bad_revision)
        with begun as bisection:
            trial = _Trial(matrix, path, repository, work, ends, trust, listener)
            for end, expected, why in ((bisection.bad, "bad", IT_IS_GOOD), (bisection.good, "good", IT_IS_BAD)):
                bisection.checkout(end)
                if (found := trial(end, bisection.place)).verdict != expected:
                    why = why if found.verdict != "skip" else f"it cannot run at {end} now: {found.detail}"
                    return Found(commits=(), why=why.format(end), tried=tuple(trial.tried))
            bisection.start()
            while (first := bisection.found()) is None:
                bisection.judge(trial(bisection.now(), bisection.place).verdict)
    return Found(commits=first, why="", tried=tuple(trial.tried))


class _Trial:
    """Runs the cell with the code of a worktree, or reads what it gave there before."""

    def __init__(
        self,
        matrix: Matrix,
        path: Path,
        repository: Path,
        work: Path,
        ends: Ends,
        trust: Trust | None,
        listener: Listener,
    ) -> None:
        self._matrix, self._base, self._repository = matrix, path.resolve().parent, repository.resolve()
        self._work, self._ends, self._trust, self._listener = work, ends, trust, listener
        self.tried: list[Tried] = []

    def __call__(self, commit: Commit, tree: Path) -> Tried:
        directory = self._directory(commit)
        if (directory / RESULT).is_file():
            found: Tried = read_record(Tried, directory / RESULT, FORMAT)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            found = self._run(commit, directory, tree)
            write_json(directory / RESULT, found)
        self.tried.append(found)
        self._listener(found)
        return found

    def _directory(self, commit: Commit) -> Path:
        """Where a revision leaves what it gave: with another cell or good night it is another place."""
        about = digest_json([self._matrix.digest(), name_of(self._ends.cell), self._ends.good[1].name])
        return self._work / about[:12] / commit.revision

    def _run(self, commit: Commit, directory: Path, tree: Path) -> Tried:
        cell, began = self._ends.cell, time.monotonic()
        limit = cell.limit or self._matrix.limit
        case, base = self._case(directory, tree), self._within(self._base, tree)
        pythons = of_both(interpreter_of(cell.versions)) if cell.versions else pythons_of(cell, base)
        command = command_of(cell, case, directory, base, pythons)
        (directory / LOG).unlink(missing_ok=True)  # of an attempt before
        code = carry_out(command, directory / LOG, limit, code_of(tree))
        if code == CANNOT_RUN and (lacking := _machine_lacks(directory / LOG)):
            raise MissingPrerequisite(_not_the_code(commit, lacking))
        verdict, detail = self._judged(code, left_no_bundle(code, directory, limit), directory)
        cause = cause_of_break(detail) if verdict != "good" else CellCause.UNKNOWN
        if cause in OF_THE_MACHINE and cause != self._ends.result(self._ends.bad[1]).cause:
            raise MissingPrerequisite(_not_the_code(commit, f"{cause}: {detail}"))
        return Tried(
            format=FORMAT,
            revision=commit.revision,
            subject=commit.subject,
            verdict=verdict,
            detail=detail,
            seconds=round(time.monotonic() - began, 1),
        )

    def _case(self, directory: Path, tree: Path) -> str:
        """The case as a night at that revision has it: its own, unless the matrix gives the cell another layout."""
        cell = self._ends.cell
        file = self._within(self._base, tree) / cell.case
        if cell.layout is None:
            return str(file) if file.is_file() else cell.case
        described = directory / "case.yaml"
        case = case_of(cell, self._base)
        described.write_text(yaml.safe_dump(case.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        return str(described)

    def _within(self, path: Path, tree: Path) -> Path:
        """A directory of the repository in the worktree; another one as it is."""
        inside = path.is_relative_to(self._repository)
        return tree / path.relative_to(self._repository) if inside else path

    def _judged(self, code: int | None, reason: str, directory: Path) -> tuple[Verdict, str]:
        """What a night would state. Where the cell was judged in the bad night, a run that breaks has another fault,
        and is skipped."""
        bad = self._ends.result(self._ends.bad[1])
        if reason and code == CANNOT_RUN:
            return "skip", reason
        if reason:
            return "bad" if bad.state is CellState.BROKEN else "skip", reason
        empty = dataclasses.replace(
            bad, state=CellState.NOT_RUN, bundle=None, digest=None, level=None, worst=None, worst_criterion=None,
            failing=(), against=None, why="", cause="",
        )  # fmt: skip
        result = read_result(empty, directory, directory, self._trust)
        if result.bundle is None:  # this code cannot read it
            return "skip", result.reason
        result = compared_with_before(result, directory, [self._ends.good], self._trust)
        if result.state is CellState.BROKEN and bad.state is not CellState.BROKEN:
            return "skip", result.reason
        return "bad" if fails(result, self._matrix) else "good", f"{result.level or result.state}: {result.reason}"


def _machine_lacks(log: Path) -> str:
    """What a machine lacks for a run that did not begin there, by its log; empty if only packages are missing, which a
    revision may need that another does not."""
    _, found, listed = log.read_text(encoding="utf-8", errors="replace").rpartition(CANNOT_RUN_HERE)
    lines = [line.strip() for line in listed.splitlines() if line.startswith("  ")] if found else []
    return "; ".join(line for line in lines if not line.startswith("package "))


def _not_the_code(commit: Commit, why: str) -> str:
    return (
        f"{commit} could not be tried, because of this machine and not of the code: {why}. Finished revisions are "
        "kept: repeat the command when the machine is ready."
    )


def code_of(tree: Path) -> Mapping[str, str]:
    """The variables by which a process of Python imports the code of a worktree."""
    there = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(tree), *there]))}
