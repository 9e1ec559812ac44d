"""Collected runs in a bundle: which ones they are, in which role, and what they left out.

Takes what `harness.collect` wrote. Gives each run its role, compares the rows that it read with those that were drawn,
and turns what was not collected into a measurement without values, which is INCONCLUSIVE. Rejects a trace that does not
fit its rows, and one run in two roles.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
from pydantic import Field

from harness.base.digest import digest_json, digest_tensors
from harness.base.errors import EvidenceError
from harness.base.records import read_bytes, read_record
from harness.cases.case import Case
from harness.cases.runs_of_a_case import REFERENCE, SUBJECT, required_runs, role, roles_of
from harness.comparison.catalogue import PAIRS
from harness.comparison.measurement import Comparison, Measurement
from harness.evidence.provenance import Environment, in_utc
from harness.evidence.timing import Timing, read_timing
from harness.runs.collected import (
    ALIGNMENT,
    BATCHES,
    FINAL,
    GRAD_NORM,
    PREFIX,
    PROVENANCE,
    RECORD,
    RECORD_FORMAT,
    REPORTING,
    ROWS,
    RUN,
    TOKENS,
    WEIGHTS,
    omitted,
    row_digest,
)
from harness.runs.files import TIMING
from harness.runs.inputs import Inputs
from harness.runs.trace import Run, Side, Step, Trace, TraceHeader

NOT_RUN, NOT_COLLECTED = "not run", "not collected"
MOST_ALIKE = 0.5  # the share of steps that may take the same microseconds by chance
MOST_RANKS = 1 << 16
LARGEST_ROWS = 1 << 30  # bytes of the digests of a rank; those of 5,000 steps of 1,024 rows have a fifth of it
Rows = Mapping[int, str]  # the digest of each row of a step, by its number in the global batch


@dataclass(frozen=True, kw_only=True)
class CollectedRecord:
    """When and where a collected run ran: a random number of its own, its start (ISO 8601, UTC), host and command, the
    steps after which it was resumed, and its environment."""

    format: str
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    started: str
    host: str
    command: tuple[str, ...]
    resumed_after: tuple[int, ...]
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class CollectedRun:
    """A collected run as its directory holds it. By step: `rows` of all ranks together, their target `tokens`, and
    `own`, the target tokens of the rows that the reporting rank read."""

    record: CollectedRecord
    rows: Mapping[int, Rows]
    tokens: Mapping[int, int]
    own: Mapping[int, int]
    timing: Timing


def read_collected_record(path: Path) -> CollectedRecord:
    """When and where a collected run ran.

    Raises:
        EvidenceError: it is missing, or its content is not valid.
    """
    record: CollectedRecord = read_record(CollectedRecord, path, RECORD_FORMAT)
    if not in_utc(record.started):
        raise EvidenceError(f"{path} states no UTC time at which the run started, but {record.started!r}.")
    return record


def is_collected(trace: Trace) -> bool:
    """Whether a trace, as its file states it, is that of a collected run."""
    return trace.header.run == RUN


def read_collected(directory: Path, trace: Trace) -> CollectedRun:
    """What a collected run left besides its trace.

    Raises:
        EvidenceError: a file is missing, or was changed after the run.
    """
    header = trace.header
    if not header.runner.startswith(PREFIX) or PROVENANCE not in header.provenance:
        raise EvidenceError(f"{directory} calls its run {RUN!r}, and does not state how it was collected.")
    if header.weights != (digest_json(dict(header.initial)) if header.initial else ""):
        raise EvidenceError(f"{directory} states another digest of its initial weights than that of their list.")
    rows, tokens, own = _read_ranks(directory, trace)
    timing = read_timing(directory / TIMING)
    if not {step.step for step in trace.steps} <= {step for step, _ in timing.steps}:
        raise EvidenceError(
            f"{directory / TIMING} has not the time of each step: a copy of a run could not be noticed."
        )
    return CollectedRun(
        record=read_collected_record(directory / RECORD),
        rows=rows,
        tokens=tokens,
        own=own,
        timing=timing,
    )


def _read_ranks(directory: Path, trace: Trace) -> tuple[dict[int, dict[int, str]], dict[int, int], dict[int, int]]:
    """By step, the rows from the files of all ranks, the target tokens of all rows together, and of the reporting
    rank's."""
    ranks, reporting = _ranks(trace)
    rows: dict[int, dict[int, str]] = {}
    tokens, own = dict[int, int](), dict[int, int]()
    for rank in range(ranks):
        path = directory / ROWS / f"{rank}.jsonl"
        if not path.is_file():
            raise EvidenceError(f"{path} is missing: rank {rank} of {ranks} left no rows. Copy the files of all ranks.")
        for step, found, counted in _read_rank(path, finished=trace.footer is not None):
            held = rows.setdefault(step, {})
            if any(held.get(row, digest) != digest for row, digest in found.items()):
                raise EvidenceError(f"{path}: two ranks read different tokens as the same row of step {step}.")
            # ranks that share rows, such as those of one model-parallel group, count them once
            tokens[step] = tokens.get(step, 0) + (0 if set(found) <= set(held) else counted)
            held |= found
            if rank == reporting:
                own[step] = counted
    return rows, tokens, own


