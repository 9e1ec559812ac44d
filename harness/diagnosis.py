"""The first place at which a subject differs, from three finished tapped runs: pure numbers, no framework.

Laws:

- The subject's error at a place is judged against the oracle, as a multiple of what the reference's own errors allow
  there (`allowance`). A difference that two correct implementations may have is none.
- An error goes on to everything that is computed from it. So the first wrong place in the order of the pass is the
  cause, and what comes after it is its consequence: values first, in the order of the forward pass, then gradients from
  the loss down, each parameter's right after its module's.
- What no side shows is not judged, and never reads as right: it is listed.
- Only where step 1 agrees everywhere is it asked what comes after: the optimizer alone, what was built, the rate of
  each step, the number of targets, the loss of the first steps.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.alignment import expected_alignment
from harness.case import Case, parse_case
from harness.clues import Scene, clue, exact_loss, loss_clue
from harness.distance import HALF_ULP, relative, tensor_difference
from harness.errors import EvidenceError
from harness.evidence import CASE, read_run
from harness.inputs import BATCHES, WEIGHTS, read_tensors
from harness.look import LOOK, Look, read_look
from harness.places import HEAD, LOSS, Direction, places
from harness.records import read_json
from harness.trace import Run, Side, Step, encode_number, read_trace

Tensors = Mapping[str, npt.NDArray[Any]]
State = Literal["agrees", "differs", "not seen"]

# A correct subject's error was at most 2.6 times what the reference's allow, at any place of the four shipped cases in
# float32 and bfloat16 (docs/design/diagnosis.md); `strict-fp32` allows 10 for the largest ratio of a gradient too.
FACTOR = 10.0
CURVES = "curves"  # traces of longer runs, SIDE.jsonl
SIDES: tuple[Side, ...] = ("reference", "subject", "oracle")


def run_name(side: Side) -> str:
    """The name of a side's tapped run."""
    return f"{side}-taps"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a tapped run of one side left."""

    run: Run
    tensors: Tensors
    look: Look

    def steps(self) -> tuple[Step, ...]:
        return self.run.trace.steps if self.run.trace else ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Both sides' relative errors at one place, and what the reference's errors allow there before the factor.

    `subject` or `reference` is None where that side does not show the place.
    """

    name: str
    direction: Direction
    subject: float | None
    reference: float | None
    allowance: float

    @property
    def ratio(self) -> float:
        """The subject's error as a multiple of what is allowed to a correct one before the factor; NaN: not finite."""
        return math.nan if self.subject is None else self.subject / self.allowance

    @property
    def state(self) -> State:
        if self.subject is None or self.reference is None:
            return "not seen"
        return "agrees" if self.ratio <= FACTOR else "differs"


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was asked after another; `detail` says what was found."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True, kw_only=True)
class Named:
    """The first place at which the subject differs.

    `place` is what to look at: a module, a parameter, or a check. `reading` holds the numbers where there are some;
    where a gradient arrives wrong, `place` is the module whose derivative made it and `reading.name` where it arrived.
    """

    place: str
    says: str
    clue: str | None
    reading: Reading | None = None

    @property
    def sentence(self) -> str:
        return f"{self.place}: {self.says}"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Everything that was compared, in the order in which it was asked; `named` is None where nothing differs."""

    case: str
    subject: str
    named: Named | None
    readings: tuple[Reading, ...]
    checks: tuple[Check, ...]
    built: tuple[str, ...]
    looks: Mapping[str, Look]
    broken: str | None

    @property
    def sentence(self) -> str:
        if self.named is not None:
            return self.named.sentence
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
    return judge_sides(case, sides, read_tensors(inputs / WEIGHTS), read_tensors(inputs / BATCHES), curves)


def read_side(directory: Path, side: Side) -> Seen:
    """One side's tapped run.

    Raises:
        EvidenceError: it is missing or cannot be read, or it is not the subject's and did not come to its end.
    """
    name = run_name(side)
    run = read_run(directory / "runs" / name)
    if run.outcome.status not in ("completed", "non_finite"):
        if side != "subject":
            raise EvidenceError(
                f"{name}: {run.outcome.detail}. Without it nothing can be judged.\n{run.outcome.log_tail}"
            )
        return Seen(run=run, tensors={}, look=Look(missing=run.outcome.detail))
    tensors = read_tensors(directory / "tensors" / f"{name}.safetensors")
    look = directory / "runs" / name
    return Seen(run=run, tensors=tensors, look=read_look(look) if (look / LOOK).is_file() else Look(missing="no look"))


def judge_sides(
    case: Case,
    sides: Mapping[Side, Seen],
    weights: Tensors,
    batches: Tensors,
    curves: Mapping[Side, Sequence[Step]],
) -> Diagnosis:
    """The diagnosis of what three sides left; `curves` are longer runs of theirs, where there are some."""
    step = _Step(case, sides, {name: batches[name][0] for name in ("tokens", "loss_mask")})
    subject, header = sides["subject"], sides["subject"].run.trace
    broken = None if subject.tensors else f"the subject's run broke: {subject.run.outcome.detail}"
    built = _built(case, header.header.alignment if header else {})
    short = {side: seen.steps() for side, seen in sides.items()}
    readings = tuple(step.readings()) if subject.tensors else ()
    checks = tuple(_checks(readings, sides, weights, built, {**short, **curves})) if subject.tensors else ()
    named = step.named(readings) or _named_check(checks)
    return Diagnosis(
        case=case.name,
        subject=header.header.runner if header else "",
        named=_with_built(named, built),
        readings=readings,
        checks=checks,
        built=built,
        looks={side: seen.look for side, seen in sides.items()},
        broken=broken,
    )


class _Step:
    """Step 1 of three sides, place by place."""

    def __init__(self, case: Case, sides: Mapping[Side, Seen], batch: Tensors) -> None:
        rows, length = case.data.global_batch_size, case.data.seq_length
        self._places = {place.name: place for place in places(case.model, rows, length)}
        self._sides, self._batch = sides, batch
        self._tied = case.model.tie_word_embeddings
        self._consumers: dict[str, list[str]] = {name: [] for name in self._places}
        for place in self._places.values():
            for name in place.inputs:
                self._consumers[name].append(place.name)

    def readings(self) -> Iterator[Reading]:
        """In the order in which they are judged: forward, then backward with the parameters in between."""
        own: dict[tuple[Direction, str], float | None] = {}

        def reading(direction: Direction, name: str, before: Sequence[tuple[Direction, str]]) -> Reading:
            errors = self._errors(direction, name)
            own[direction, name] = errors[0]
            known = [own.get(one) for one in before]
            return Reading(
                name=name,
                direction=direction,
                reference=errors[0],
                subject=errors[1],
                allowance=allowance(errors[0], [error for error in known if error is not None]),
            )

        for place in self._places.values():
            yield reading("forward", place.name, [] if place.name == LOSS else [("forward", i) for i in place.inputs])
        for place in reversed(self._places.values()):
            yield reading("backward", place.name, [("backward", name) for name in self._consumers[place.name]])
            if place.parameter is not None:
                before: list[tuple[Direction, str]] = [("backward", place.name)]
                yield reading("parameter", place.parameter, [*before, *(("forward", i) for i in place.inputs)])

    def _errors(self, direction: Direction, name: str) -> tuple[float | None, float | None]:
        """The relative errors of reference and subject.

        The loss's is that against the exact loss of its own logits: its sum averages errors away, by chance to nothing,
        so that the reference's says little about what is allowed.
        """
        if (direction, name) == ("forward", LOSS) and all(
            self._tensor(side, "forward", HEAD) is not None for side in SIDES
        ):
            return self._loss_error("reference"), self._loss_error("subject")
        exact = self._tensor("oracle", direction, name)
        found = [self._tensor(side, direction, name) for side in ("reference", "subject")]
        errors = [None if exact is None or one is None else tensor_difference(exact, one)[0] for one in found]
        return errors[0], errors[1]

    def _loss_error(self, side: Side) -> float | None:
        loss = self._tensor(side, "forward", LOSS)
        return None if loss is None else relative(self._loss_of_own_logits(side), float(loss))

    def _loss_of_own_logits(self, side: Side) -> float:
        logits, mask = self._sides[side].tensors[f"forward.{HEAD}"], self._batch["loss_mask"]
        return exact_loss(logits, self._batch["tokens"][:, 1:], mask, float(mask.sum()))

    def _tensor(self, side: Side, direction: Direction, name: str) -> npt.NDArray[Any] | None:
        prefix = "gradient" if direction == "parameter" else direction
        return self._sides[side].tensors.get(f"{prefix}.{name}")

    def named(self, readings: Sequence[Reading]) -> Named | None:
        """The first wrong one, put into words."""
        first = next((reading for reading in readings if reading.state == "differs"), None)
        if first is None:
            return None
        if self._sides["subject"].look.missing and first.direction == "parameter":
            return self._by_parameters_alone(readings)
        found = self._clue(first)
        numbers = f"{_number(first.subject)} off the exact values, {_number(first.ratio)} times what is usual"
        what = {"forward": "output", "backward": "the gradient that it hands down", "parameter": "gradient"}
        place = first.name if first.direction != "backward" else self._maker(first.name)
        where = f" to {first.name}" if first.direction == "backward" else ""
        says = f"{what[first.direction]}{where}: {found}" if found else f"{what[first.direction]}{where} is {numbers}"
        return Named(place=place, says=_worded(says, place), clue=found, reading=first)

    def _maker(self, name: str) -> str:
        """Whose derivative a gradient comes from: the modules that the value goes into."""
        return " or ".join(self._consumers[name]) or name

    def _by_parameters_alone(self, readings: Sequence[Reading]) -> Named:
        """Without a look inside, an error in one place is in the gradients of nearly all parameters."""
        judged = [reading for reading in readings if reading.state != "not seen" and reading.direction == "parameter"]
        wrong = [reading for reading in judged if reading.state == "differs"]
        worst = max(wrong, key=lambda one: one.ratio if math.isfinite(one.ratio) else math.inf)
        says = (
            f"gradient differs, and {len(wrong)} of {len(judged)} parameters' do; this one most, "
            f"{_number(worst.subject)} off the exact values. Nothing was seen inside the step, so where it begins is "
            "not known"
        )
        return Named(place=worst.name, says=says, clue=None, reading=worst)

    def _clue(self, reading: Reading) -> str | None:
        exact, given, reference = (
            self._tensor(side, reading.direction, reading.name) for side in ("oracle", "subject", "reference")
        )
        assert exact is not None and given is not None and reference is not None, "a reading that differs has all three"
        if (reading.direction, reading.name) == ("forward", LOSS):
            logits, batch = self._tensor("subject", "forward", HEAD), self._batch
            if logits is not None:
                exact = np.asarray(self._loss_of_own_logits("subject"))
                found = loss_clue(float(given), logits, batch["tokens"], batch["loss_mask"], FACTOR * reading.allowance)
                if found:
                    return found
        scene = self._scene(reading, exact, given, reference)
        return clue(scene) or self._tied_clue(scene, reading)

    def _scene(self, reading: Reading, exact: Any, given: Any, reference: Any) -> Scene:
        place = self._places.get(reading.name)
        inputs = place.inputs if place and reading.direction == "forward" else ()
        taken = {name: self._tensor("subject", "forward", name) for name in inputs}
        prefix = f"{'gradient' if reading.direction == 'parameter' else reading.direction}."
        others = self._sides["oracle"].tensors
        return Scene(
            name=reading.name,
            axes=place.axes if place else ("output channel", "input channel")[2 - exact.ndim :],
            subject=given,
            exact=exact,
            reference=reference,
            allowed=FACTOR * reading.allowance,
            taken={name: tensor for name, tensor in taken.items() if tensor is not None},
            elsewhere={
                name.removeprefix(prefix): tensor
                for name, tensor in others.items()
                if name.startswith(prefix) and not self._same_value(name.removeprefix(prefix), reading.name)
            },
        )

    def _same_value(self, name: str, other: str) -> bool:
        """Whether two places hold the same tensor in a correct step."""
        a, b = self._places.get(name), self._places.get(other)
        return name == other or bool(a and b and (b.name in a.inputs or a.name in b.inputs))

    def _tied_clue(self, scene: Scene, reading: Reading) -> str | None:
        """A tied head's weight gets its gradient from two uses; one of them may be missing."""
        lookups = self._tensor("oracle", "backward", "model.embed_tokens")
        if not self._tied or reading.name != "model.embed_tokens.weight" or lookups is None:
            return None
        part = np.zeros(scene.exact.shape)
        np.add.at(part, self._batch["tokens"][:, :-1], lookups)
        if scene.fits(part):
            return "it holds what comes from the lookups alone, not from the tied head"
        return "it holds what comes from the tied head alone" if scene.fits(scene.exact - part) else None


