"""The first place at which a subject differs, from three finished tapped runs: pure numbers, no framework.

Rules:

- The subject's error at a place is its distance from the oracle, as a multiple of what the reference's own errors allow
  there (`allowance`). So a difference that two correct implementations may have does not count.
- An error spreads to everything that is computed from it. So the first wrong place in the order of the pass is the
  cause, and later ones are consequences: values first, in the order of the forward pass, then gradients from the loss
  down, each parameter's gradient right after its module's.
- A place that a side did not record is not judged; it is listed, and never counts as right.
- If step 1 agrees everywhere, further checks follow: the optimizer alone, what was built, the rate of each step, the
  number of targets, the loss of the first steps.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base.digest import digest_each
from harness.base.errors import EvidenceError
from harness.base.records import encode, parse, read_json
from harness.cases.alignment import expected_alignment
from harness.cases.case import Case, parse_case
from harness.comparison.distance import relative
from harness.comparison.left import change_difference, names_of
from harness.diagnosis.dumps import Statistics
from harness.diagnosis.errors_by_place import (
    ALLOWED_RATIO,
    SIDES,
    Reading,
    ReadingState,
    TappedRun,
    TappedStep,
    Tensors,
    allowance,
    tensor_name,
)
from harness.diagnosis.first_difference import Named, name_first, shown, tensors_for_a_clue
from harness.evidence.bundle import read_run
from harness.evidence.bundle_files import CASE
from harness.runs.files import UPDATED
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors, read_weights
from harness.runs.taps import TAPS, TapRecord, read_taps
from harness.runs.trace import Run, RunOutcome, Side, Step, read_trace

CURVES = "curves"  # traces of longer runs, SIDE.jsonl
DUMPED = "dump.json"  # what was read of a dump that stands for the subject
STEP = "step.json"  # the number of the step, where it is not the first


def run_name(side: Side) -> str:
    """The name of a side's tapped run."""
    return f"{side}-taps"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the diagnosis; `detail` states what was found."""

    name: str
    state: ReadingState
    detail: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was compared, in order; `named` is None where nothing differs.

    `step` is the number of the step, `rows` and `length` are its; `evidence` is what its tensors left. In a later step
    than the first, all sides begin with the weights that the subject has before it. `omitted` are modules of a dump
    that have no place.
    """

    case: str
    step: int
    rows: int
    length: int
    evidence: Literal["tensors", "sketches", "statistics"]
    subject: str
    named: Named | None
    readings: tuple[Reading, ...]
    checks: tuple[Check, ...]
    built: tuple[str, ...]
    taps: Mapping[str, TapRecord]
    broken: str | None
    omitted: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        if self.named is not None:
            return self.named.sentence if self.step == 1 else f"step {self.step}, {self.named.sentence}"
        return self.broken or "nothing differs"


def first_difference(directory: Path) -> Named | None:
    """The first wrong place of three finished tapped runs in a directory, or None.

    Raises:
        EvidenceError: a run or its tensors are missing or cannot be read.
    """
    return diagnose(directory).named


def diagnose(directory: Path) -> Diagnosis:
    """The diagnosis of a directory that holds `case.json`, `inputs/`, `runs/SIDE-taps/` and `tensors/`.

    Raises:
        EvidenceError: a run or its tensors are missing or cannot be read.
    """
    case = parse_case(read_json(directory / CASE), str(directory / CASE))
    inputs = directory / "inputs"
    sides = {side: read_side(directory, side) for side in SIDES}
    curves = {
        side: read_trace(path).steps for side in SIDES if (path := directory / CURVES / f"{side}.jsonl").is_file()
    }
    step = int(read_json(directory / STEP)) if (directory / STEP).is_file() else 1
    return judge_sides(case, sides, read_weights(inputs / WEIGHTS), read_tensors(inputs / BATCHES), curves, step)


def for_a_clue(directory: Path, diagnosis: Diagnosis) -> tuple[str, ...]:
    """The tensors that would give a clue to the fault at the named place, where only their sketches were left.

    Raises:
        EvidenceError: as `diagnose`.
    """
    reading = diagnosis.named.reading if diagnosis.named is not None else None
    if reading is None or "subject" not in diagnosis.taps or diagnosis.taps["subject"].missing:
        return ()
    case = parse_case(read_json(directory / CASE), str(directory / CASE))
    sides = {side: read_side(directory, side) for side in SIDES}
    if tensor_name(reading.direction, reading.name) in sides["subject"].tensors:
        return ()
    return tensors_for_a_clue(_tapped_step(case, sides, read_tensors(directory / "inputs" / BATCHES)), reading)


