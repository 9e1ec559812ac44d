"""A collected run as its directory holds it: what `harness.collect` wrote, read strictly.

Takes the directory of one run and its trace; gives its rows, times and record. Rejects files that were changed or
truncated, links, numbers that no collector writes, and a run that holds what it states that it did not collect.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
from pydantic import Field

from harness.base.digest import canonical_json, digest_json
from harness.base.errors import EvidenceError
from harness.base.records import read_bytes, read_record
from harness.evidence.collected_parts import CollectedParts, read_parts
from harness.evidence.collected_sketches import read_gradient
from harness.evidence.provenance import Environment, check_device, in_utc
from harness.evidence.timing import Timing, read_timing
from harness.runs.collected import (
    ALIGNMENT,
    ARMS,
    BATCHES,
    CAN_BE_OMITTED,
    CODE,
    DEVICE,
    DIGITS,
    GRAD_NORM,
    OMITTED,
    PREFIX,
    PROVENANCE,
    RECORD,
    RECORD_FORMAT,
    REPORTING,
    ROWS,
    RUN,
    TRAINER,
    WEIGHTS,
    omitted,
    sealed,
)
from harness.runs.files import TIMING, TRACE
from harness.runs.trace import EXACT, RunOutcome, Trace

MOST_ALIKE = 0.5  # the share of steps that may take the same microseconds by chance
MOST_RANKS = 1 << 16
MOST_ROWS = 1 << 31  # of a global batch
LARGEST_ROWS = 1 << 30  # bytes of the digests of a rank; those of 5,000 steps of 1,024 rows have a fifth of it
ROW = re.compile(r"0|[1-9][0-9]{0,9}")  # the number of a row, in its one form
DIGEST = re.compile(rf"[0-9a-f]{{{DIGITS}}}")
OF_RANK = re.compile(r"(0|[1-9][0-9]{0,4})\.jsonl")
Tensors = Mapping[str, npt.NDArray[Any]]
Rows = Mapping[int, str]  # the digest of each row of a step, by its number in the global batch


@dataclass(frozen=True, kw_only=True)
class CollectedRecord:
    """When and where a collected run ran: a random number of its own, its start (ISO 8601, UTC), host and command, the
    steps after which it was resumed, and its environment. `seal` is the digest of the other fields."""

    format: str
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    started: str
    host: str
    command: tuple[str, ...]
    resumed_after: tuple[int, ...]
    environment: Environment
    seal: str


@dataclass(frozen=True, kw_only=True)
class CollectedRun:
    """A collected run as its directory holds it. By step: `rows` of all ranks together, their target `tokens`, and
    `own`, the target tokens of the rows that the reporting rank read. `ranks` is how many made it together, `gradient`
    what it left of its first gradient, if that was given; `parts` what its ranks state of their parts of the weights,
    if no rank stated all of them."""

    record: CollectedRecord
    ranks: int
    rows: Mapping[int, Rows]
    tokens: Mapping[int, int]
    own: Mapping[int, int]
    timing: Timing
    gradient: Tensors = field(default_factory=dict)
    parts: CollectedParts | None = None


def read_collected_record(path: Path) -> CollectedRecord:
    """When and where a collected run ran.

    Raises:
        EvidenceError: it is missing, its content is not valid, it was changed after it was sealed, or it states an
            unknown device, or an NPU and no chip.
    """
    record: CollectedRecord = read_record(CollectedRecord, path, RECORD_FORMAT)
    if record.seal != sealed(json.loads(read_bytes(path)))["seal"]:
        raise EvidenceError(f"{path} was changed since it was written.")
    if not in_utc(record.started):
        raise EvidenceError(f"{path} states no UTC time at which the run started, but {record.started!r}.")
    check_device(record.environment, path)
    return record


def is_collected(trace: Trace) -> bool:
    """Whether a trace, as its file states it, is that of a collected run."""
    return trace.header.run == RUN


def read_collected(directory: Path, trace: Trace) -> CollectedRun:
    """What a collected run left besides its trace.

    Raises:
        EvidenceError: a file is missing, is no plain file, or was changed after the run; or the run states what no
            collector does.
    """
    reporting = _check_header(directory, trace)
    _check_plain(directory)
    rows, tokens, own = _read_ranks(directory, trace, reporting)
    _check_omitted(directory, trace, rows)
    timing = read_timing(directory / TIMING)
    if not {step.step for step in trace.steps} <= {step for step, _ in timing.steps}:
        raise EvidenceError(
            f"{directory / TIMING} has not the time of each step: a copy of a run could not be noticed."
        )
    record = read_collected_record(directory / RECORD)
    if record.environment.device != trace.header.provenance[PROVENANCE][DEVICE]:
        raise EvidenceError(f"{directory / RECORD} states another device than the trace of its run. It was edited.")
    parts = read_parts(directory, trace)
    _check_moved(directory, trace, parts)
    return CollectedRun(
        record=record,
        ranks=trace.header.provenance["ranks"],
        rows=rows,
        tokens=tokens,
        own=own,
        timing=timing,
        gradient=read_gradient(directory, trace),
        parts=parts,
    )


def _check_moved(directory: Path, trace: Trace, parts: CollectedParts | None) -> None:
    """Rejects a run that states its initial weights as its final ones, though a rate above 0 changed them."""
    if not trace.complete or not any(step.learning_rate > 0 for step in trace.steps):
        return
    initial, final = trace.header.initial, trace.footer.parameters if trace.footer else {}
    same = bool(final) and initial == final
    if same or (parts is not None and not parts.moved):
        raise EvidenceError(
            f"{directory} states its initial weights as its final ones, and trained with a rate above 0. Give the "
            "collector the weights after the last step."
        )


def _check_plain(directory: Path) -> None:
    """A link, a pipe or a device in the place of a file is never opened."""
    files = [directory / name for name in (TRACE, TIMING, RECORD)]
    for path in [*files, directory / ROWS]:
        if path.is_symlink() or not (path.is_file() if path in files else path.is_dir()):
            what = "is missing" if not path.exists() and not path.is_symlink() else "is no plain file"
            raise EvidenceError(f"{path} {what}. Give the directory that the collector wrote.")


def _check_header(directory: Path, trace: Trace) -> int:
    """Checks what a trace states of its collection; the rank that reported."""
    header, how = trace.header, trace.header.provenance.get(PROVENANCE)
    named = TRAINER.fullmatch(header.runner.removeprefix(PREFIX)) and header.runner.startswith(PREFIX)
    if not named or not isinstance(how, Mapping) or set(how) != {CODE, DEVICE, OMITTED, REPORTING}:
        raise EvidenceError(f"{directory} calls its run {RUN!r}, and does not state how it was collected.")
    if header.arm not in ARMS or (header.side, header.case, header.batches) != ("subject", "", ""):
        raise EvidenceError(f"{directory} states a kind, a side, a case or batches that no collector states.")
    if header.weights != (digest_json(dict(header.initial)) if header.initial else ""):
        raise EvidenceError(f"{directory} states another digest of its initial weights than that of their list.")
    ranks, reporting = header.provenance.get("ranks"), how[REPORTING]
    if not (type(ranks) is int and type(reporting) is int and 0 <= reporting < ranks <= MOST_RANKS):
        raise EvidenceError(f"{directory} states {ranks!r} ranks, of which {reporting!r} reported.")
    return reporting


def _check_omitted(directory: Path, trace: Trace, rows: Mapping[int, Rows]) -> None:
    """Rejects a run that states that it did not collect what it holds: that would hide what is wrong in it. And one
    with the digest of a batch of which it has no row."""
    header, stated = trace.header, omitted(trace.header.provenance)
    listed = header.provenance[PROVENANCE][OMITTED]
    if not isinstance(listed, list | tuple) or stated != set(map(str, listed)):
        known = ", ".join(sorted(CAN_BE_OMITTED))
        raise EvidenceError(f"{directory} states that it did not collect {listed!r}. What can be missing: {known}.")
    held = {
        WEIGHTS: bool(header.initial),
        ALIGNMENT: bool(header.alignment),
        GRAD_NORM: any(not math.isnan(step.grad_norm) for step in trace.steps),
        BATCHES: any(step.batch for step in trace.steps) or any(rows.values()),
    }
    if found := sorted(what for what in stated if held[what]):
        raise EvidenceError(f"{directory} states that it did not collect {', '.join(found)}, and holds them.")
    if bare := [step.step for step in trace.steps if step.batch and not rows.get(step.step)]:
        raise EvidenceError(f"{directory} has the digest of a batch at step {bare[0]}, and of none of its rows.")


def _read_ranks(
    directory: Path, trace: Trace, reporting: int
) -> tuple[dict[int, dict[int, str]], dict[int, int], dict[int, int]]:
    """By step, the rows from the files of all ranks, the target tokens of all rows together, and of the reporting
    rank's."""
    ranks, finished = trace.header.provenance["ranks"], trace.footer is not None
    rows: dict[int, dict[int, str]] = {}
    tokens, own = dict[int, int](), dict[int, int]()
    for rank in range(ranks):
        path = directory / ROWS / f"{rank}.jsonl"
        if path.is_symlink() or not path.is_file():
            raise EvidenceError(f"{path} is missing: rank {rank} of {ranks} left no rows. Copy the files of all ranks.")
        last = 0
        for step, found, counted in _read_rank(path, finished=finished):
            held = rows.setdefault(step, {})
            if any(held.get(row, digest) != digest for row, digest in found.items()):
                raise EvidenceError(f"{path}: two ranks read different tokens as the same row of step {step}.")
            # ranks that share rows, such as those of one model-parallel group, count them once
            tokens[step] = tokens.get(step, 0) + (0 if set(found) <= set(held) else counted)
            held |= found
            last = step
            if rank == reporting:
                own[step] = counted
        if finished and last != len(trace.steps):
            raise EvidenceError(f"{path} ends at step {last}, and the trace of its run at step {len(trace.steps)}.")
    others = (one.name for one in (directory / ROWS).iterdir() if OF_RANK.fullmatch(one.name))
    if more := sorted(name for name in others if int(name.partition(".")[0]) >= ranks):
        raise EvidenceError(f"{directory / ROWS / more[0]} is of a rank that the run of {ranks} ranks does not have.")
    return rows, tokens, own