def allowance(own: float | None, before: Sequence[float]) -> float:
    """What a correct implementation's error at a place is measured by: the reference's own error there, or if that is
    larger, the reference's at what it is computed from, and never less than half a unit in the last place of float32.

    A reference may be exact at a place by chance; that its input carries errors is no chance. Not a number counts as
    none: a reference that breaks allows nothing.
    """
    return max([HALF_ULP, *(error for error in (own, *before) if error is not None and math.isfinite(error))])


def _worded(says: str, place: str) -> str:
    """One sentence out of place and clue; a guess about a known kind of module ends it."""
    says = says.replace(": it ", " ", 1)
    if says.startswith("output is identical to its input"):
        last = place.rpartition(".")[2]
        guess = "missing norm?" if "norm" in last else "not rotated?" if "rotary" in place else "left out?"
        return f"{says}; {guess}"
    return f"{says}; detached?" if "is zero everywhere" in says and "gradient" in says else says


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _built(case: Case, stated: Mapping[str, Any]) -> tuple[str, ...]:
    """Where what the subject says it has built differs from what the case asks for."""
    asked = expected_alignment(case)
    return tuple(
        f"built with {key} {stated.get(key)}, the case has {asked.get(key)}"
        for key in sorted({*asked, *stated})
        if stated and asked.get(key) != stated.get(key)
    )


