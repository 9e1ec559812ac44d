"""The first place that differs, in one sentence: the place, its error, and a clue to the fault."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.diagnosis.clues import Scene, clue, loss_clue
from harness.diagnosis.common_cause import common_cause
from harness.diagnosis.errors_by_place import ALLOWED_RATIO, Reading, TappedStep, tensor_name
from harness.runs.places import HEAD, LOSS

CONSEQUENCES = ("loss", "grad norm")  # checks of what a step gives, by name
LAYER = re.compile(r"model\.layers\.\d+")


@dataclass(frozen=True, kw_only=True)
class Named:
    """The first place at which the subject differs.

    `place` is a module, a parameter, or a check. `reading` holds the numbers, if there are any. If a gradient arrives
    wrong, `place` is the module whose derivative computed it, and `reading.name` is where it arrived. If all gradients
    of parameters have one cause, `place` is that of the cause.
    """

    place: str
    finding: str
    clue: str | None
    reading: Reading | None = None

    @property
    def sentence(self) -> str:
        return f"{self.place}: {self.finding}"

    @property
    def is_cause(self) -> bool:
        """Whether it is no consequence: the numbers of steps show that something is wrong, and not what."""
        return self.reading is not None or self.place not in CONSEQUENCES


def name_first(step: TappedStep, readings: Sequence[Reading]) -> Named | None:
    """The first place that differs, with its finding."""
    first = next((reading for reading in readings if reading.state == "differs"), None)
    if first is None:
        return None
    if (cause := common_cause(step, readings)) is not None:
        return Named(place=cause.place, finding=cause.finding, clue=cause.clue, reading=cause.reading)
    if step.sides["subject"].taps.missing and first.direction == "parameter":
        return _by_parameters_alone(readings)
    # A dump does not have every module, so what it lacks may still be called.
    if step.sides["subject"].dump is None and (uncalled := _uncalled(step, first)) is not None:
        finding = f"this module is never called in the step, and {first.name} differs; missing?"
        return Named(place=uncalled, finding=finding, clue="never called", reading=first)
    found = _clue(step, first)
    numbers = f"{shown(first.subject)} off the exact values, {shown(first.ratio)} times the usual error"
    place, what = first.name, "output" if first.direction == "forward" else "gradient"
    if first.direction == "backward":
        place, what = _backward_of(step, first.name), f"the gradient that it passes to {first.name}"
    finding = _about(what, found, numbers)
    return Named(place=place, finding=_with_guess(finding, place), clue=found, reading=first)


def _uncalled(step: TappedStep, first: Reading) -> str | None:
    """An input module with weights of a wrong value that reference and oracle call and the subject does not."""
    place = step.places.get(first.name) if first.direction == "forward" else None
    for name in place.inputs if place else ():
        recorded_by = {side for side in step.sides if step.recorded(side, "forward", name)}
        if step.places[name].parameter is not None and recorded_by == {"reference", "oracle"}:
            return name
    return None


def _backward_of(step: TappedStep, name: str) -> str:
    """The modules whose derivative computes a value's gradient: those that take the value."""
    return " or ".join(step.consumers[name]) or name


def _by_parameters_alone(readings: Sequence[Reading]) -> Named:
    """The parameter that differs most: without taps, an error in one place is in nearly all parameters' gradients."""
    judged = [reading for reading in readings if reading.state != "not recorded" and reading.direction == "parameter"]
    wrong = [reading for reading in judged if reading.state == "differs"]
    worst = max(wrong, key=lambda one: one.ratio if math.isfinite(one.ratio) else math.inf)
    finding = (
        f"gradient differs; {len(wrong)} of {len(judged)} parameters differ, this one most, "
        f"{shown(worst.subject)} off the exact values. The step was not tapped, so the first wrong place is unknown"
    )
    return Named(place=worst.name, finding=finding, clue=None, reading=worst)