def read_side(directory: Path, side: Side) -> TappedRun:
    """One side's tapped run.

    Raises:
        EvidenceError: it is missing or cannot be read, or a side other than the subject did not finish.
    """
    name = run_name(side)
    if side == "subject" and (directory / DUMPED).is_file():
        return _read_dumped(directory)
    run = read_run(directory / "runs" / name)
    if not run.outcome.ended:
        if side != "subject":
            raise EvidenceError(f"{name}: {run.outcome.detail}. The diagnosis needs this run.\n{run.outcome.log_tail}")
        return TappedRun(run=run, tensors={}, taps=TapRecord(missing=run.outcome.detail))
    tensors = read_tensors(directory / "tensors" / f"{name}.safetensors")
    place = directory / "runs" / name
    taps = read_taps(place) if (place / TAPS).is_file() else TapRecord(missing=f"the run has no {TAPS}")
    return TappedRun(run=run, tensors=tensors, taps=taps)


@dataclass(frozen=True, kw_only=True)
class Dumped:
    """What was read of a dump that stands for the subject; its tensors are in a file of their own."""

    described: str
    sha256: str
    statistics: Mapping[str, Statistics]
    omitted: tuple[str, ...]


def _read_dumped(directory: Path) -> TappedRun:
    dumped: Dumped = parse(Dumped, read_json(directory / DUMPED), directory / DUMPED)
    file = directory / "tensors" / f"{run_name('subject')}.safetensors"
    return TappedRun(
        run=Run(
            name=run_name("subject"), outcome=RunOutcome(status="completed", last_step=1, detail="a dump"), trace=None
        ),
        tensors=read_tensors(file) if file.is_file() else {},
        taps=TapRecord(missing=None),
        dump=dumped.described,
        statistics=dumped.statistics,
        omitted=dumped.omitted,
    )


def judge_sides(
    case: Case,
    sides: Mapping[Side, TappedRun],
    weights: Tensors,
    batches: Tensors,
    curves: Mapping[Side, Sequence[Step]],
    number: int = 1,
) -> Diagnosis:
    """The diagnosis of three sides' tapped runs of a step of that number; `curves` are steps of their longer runs,
    where recorded. `weights` are those that the sides begin with, and the first of `batches` is that of the step."""
    step = _tapped_step(case, sides, batches)
    subject, header = sides["subject"], sides["subject"].run.trace
    broken = None if subject.left else f"the subject's run failed: {subject.run.outcome.detail}"
    loaded = _loaded(weights, header.header.initial) if header and number == 1 else ()
    built = (*loaded, *_built(case, header.header.alignment)) if header else ()
    short = {side: run.steps() for side, run in sides.items()}
    readings = tuple(step.readings()) if subject.left else ()
    made = {**short, **curves}
    checks = tuple(_of_readings(readings)) if subject.left else ()
    if subject.tensors and number == 1 and subject.dump is None:
        checks += tuple(_checks(sides, weights, built, made, case.training.oracle))
    named = name_first(step, readings) or _named_check(checks)
    return Diagnosis(
        case=case.name,
        step=number,
        rows=case.data.global_batch_size,
        length=case.data.seq_length,
        evidence="statistics" if subject.statistics else case.evidence,
        subject=subject.dump or (header.header.runner if header else ""),
        named=_with_built(named, built),
        readings=readings,
        checks=checks,
        built=built,
        taps={side: run.taps for side, run in sides.items() if run.dump is None},
        broken=broken,
        omitted=subject.omitted,
    )


def _tapped_step(case: Case, sides: Mapping[Side, TappedRun], batches: Tensors) -> TappedStep:
    return TappedStep(case, sides, {name: batches[name][0] for name in ("tokens", "loss_mask")})


def _loaded(weights: Tensors, initial: Mapping[str, str]) -> tuple[str, ...]:
    """The parameters whose initial values differ from the given weights."""
    given = digest_each(weights)
    names = sorted({*given, *initial})
    return tuple(f"{name} was not loaded as given" for name in names if given.get(name) != initial.get(name))


def _built(case: Case, stated: Mapping[str, Any]) -> tuple[str, ...]:
    """The differences between the configuration that the subject states and the case."""
    expected = expected_alignment(case)
    return tuple(
        f"built with {key} {stated.get(key)}, the case has {expected.get(key)}"
        for key in sorted({*expected, *stated})
        if expected.get(key) != stated.get(key)
    )


def _with_built(named: Named | None, built: Sequence[str]) -> Named | None:
    """Adds a difference in what was built, which is the best clue."""
    if named is None or not built or named.place == "what was built":
        return named
    more = f" (and {len(built) - 1} more)" if len(built) > 1 else ""
    return dataclasses.replace(named, finding=f"{named.finding}; {built[0]}{more}")


def _of_readings(readings: Sequence[Reading]) -> Iterator[Check]:
    words = {"forward": "values", "backward": "gradients by place", "parameter": "gradients of parameters"}
    for direction, name in words.items():
        yield _summed(name, [reading for reading in readings if reading.direction == direction])


def _checks(
    sides: Mapping[Side, TappedRun],
    weights: Tensors,
    built: Sequence[str],
    curves: Mapping[Side, Sequence[Step]],
    oracle: int | Literal["probe"] | None,
) -> Iterator[Check]:
    # An update depends on the rate, so the rate is checked first.
    numbers = {check.name: check for check in _numbers(curves, limited=oracle is not None)}
    yield numbers.pop("number of targets")
    yield numbers.pop("learning rate")
    yield _summed("optimizer alone", list(_updates(sides, weights)))
    detail = "; ".join(built) or "as the case states"
    yield Check(name="what was built", state="differs" if built else "agrees", detail=detail)
    yield from numbers.values()