def _ranks(trace: Trace) -> tuple[int, int]:
    """How many ranks made a collected run, and which of them reported."""
    stated, how = trace.header.provenance.get("ranks"), trace.header.provenance[PROVENANCE]
    reporting = how.get(REPORTING) if isinstance(how, Mapping) else None
    if not (type(stated) is int and type(reporting) is int and 0 <= reporting < stated <= MOST_RANKS):
        raise EvidenceError(f"A collected run states {stated!r} ranks, of which {reporting!r} reported.")
    return stated, reporting


def _read_rank(path: Path, *, finished: bool) -> Iterator[tuple[int, dict[int, str], int]]:
    lines = read_bytes(path, LARGEST_ROWS).split(b"\n")[:-1]
    parsed = [_parsed(line, path) for line in lines]
    if parsed and "lines" in parsed[-1]:
        covered = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
        if parsed.pop() != {"last_step": len(parsed), "lines": covered}:
            raise EvidenceError(f"{path} was changed after its run ended.")
    elif finished:
        raise EvidenceError(f"{path} has no end, and the trace of its run has one.")
    for expected, line in enumerate(parsed, 1):
        rows, counted = line.get("rows"), line.get("tokens")
        if set(line) != {"step", "rows", "tokens"} or line["step"] != expected or type(counted) is not int:
            raise EvidenceError(f"{path}, line {expected}: expected the rows of step {expected}.")
        if not isinstance(rows, dict) or not all(row.isdecimal() and type(one) is str for row, one in rows.items()):
            raise EvidenceError(f"{path}, line {expected}: expected the digest of each row by its number.")
        yield expected, {int(row): digest for row, digest in rows.items()}, counted


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EvidenceError(f"{path}: a line is not a JSON object. The file was truncated or edited.")
    return value


def check_different(directory: Path, collected: Mapping[str, CollectedRun]) -> None:
    """Rejects one collected run in two roles, and a copy of it.

    Raises:
        EvidenceError: two of the runs have the same random number, or took the same microseconds in most steps.
    """
    names = sorted(collected)
    for index, one in enumerate(names):
        for other in names[index + 1 :]:
            a, b = collected[one], collected[other]
            if a.record.nonce == b.record.nonce or _alike(a.timing, b.timing):
                raise EvidenceError(
                    f"{one} and {other} in {directory} are the same collected run. A run says nothing next to itself: "
                    "collect a second one."
                )


def _alike(a: Timing, b: Timing) -> bool:
    shared = set(a.steps) & set(b.steps)
    return len(shared) > MOST_ALIKE * min(len(set(a.steps)), len(set(b.steps))) if shared else False