def _clue(step: TappedStep, reading: Reading) -> str | None:
    exact, given, reference = (
        step.tensor(side, reading.direction, reading.name) for side in ("oracle", "subject", "reference")
    )
    if exact is None or given is None or reference is None:
        return None  # of a case that keeps no tensors; see `tensors_for_a_clue`
    if (reading.direction, reading.name) == ("forward", LOSS):
        logits, batch = step.tensor("subject", "forward", HEAD), step.batch
        if logits is not None:
            exact = np.asarray(step.loss_of_own_logits("subject"))
            found = loss_clue(
                float(given), logits, batch["tokens"], batch["loss_mask"], ALLOWED_RATIO * reading.allowance
            )
            if found:
                return found
    scene = _scene(step, reading, exact, given, reference)
    return clue(scene) or _tied_clue(step, scene, reading)


def tensors_for_a_clue(step: TappedStep, reading: Reading) -> tuple[str, ...]:
    """The tensors that a clue about a place needs: its own, those that it is computed from, and the others of its
    layer, whose values it may hold."""
    place, layer = step.places.get(reading.name), LAYER.match(reading.name)
    inputs = place.inputs if place is not None else ()
    neighbours = [name for name in step.places if layer and name.startswith(f"{layer[0]}.")]
    found = [(reading.direction, reading.name), *(("forward", name) for name in inputs)]
    if reading.direction == "parameter":
        found += [("backward", "model.embed_tokens")] if step.tied else []
    else:
        found += [(reading.direction, name) for name in neighbours]
    return tuple(dict.fromkeys(tensor_name(*one) for one in found))


def _scene(step: TappedStep, reading: Reading, exact: Any, given: Any, reference: Any) -> Scene:
    place = step.places.get(reading.name)
    names = place.inputs if place and reading.direction == "forward" else ()
    inputs = {name: step.tensor("subject", "forward", name) for name in names}
    prefix = tensor_name(reading.direction, "")
    others = step.sides["oracle"].tensors
    return Scene(
        name=reading.name,
        axes=place.axes if place else ("output channel", "input channel")[2 - exact.ndim :],
        subject=given,
        exact=exact,
        reference=reference,
        allowed=ALLOWED_RATIO * reading.allowance,
        inputs={name: tensor for name, tensor in inputs.items() if tensor is not None},
        elsewhere={
            name.removeprefix(prefix): t for name, t in others.items() if name.startswith(prefix) and "#" not in name
        },
    )


def _tied_clue(step: TappedStep, scene: Scene, reading: Reading) -> str | None:
    """A tied weight gets its gradient from two uses, the embedding and the head; one may be missing."""
    lookups = step.tensor("oracle", "backward", "model.embed_tokens")
    if not step.tied or reading.name != "model.embed_tokens.weight" or lookups is None:
        return None
    part = np.zeros(scene.exact.shape)
    np.add.at(part, step.batch["tokens"][:, :-1], lookups)
    if scene.fits(part):
        return "it holds the part of the embedding only, not that of the tied head"
    return "it holds the part of the tied head only" if scene.fits(scene.exact - part) else None


def _about(what: str, found: str | None, numbers: str) -> str:
    """A clue that begins with `it` gets `what` as its subject; any other is a sentence of its own."""
    if found is None:
        return f"{what} is {numbers}"
    if found.startswith("it "):
        return f"{what} {found.removeprefix('it ')}"
    return found if what == "output" else f"{what}: {found}"


def _with_guess(finding: str, place: str) -> str:
    """Adds the usual cause of an output that equals its input, or of a zero gradient."""
    if finding.startswith("output is identical to its input"):
        last = place.rpartition(".")[2]
        guess = "missing norm?" if "norm" in last else "not rotated?" if "rotary" in place else "skipped?"
        return f"{finding}; {guess}"
    return f"{finding}; detached?" if "gradient" in finding and "is zero everywhere" in finding else finding


def shown(value: float | None) -> str:
    """A number, as text."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