def _read_rank(path: Path, *, finished: bool) -> Iterator[tuple[int, dict[int, str], int]]:
    lines = read_bytes(path, LARGEST_ROWS).split(b"\n")
    if finished and lines[-1]:
        raise EvidenceError(f"{path} ends within a line. The file was truncated or edited.")
    lines.pop()
    parsed = [_parsed(line, path) for line in lines]
    if parsed and "lines" in parsed[-1]:
        covered = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
        if parsed.pop() != {"last_step": len(parsed), "lines": covered}:
            raise EvidenceError(f"{path} was changed after its run ended.")
    elif finished:
        raise EvidenceError(f"{path} has no end, and the trace of its run has one.")
    for expected, line in enumerate(parsed, 1):
        rows, counted = line.get("rows"), line.get("tokens")
        if set(line) != {"step", "rows", "tokens"} or type(line["step"]) is not int or line["step"] != expected:
            raise EvidenceError(f"{path}, line {expected}: expected the rows of step {expected}.")
        if type(counted) is not int or not 0 <= counted < EXACT:
            raise EvidenceError(f"{path}, line {expected}: expected a number of target tokens.")
        if not isinstance(rows, dict) or not all(map(_is_row, rows.items())):
            raise EvidenceError(f"{path}, line {expected}: expected the digest of each row by its number.")
        yield expected, {int(row): digest for row, digest in rows.items()}, counted