class Drawn:
    """The batches of a case as they were drawn: the digest of each step, and of each of its rows."""

    def __init__(self, batches: Mapping[str, npt.NDArray[Any]]) -> None:
        self._tokens, self._mask = batches["tokens"], batches["loss_mask"]
        self._steps: dict[int, Rows] = {}
        self._places: dict[str, tuple[int, int]] | None = None

    def rows(self, step: int) -> Rows:
        """The rows of a step; none beyond the last one."""
        if step not in self._steps:
            within = step <= len(self._tokens)
            pairs = zip(self._tokens[step - 1], self._mask[step - 1], strict=True) if within else ()
            self._steps[step] = {row: row_digest(*one) for row, one in enumerate(pairs)}
        return self._steps[step]

    def batch(self, step: int) -> str:
        """The digest of a step's batch, as a run of the harness records it."""
        return digest_tensors({"tokens": self._tokens[step - 1], "loss_mask": self._mask[step - 1]})

    def place(self, row: str) -> tuple[int, int] | None:
        """The step and the row at which a row first occurs; None if the case does not have it."""
        if self._places is None:
            places: dict[str, tuple[int, int]] = {}
            for step in range(1, len(self._tokens) + 1):
                for number, digest in self.rows(step).items():
                    places.setdefault(digest, (step, number))
            self._places = places
        return self._places.get(row)

    def parting(self, step: int, found: Rows) -> str | None:
        """Where the rows of a step part from the case, in words; None if they are the case's."""
        wanted = self.rows(step)
        for row in sorted({*wanted, *found}):
            if found.get(row) == wanted.get(row):
                continue
            if row not in found:
                return f"row {row} was not read"
            place = self.place(found[row])
            there = "no row of the case" if place is None else f"row {place[1]} of step {place[0]} of the case"
            return f"row {row}: what was read is {there}"
        return None


def in_role(run: Run, name: str, case: Case, inputs: Inputs, drawn: Drawn, left: CollectedRun) -> Run:
    """A collected run in the words of its case, with the role that its directory's name gives it.

    The digests of batches become those of the case where all rows are the case's. The case itself is not stated by a
    collected run: what it fixes is compared field by field.

    Raises:
        EvidenceError: its rows do not fit its trace.
    """
    assert run.trace is not None, "only what left a trace was collected"
    known = role(name, case)
    if known is None:
        return run
    steps = tuple(_in_words_of(step, drawn, left, run.trace) for step in run.trace.steps)
    same = bool(steps) and all(drawn.rows(one.step) and one.batch == drawn.batch(one.step) for one in steps)
    header = _header(run.trace.header, name, known[0], case, inputs, same=same)
    return dataclasses.replace(run, trace=dataclasses.replace(run.trace, header=header, steps=steps))


def _header(stated: TraceHeader, name: str, side: Side, case: Case, inputs: Inputs, *, same: bool) -> TraceHeader:
    return dataclasses.replace(
        stated, run=name, side=side, case=stated.case or case.digest(), batches=inputs.batches if same else ""
    )


def _in_words_of(step: Step, drawn: Drawn, left: CollectedRun, trace: Trace) -> Step:
    rows, (ranks, _) = left.rows.get(step.step, {}), _ranks(trace)
    if not rows:
        return step
    same = drawn.parting(step.step, rows) is None
    if ranks == 1 and same != (bool(drawn.rows(step.step)) and step.batch == drawn.batch(step.step)):
        raise EvidenceError(f"The rows of a collected run do not fit its trace at step {step.step}: it was edited.")
    tokens = left.tokens[step.step] if step.tokens == left.own.get(step.step) else step.tokens
    batch = drawn.batch(step.step) if same else step.batch
    return dataclasses.replace(step, tokens=tokens, batch=batch)


def collecting_code(run: Run) -> str | None:
    """The digest of the code that collected a run; None where it states none."""
    how = run.trace.header.provenance.get(PROVENANCE) if run.trace else None
    code = how.get("code") if isinstance(how, Mapping) else None
    return code if isinstance(code, str) else None