def _with_built(named: Named | None, built: Sequence[str]) -> Named | None:
    """What was built otherwise is the best clue of all."""
    if named is None or not built or named.place == "what was built":
        return named
    more = f" (and {len(built) - 1} more)" if len(built) > 1 else ""
    return dataclasses.replace(named, says=f"{named.says}; {built[0]}{more}")


def _checks(
    readings: Sequence[Reading],
    sides: Mapping[Side, Seen],
    weights: Tensors,
    built: Sequence[str],
    curves: Mapping[Side, Sequence[Step]],
) -> Iterator[Check]:
    words = {"forward": "values", "backward": "gradients by place", "parameter": "gradients of parameters"}
    for direction, name in words.items():
        of_one = [reading for reading in readings if reading.direction == direction]
        yield _summed(name, of_one)
    yield _summed("optimizer alone", list(_updates(sides, weights)))
    yield Check(name="what was built", state="differs" if built else "agrees", detail="; ".join(built) or "as asked")
    yield from _numbers(curves)


def _summed(name: str, readings: Sequence[Reading]) -> Check:
    wrong = [reading for reading in readings if reading.state == "differs"]
    judged = [reading for reading in readings if reading.state != "not seen"]
    unseen = f"; {len(readings) - len(judged)} not seen" if len(judged) < len(readings) else ""
    if not judged:
        return Check(name=name, state="not seen", detail="nothing was seen")
    if not wrong:
        largest = max(reading.ratio for reading in judged)
        return Check(name=name, state="agrees", detail=f"{len(judged)}, largest ratio {_number(largest)}{unseen}")
    first = wrong[0]
    detail = f"{len(wrong)} of {len(judged)} differ{unseen}; first {first.name}, {_number(first.subject)} off"
    return Check(name=name, state="differs", detail=detail)


