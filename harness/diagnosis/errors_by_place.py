"""Both sides' errors at every place of step 1, measured against the oracle, and the error allowed there.

Places are judged in the order of computation: values in the order of the forward pass, then gradients from the loss
down, each parameter's gradient right after that of its module's output. So all before the first wrong place is right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from harness.cases.case import Case
from harness.comparison.distance import HALF_ULP, relative
from harness.comparison.left import difference
from harness.diagnosis.dumps import Statistics, statistics_error
from harness.runs.places import HEAD, LOSS, Direction, places
from harness.runs.sketches import SKETCH, sketched
from harness.runs.taps import TapRecord, exact_loss
from harness.runs.trace import Run, Side, Step

Tensors = Mapping[str, npt.NDArray[Any]]
ReadingState = Literal["agrees", "differs", "not recorded"]

# A correct subject's error was at most 2.8 times the allowance, at every place of the four shipped cases in float32 and
# bfloat16 (docs/design/diagnosis.md); `strict-fp32` also allows 10 for the largest ratio of a gradient.
ALLOWED_RATIO = 10.0
SIDES: tuple[Side, ...] = ("reference", "subject", "oracle")


@dataclass(frozen=True, kw_only=True)
class TappedRun:
    """A tapped run of one side, its tensors, and the record of its taps. In place of a run of the subject there may be
    a dump of another tool: `dump` describes it, `statistics` are of tensors that it does not have, and `omitted` are
    modules that have no place."""

    run: Run
    tensors: Tensors
    taps: TapRecord
    dump: str | None = None
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()

    @property
    def left(self) -> bool:
        """Whether it left anything of a step."""
        return bool(self.tensors or self.statistics)

    def steps(self) -> tuple[Step, ...]:
        return self.run.trace.steps if self.run.trace else ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Both sides' relative errors at one place, and the `allowance` there.

    `subject` or `reference` is None where that side did not record the place.
    """

    name: str
    direction: Direction
    subject: float | None
    reference: float | None
    allowance: float

    @property
    def ratio(self) -> float:
        """The subject's error over the allowance; NaN where the subject's tensor is not finite."""
        return math.nan if self.subject is None else self.subject / self.allowance

    @property
    def state(self) -> ReadingState:
        if self.subject is None or self.reference is None:
            return "not recorded"
        return "agrees" if self.ratio <= ALLOWED_RATIO else "differs"


def allowance(own: float | None, before: Sequence[float]) -> float:
    """The unit of a correct implementation's error at a place: the largest of the reference's error there, its errors
    at the inputs, and half a unit in the last place of float32.

    The reference may be exact at a place by chance, but the errors of its inputs are not chance. Errors that are not
    finite are ignored: a reference with NaN allows nothing.
    """
    return max([HALF_ULP, *(error for error in (own, *before) if error is not None and math.isfinite(error))])


class TappedStep:
    """Step 1 of three sides, place by place; `consumers` are the places that take a place's value."""

    def __init__(self, case: Case, sides: Mapping[Side, TappedRun], batch: Tensors) -> None:
        rows, length = case.data.global_batch_size, case.data.seq_length
        self.places = {place.name: place for place in places(case.model, rows, length)}
        self.sides, self.batch = sides, batch
        self.tied = case.model.tie_word_embeddings
        self.consumers: dict[str, list[str]] = {name: [] for name in self.places}
        for place in self.places.values():
            for name in place.inputs:
                self.consumers[name].append(place.name)

    def readings(self) -> Iterator[Reading]:
        """The readings in the order in which they are judged: forward, then backward with the parameters in between."""
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

        for place in self.places.values():
            yield reading("forward", place.name, [] if place.name == LOSS else [("forward", i) for i in place.inputs])
        for place in reversed([place for place in self.places.values() if place.gradient]):
            yield reading("backward", place.name, [("backward", name) for name in self.consumers[place.name]])
            if place.parameter is not None:
                before: list[tuple[Direction, str]] = [("backward", place.name)]
                yield reading("parameter", place.parameter, [*before, *(("forward", i) for i in place.inputs)])

    def _errors(self, direction: Direction, name: str) -> tuple[float | None, float | None]:
        """The relative errors of reference and subject.

        The loss is measured against the exact loss of the same side's logits: its sum averages errors away, sometimes
        to zero, so the reference's error against the oracle would allow too little.
        """
        if (direction, name) == ("forward", LOSS) and all(self.recorded(side, "forward", HEAD) for side in SIDES):
            return self._loss_error("reference"), self._loss_error("subject")
        return self._error("reference", direction, name), self._error("subject", direction, name)

    def _error(self, side: Side, direction: Direction, name: str) -> float | None:
        if not (self.recorded("oracle", direction, name) and self.recorded(side, direction, name)):
            return None
        full = tensor_name(direction, name)
        exact, found = (self.sides[one].tensors for one in ("oracle", side))
        if full in self.sides[side].statistics:
            return statistics_error(exact[full], self.sides[side].statistics[full])
        return difference(full, exact, found)[0]

    def _loss_error(self, side: Side) -> float | None:
        loss = self.tensor(side, "forward", LOSS)
        return None if loss is None else relative(self.loss_of_own_logits(side), float(loss))

    def loss_of_own_logits(self, side: Side) -> float:
        """The exact loss of a side's own logits; NaN where they are of another shape."""
        logits, mask = self.tensor(side, "forward", HEAD), self.batch["loss_mask"]
        if logits is None:
            stated = self.sides[side].taps.loss_of_logits
            return math.nan if stated is None else stated
        return exact_loss(logits, self.batch["tokens"][:, 1:], mask, float(mask.sum()))

    def recorded(self, side: Side, direction: Direction, name: str) -> bool:
        """Whether a side left its tensor at a place, or a sketch of it."""
        full, left = tensor_name(direction, name), self.sides[side].tensors
        return full in left or f"{full}{SKETCH}" in left or full in self.sides[side].statistics

    def before(self, name: str) -> frozenset[str]:
        """A place and all that it is computed from: where its gradient goes."""
        found, rest = set[str](), [name]
        while rest:
            if (one := rest.pop()) not in found:
                found.add(one)
                rest += self.places[one].inputs
        return frozenset(found)

    def left(self, side: Side, direction: Direction, name: str) -> npt.NDArray[Any] | None:
        """A side's tensor at a place or, where it left none, the sums of its sketch, which are linear in it."""
        full, left = tensor_name(direction, name), self.sides[side].tensors
        sketch = sketched(left, full)
        return left.get(full) if sketch is None else sketch.buckets

    def tensor(self, side: Side, direction: Direction, name: str) -> npt.NDArray[Any] | None:
        """A side's tensor at a place, if it left the tensor itself."""
        return self.sides[side].tensors.get(tensor_name(direction, name))


def tensor_name(direction: Direction, name: str) -> str:
    """What a tapped run calls its tensor at a place."""
    return f"{'gradient' if direction == 'parameter' else direction}.{name}"