def _is_row(item: tuple[str, Any]) -> bool:
    row, digest = item
    return bool(ROW.fullmatch(row)) and int(row) < MOST_ROWS and type(digest) is str and bool(DIGEST.fullmatch(digest))


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
        same = canonical_json(value).encode() == line  # else a key may be there twice
    except (ValueError, RecursionError):
        value, same = None, False
    if not same or not isinstance(value, dict):
        raise EvidenceError(f"{path}: a line is not a JSON object in its one form. The file was truncated or edited.")
    return value


def outcome_of(trace: Trace, record: CollectedRecord) -> RunOutcome:
    """How a collected run ended, which follows from its trace. Nothing protected the answers from it."""
    steps, resumed = len(trace.steps), record.resumed_after
    taken = f"{steps} of {trace.header.steps} steps"
    if (bad := trace.first_non_finite) is not None:
        return RunOutcome(
            status="non_finite", last_step=steps, detail=f"not finite at step {bad.step}", resumed_after=resumed
        )
    if not trace.complete:
        detail = f"{taken} were collected, and the collector was not ended"
        return RunOutcome(status="interrupted", last_step=steps, detail=detail, resumed_after=resumed)
    return RunOutcome(status="completed", last_step=steps, detail=taken, resumed_after=resumed)


def check_different(directory: Path, collected: Mapping[str, CollectedRun]) -> None:
    """Rejects one collected run in two roles, and a copy of it.

    Raises:
        EvidenceError: two of the runs have the same random number, or took the same microseconds in most steps.
    """
    names = sorted(collected)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            a, b = collected[one], collected[other]
            if a.record.nonce == b.record.nonce or _alike(a.timing, b.timing) or _share_parts(a, b):
                raise EvidenceError(
                    f"{one} and {other} in {directory} are the same collected run. A run says nothing next to itself: "
                    "collect a second one."
                )


def _share_parts(a: CollectedRun, b: CollectedRun) -> bool:
    """Whether the parts of a rank of one run are also those of a rank of the other."""
    return a.parts is not None and b.parts is not None and bool(a.parts.nonces & b.parts.nonces)


def _alike(a: Timing, b: Timing) -> bool:
    shared = set(a.steps) & set(b.steps)
    return len(shared) > MOST_ALIKE * min(len(set(a.steps)), len(set(b.steps))) if shared else False