def _updates(sides: Mapping[Side, Seen], weights: Tensors) -> Iterator[Reading]:
    """The change that the same gradients make to each parameter by the optimizer alone."""
    for name, start in weights.items():
        found = [sides[side].tensors.get(f"updated.{name}") for side in ("oracle", *SIDES[:2])]
        changes = [None if one is None or one.shape != start.shape else one - start.astype(np.float64) for one in found]
        exact, *others = changes
        errors = [None if exact is None or one is None else tensor_difference(exact, one)[0] for one in others]
        own = allowance(errors[0], [])
        yield Reading(name=name, direction="parameter", reference=errors[0], subject=errors[1], allowance=own)


def _numbers(curves: Mapping[Side, Sequence[Step]]) -> Iterator[Check]:
    """Rate, targets, loss and norm by step. What the reference's largest error of all steps allows is allowed at each:
    at one step it may be exact by chance."""
    steps = {side: {step.step: step for step in curve} for side, curve in curves.items()}
    words = {"learning_rate": "learning rate", "tokens": "number of targets", "loss": "loss", "grad_norm": "grad norm"}
    for number, name in words.items():
        errors = {
            side: {at: _apart(steps["oracle"].get(at), step, number) for at, step in steps[side].items()}
            for side in SIDES[:2]
        }
        allowed = FACTOR * allowance(None, list(errors["reference"].values()))
        wrong = next((at for at, error in errors["subject"].items() if not error <= allowed), None)
        if wrong is None:
            worst = max(errors["subject"].values(), default=math.nan)
            yield Check(
                name=name, state="agrees", detail=f"{len(errors['subject'])} steps, at most {_number(worst)} off"
            )
            continue
        exact = steps["oracle"].get(wrong)
        there = (
            f"{getattr(steps['subject'][wrong], number):.9g}, should be {getattr(exact, number):.9g}" if exact else ""
        )
        yield Check(name=name, state="differs", detail=f"first at step {wrong}: {there}")