def required_of(case: Case, runs: Iterable[str], collected: Iterable[str]) -> tuple[str, ...]:
    """The runs that a bundle must have: all of its case, or of a side that was collected its training run and what else
    was collected. A collected reference comes without an oracle."""
    roles, made = roles_of(case), set(runs)
    sides = {roles[name][0] for name in collected if name in roles}
    free = sides | ({"oracle"} if "reference" in sides else set())
    return tuple(
        name
        for name in required_runs(case)
        if roles[name][0] not in free or name in made or name in (REFERENCE, SUBJECT)
    )


def without_what_was_not_collected(
    found: Comparison, runs: Mapping[str, Run], collected: Mapping[str, CollectedRun], drawn: Drawn
) -> Comparison:
    """The measurements of a bundle with collected runs. Those that need what was not collected have no values, and
    state that; the batches that differ state at which row."""
    left = {name: _omitted(runs[name]) for name in collected}
    measured = {one.name: _reworded(one) for one in found.measurements.values()}
    for name, absent in left.items():
        stated = runs[name].trace
        for one in list(measured.values()):
            why = _why_absent(one, name, absent, stated.header.alignment if stated else {})
            if why is not None:
                measured[one.name] = dataclasses.replace(one, places=(), values=(), sides=(), within={}, missing=why)
    for pair in PAIRS:
        batches = measured.get(f"{pair.name}.batch.differs")
        if batches is not None and batches.values:
            within = _partings(batches, (pair.first, pair.second), collected, drawn)
            measured[batches.name] = dataclasses.replace(batches, within=within)
    return Comparison(measurements=measured)


def _omitted(run: Run) -> frozenset[str]:
    """What a run did not collect, by its own statement and by what it left."""
    assert run.trace is not None
    trace = run.trace
    empty = {WEIGHTS: not trace.header.initial, ALIGNMENT: not trace.header.alignment}
    stated = omitted(trace.header.provenance)
    empty[FINAL] = trace.footer is not None and not trace.footer.parameters
    empty[TOKENS] = BATCHES in stated and not any(step.tokens for step in trace.steps)
    return stated | {name for name, is_so in empty.items() if is_so}


def _reworded(one: Measurement) -> Measurement:
    return dataclasses.replace(one, missing=NOT_COLLECTED) if one.missing == NOT_RUN else one


def _why_absent(one: Measurement, run: str, absent: frozenset[str], alignment: Mapping[str, Any]) -> str | None:
    """Why a measurement has no value because of what a run did not collect; None if it does not depend on that."""
    if one.missing is not None or not one.values:
        return None
    side, pairs = run.partition("-")[0], [pair.name for pair in PAIRS if run in (pair.first, pair.second)]
    needs = {
        GRAD_NORM: ".grad_norm" in one.name and any(math.isnan(value) for value in one.values),
        BATCHES: one.name in {f"{pair}.batch.differs" for pair in pairs},
        TOKENS: one.name.startswith(tuple(f"{pair}.tokens." for pair in pairs)),
        WEIGHTS: one.name == f"{side}.initial.differs",
        # what was stated of it is compared: a difference there is one
        ALIGNMENT: one.name == f"{side}.alignment.differs"
        and not any(value for key, value in zip(one.places, one.values, strict=True) if key in alignment),
        FINAL: one.name in {f"{pair}.parameters.differs" for pair in pairs},
    }
    if one.name == "runs.foreign_inputs":
        foreign = absent & {WEIGHTS, BATCHES}
        return f"{', '.join(sorted(foreign))} of {run}: {NOT_COLLECTED}" if foreign else None
    found = [what for what in sorted(absent) if needs.get(what)]
    return f"{', '.join(found)} of {run}: {NOT_COLLECTED}" if found else None


def _partings(
    one: Measurement, names: tuple[str, str], collected: Mapping[str, CollectedRun], drawn: Drawn
) -> dict[int | str, str]:
    """At each step whose batches differ, the first row at which a collected run parts from the case."""
    found: dict[int | str, str] = {}
    for place, value in zip(one.places, one.values, strict=True):
        if value == 0 or not isinstance(place, int):
            continue
        for name in names:
            parts = drawn.parting(place, collected[name].rows.get(place, {})) if name in collected else None
            if parts is not None:
                found[place] = f"{name}, {parts}"
    return found
