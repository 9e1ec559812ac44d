"""Collected runs in a bundle: which ones they are, in which role, and what they left out.

Takes collected runs as they were read. Gives each its role, compares the rows that it read with those that were drawn,
and turns what was not collected into a measurement without values, which is INCONCLUSIVE. Rejects a trace that does not
fit its rows, a run of another layout than its case, and a bundle that states of a run what the run does not.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.base.digest import digest_json, digest_tensors
from harness.base.errors import EvidenceError
from harness.cases.case import Case
from harness.cases.runs_of_a_case import REFERENCE, SUBJECT, SUBJECT_RESUMED, required_runs, role, roles_of
from harness.comparison.catalogue import PAIRS, SIDES
from harness.comparison.measurement import Comparison, Measurement
from harness.evidence.collected_parts import CollectedParts, PartsOfCase, departures, final_of, initial_of
from harness.evidence.collected_run import CollectedRun, Rows, outcome_of
from harness.evidence.provenance import Environment, Occasion, Start
from harness.runs.collected import (
    ALIGNMENT,
    BATCHES,
    CODE,
    FINAL,
    GRAD_NORM,
    PROVENANCE,
    RECORD,
    TOKENS,
    WEIGHTS,
    omitted,
    row_digest,
)
from harness.runs.files import OUTCOME
from harness.runs.inputs import Inputs
from harness.runs.trace import Run, Side, Step, Trace, TraceHeader

NOT_RUN, NOT_COLLECTED = "not run", "not collected"
CHANGE = "change of the parameters"  # a collector sees none: it keeps no copy of the initial weights
OF_CHANGE = ("train.change.relative", *(f"oracle.change.{part}" for part in (*SIDES, "ratio")))


def check_stated(
    directory: Path,
    runs: Mapping[str, Run],
    collected: Mapping[str, CollectedRun],
    environment: Environment,
    start: Start | None,
    occasion: Occasion,
) -> None:
    """Checks what a bundle states of its collected runs against the runs themselves.

    Raises:
        EvidenceError: how a run ended does not follow from its trace; or the bundle has another device, environment,
            random number, start or host than the subject's training run.
    """
    for name, left in collected.items():
        run = runs[name]
        assert run.trace is not None, "only what left a trace was collected"
        if run.outcome != outcome_of(run.trace, left.record):
            raise EvidenceError(f"{directory / 'runs' / name / OUTCOME} does not follow from the trace of {name}.")
        if name == SUBJECT_RESUMED and not left.record.resumed_after:
            raise EvidenceError(f"{name} in {directory} was collected as a resumed run, and it was never resumed.")
    if SUBJECT not in collected:
        return
    first = collected[SUBJECT].record
    wanted = {
        "the environment": (environment, first.environment),
        "the random number": (start.nonce if start else None, first.nonce),
        "the start": (occasion.started, started(collected.values())),
        "the host": (occasion.host, first.host),
    }
    if other := [what for what, (stated, own) in wanted.items() if stated != own]:
        raise EvidenceError(f"{directory} states {', '.join(other)} of its runs otherwise than {SUBJECT}/{RECORD}.")
    for name, left in collected.items():
        device = left.record.environment.device
        if name.startswith("subject") and device != environment.device:
            raise EvidenceError(
                f"{name} in {directory} ran on {device} and {SUBJECT} on {environment.device}: a level holds for one "
                "device. Collect both on one."
            )


def started(collected: Iterable[CollectedRun]) -> str:
    """When the first of collected runs started (ISO 8601, UTC): a level counts from then."""
    return min(datetime.fromisoformat(one.record.started) for one in collected).isoformat(timespec="seconds")


def check_layout(name: str, case: Case, ranks: int) -> None:
    """Checks how many ranks made a run of the subject: a level holds for the layout of its case.

    Raises:
        EvidenceError: it was another number.
    """
    if ranks != case.parallel.world_size:
        raise EvidenceError(
            f"{name} was collected from {ranks} ranks, and the layout of {case.name} has {case.parallel.world_size} "
            f"({case.parallel}). A level holds for one layout: train with that many ranks, or state `parallel` in the "
            "case."
        )


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


def in_role(
    run: Run, name: str, case: Case, inputs: Inputs, drawn: Drawn, weights: PartsOfCase, left: CollectedRun
) -> Run:
    """A collected run in the words of its case, with the role that its directory's name gives it.

    The digests of batches become those of the case where all rows are the case's, and the digest of an initial weight
    that ranks stated in parts where all its parts are the case's. The case itself is not stated by a
    collected run: what it fixes is compared field by field.

    Raises:
        EvidenceError: its rows do not fit its trace, or it is of another layout.
    """
    assert run.trace is not None, "only what left a trace was collected"
    known = role(name, case)
    if known is None:
        return run
    if known[0] == "subject":
        check_layout(name, case, left.ranks)
    steps = tuple(_in_words_of(step, drawn, left) for step in run.trace.steps)
    same = bool(steps) and all(drawn.rows(one.step) and one.batch == drawn.batch(one.step) for one in steps)
    header = _header(run.trace.header, name, known[0], case, inputs, same=same)
    whole = dataclasses.replace(run.trace, header=header, steps=steps)
    return dataclasses.replace(run, trace=whole if left.parts is None else _with_parts(whole, left.parts, weights))


def _with_parts(trace: Trace, parts: CollectedParts, weights: PartsOfCase) -> Trace:
    """A trace with the digests of the weights that the ranks of its run stated in parts."""
    initial = initial_of(parts, weights)
    header = dataclasses.replace(trace.header, initial=initial, weights=digest_json(initial) if initial else "")
    footer = trace.footer
    if footer is not None and not footer.parameters:
        footer = dataclasses.replace(footer, parameters=final_of(parts))
    return dataclasses.replace(trace, header=header, footer=footer)


def _header(stated: TraceHeader, name: str, side: Side, case: Case, inputs: Inputs, *, same: bool) -> TraceHeader:
    return dataclasses.replace(stated, run=name, side=side, case=case.digest(), batches=inputs.batches if same else "")


def _in_words_of(step: Step, drawn: Drawn, left: CollectedRun) -> Step:
    rows = left.rows.get(step.step, {})
    if not rows:
        return step
    same = drawn.parting(step.step, rows) is None
    if left.ranks == 1 and same != (bool(drawn.rows(step.step)) and step.batch == drawn.batch(step.step)):
        raise EvidenceError(f"The rows of a collected run do not fit its trace at step {step.step}: it was edited.")
    tokens = left.tokens[step.step] if step.tokens == left.own.get(step.step) else step.tokens
    # of several ranks the trace has the batch of one of them, and the rows are those of all
    whole = step.batch if left.ranks == 1 else digest_json({str(row): digest for row, digest in rows.items()})
    return dataclasses.replace(step, tokens=tokens, batch=drawn.batch(step.step) if same else whole)


def collecting_code(run: Run) -> str | None:
    """The digest of the code that collected a run; None where it states none."""
    how = run.trace.header.provenance.get(PROVENANCE) if run.trace else None
    code = how.get(CODE) if isinstance(how, Mapping) else None
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
    found: Comparison,
    runs: Mapping[str, Run],
    collected: Mapping[str, CollectedRun],
    drawn: Drawn,
    weights: PartsOfCase,
) -> Comparison:
    """The measurements of a bundle with collected runs. Those that need what was not collected have no values, and
    state that; the batches that differ state at which row, and weights that differ in which part."""
    left = {name: _omitted(runs[name], one) for name, one in collected.items()}
    measured = {one.name: _reworded(one) for one in found.measurements.values()}
    for name, absent in left.items():
        for one in list(measured.values()):
            why = _why_absent(one, name, absent, runs[name].trace)
            if why is not None:
                measured[one.name] = dataclasses.replace(one, places=(), values=(), sides=(), within={}, missing=why)
    for pair in PAIRS:
        batches = measured.get(f"{pair.name}.batch.differs")
        if batches is not None and batches.values:
            within = _partings(batches, (pair.first, pair.second), collected, drawn)
            measured[batches.name] = dataclasses.replace(batches, within=within)
    for name in (REFERENCE, SUBJECT):
        initial = measured.get(f"{name.partition('-')[0]}.initial.differs")
        parts = collected[name].parts if name in collected else None
        if initial is not None and initial.values and parts is not None:
            measured[initial.name] = dataclasses.replace(initial, within=dict(departures(parts, weights).items()))
    return Comparison(measurements=measured)


def _omitted(run: Run, left: CollectedRun) -> frozenset[str]:
    """What a run did not collect, by its own statement and by what it left."""
    assert run.trace is not None
    trace = run.trace
    partly = left.parts is not None and not left.parts.began
    empty = {WEIGHTS: partly or not trace.header.initial, ALIGNMENT: not trace.header.alignment}
    stated = omitted(trace.header.provenance)
    empty[FINAL] = trace.footer is not None and not trace.footer.parameters
    empty[TOKENS] = BATCHES in stated and not any(step.tokens for step in trace.steps)
    return stated | {CHANGE} | {name for name, is_so in empty.items() if is_so}


def _reworded(one: Measurement) -> Measurement:
    return dataclasses.replace(one, missing=NOT_COLLECTED) if one.missing == NOT_RUN else one


def _why_absent(one: Measurement, run: str, absent: frozenset[str], trace: Trace | None) -> str | None:
    """Why a measurement has no value because of what a run did not collect; None if it does not depend on that."""
    if one.missing is not None or not one.values:
        return None
    side, pairs = run.partition("-")[0], [pair.name for pair in PAIRS if run in (pair.first, pair.second)]
    alignment, initial = (trace.header.alignment, trace.header.initial) if trace else ({}, {})
    needs = {
        GRAD_NORM: ".grad_norm" in one.name and any(math.isnan(value) for value in one.values),
        BATCHES: one.name in {f"{pair}.batch.differs" for pair in pairs},
        TOKENS: one.name.startswith(tuple(f"{pair}.tokens." for pair in pairs)),
        # what was stated of them is compared: a difference there is one
        WEIGHTS: one.name == f"{side}.initial.differs" and not _differs_in(one, initial),
        ALIGNMENT: one.name == f"{side}.alignment.differs" and not _differs_in(one, alignment),
        FINAL: one.name in {f"{pair}.parameters.differs" for pair in pairs},
        CHANGE: run in (REFERENCE, SUBJECT) and one.name in OF_CHANGE and all(map(math.isnan, one.values)),
    }
    if one.name == "runs.foreign_inputs":
        foreign = absent & {WEIGHTS, BATCHES}
        return f"{', '.join(sorted(foreign))} of {run}: {NOT_COLLECTED}" if foreign else None
    found = [what for what in sorted(absent) if needs.get(what)]
    return f"{', '.join(found)} of {run}: {NOT_COLLECTED}" if found else None


def _differs_in(one: Measurement, stated: Mapping[str, Any]) -> bool:
    return any(value for key, value in zip(one.places, one.values, strict=True) if key in stated)


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