def _apart(exact: Step | None, step: Step, number: str) -> float:
    return math.nan if exact is None else relative(float(getattr(exact, number)), float(getattr(step, number)))


def _named_check(checks: Sequence[Check]) -> Named | None:
    """The first of what comes after step 1 that differs."""
    wrong = next((check for check in checks if check.state == "differs"), None)
    return Named(place=wrong.name, says=wrong.detail, clue=None) if wrong else None


def record(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON values, numbers that are not finite by name."""
    named = diagnosis.named
    return {
        "case": diagnosis.case,
        "subject": diagnosis.subject,
        "sentence": diagnosis.sentence,
        "named": named and {
            "place": named.place,
            "says": named.says,
            "clue": named.clue,
            "reading": named.reading and _plain(named.reading),
        },
        "readings": [_plain(reading) for reading in diagnosis.readings],
        "checks": [vars(check) for check in diagnosis.checks],
        "built": list(diagnosis.built),
        "looks": {side: {**vars(look), "cost": look.cost} for side, look in diagnosis.looks.items()},
        "broken": diagnosis.broken,
    }  # fmt: skip


def _plain(reading: Reading) -> dict[str, Any]:
    values = {**vars(reading), "ratio": reading.ratio, "state": reading.state}
    return {key: encode_number(value) if isinstance(value, float) else value for key, value in values.items()}