def _summed(name: str, readings: Sequence[Reading]) -> Check:
    wrong = [reading for reading in readings if reading.state == "differs"]
    judged = [reading for reading in readings if reading.state != "not recorded"]
    missing = f"; {len(readings) - len(judged)} not recorded" if len(judged) < len(readings) else ""
    if not judged:
        return Check(name=name, state="not recorded", detail="no tensor was recorded")
    if not wrong:
        largest = max(reading.ratio for reading in judged)
        return Check(name=name, state="agrees", detail=f"{len(judged)}, largest ratio {shown(largest)}{missing}")
    first = wrong[0]
    detail = f"{len(wrong)} of {len(judged)} differ{missing}; first {first.name}, {shown(first.subject)} off"
    return Check(name=name, state="differs", detail=detail)


def _updates(sides: Mapping[Side, TappedRun], weights: Tensors) -> Iterator[Reading]:
    """The change of each parameter by the optimizer alone, from the same gradients."""
    exact = sides["oracle"].tensors
    recorded = {side: names_of(sides[side].tensors, UPDATED) for side in SIDES}
    for name, start in weights.items():
        updated = f"{UPDATED}{name}"
        errors = [
            change_difference(updated, exact, sides[side].tensors, {name: start})
            if updated in recorded["oracle"] & recorded[side]
            else None
            for side in SIDES[:2]
        ]
        allowed = allowance(errors[0], [])
        yield Reading(name=name, direction="parameter", reference=errors[0], subject=errors[1], allowance=allowed)


def _numbers(curves: Mapping[Side, Sequence[Step]], *, limited: bool) -> Iterator[Check]:
    """Rate, targets, loss and norm by step. The reference's largest error over all steps sets the limit of every step:
    at a single step the reference may be exact by chance.

    `limited`: the oracle of the case does not take all steps. After its last, rate and targets are the reference's,
    and loss and norm are not judged.
    """
    steps = {side: {step.step: step for step in curve} for side, curve in curves.items()}
    words = {"learning_rate": "learning rate", "tokens": "number of targets", "loss": "loss", "grad_norm": "grad norm"}
    for number, name in words.items():
        exact: dict[int, Step] = dict(steps["oracle"])
        if limited and number in ("learning_rate", "tokens"):
            exact = {**steps["reference"], **exact}
        every = sorted(exact if limited else {*exact, *steps["subject"]})
        errors, own = (
            [_distance(exact.get(at), steps[side].get(at), number) for at in every] for side in ("subject", "reference")
        )
        allowed = ALLOWED_RATIO * allowance(None, own)
        wrong = next((at for at, error in zip(every, errors, strict=True) if not error <= allowed), None)
        if wrong is None:
            amount = "1 step" if len(every) == 1 else f"{len(every)} steps"
            detail = f"{amount}, at most {shown(max(errors, default=math.nan))} off"
            yield Check(name=name, state="agrees" if every else "not recorded", detail=detail)
            continue
        found, wanted = (getattr(one.get(wrong), number, None) for one in (steps["subject"], exact))
        is_, expected = ("missing" if value is None else f"{value:.9g}" for value in (found, wanted))
        yield Check(name=name, state="differs", detail=f"wrong from step {wrong} on, {is_} instead of {expected}")


def _distance(exact: Step | None, step: Step | None, number: str) -> float:
    if exact is None or step is None:
        return math.nan
    return relative(float(getattr(exact, number)), float(getattr(step, number)))


def _named_check(checks: Sequence[Check]) -> Named | None:
    """The first check that differs."""
    wrong = next((check for check in checks if check.state == "differs"), None)
    return Named(place=wrong.name, finding=wrong.detail, clue=None) if wrong else None


def record(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON values, numbers that are not finite by name."""
    named = diagnosis.named
    values = {
        "case": diagnosis.case,
        "step": diagnosis.step,
        "rows": diagnosis.rows,
        "length": diagnosis.length,
        "evidence": diagnosis.evidence,
        "subject": diagnosis.subject,
        "sentence": diagnosis.sentence,
        "named": named and {
            "place": named.place,
            "finding": named.finding,
            "clue": named.clue,
            "reading": named.reading and _derived(named.reading),
        },
        "readings": [_derived(reading) for reading in diagnosis.readings],
        "checks": [vars(check) for check in diagnosis.checks],
        "built": list(diagnosis.built),
        "taps": {side: {**vars(taps), "cost": taps.cost} for side, taps in diagnosis.taps.items()},
        "broken": diagnosis.broken,
        "omitted": list(diagnosis.omitted),
    }  # fmt: skip
    encoded: dict[str, Any] = encode(values)
    return encoded


def _derived(reading: Reading) -> dict[str, Any]:
    return {**vars(reading), "ratio": reading.ratio, "state": reading.state}
