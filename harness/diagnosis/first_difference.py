"""The first place that differs, in one sentence: what to look at, and what its tensor looks like."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.diagnosis.clues import Scene, clue, loss_clue
from harness.diagnosis.errors_by_place import ALLOWED_RATIO, Inside, Reading
from harness.runs.places import HEAD, LOSS


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


def name_first(inside: Inside, readings: Sequence[Reading]) -> Named | None:
    """The first place that differs, put into words."""
    first = next((reading for reading in readings if reading.state == "differs"), None)
    if first is None:
        return None
    if inside.sides["subject"].look.missing and first.direction == "parameter":
        return _by_parameters_alone(readings)
    if (left_out := _left_out(inside, first)) is not None:
        says = f"the step never comes by it, and {first.name} differs; missing?"
        return Named(place=left_out, says=says, clue="never come by", reading=first)
    found = _clue(inside, first)
    numbers = f"{shown(first.subject)} off the exact values, {shown(first.ratio)} times what is usual"
    place, what = first.name, "output" if first.direction == "forward" else "gradient"
    if first.direction == "backward":
        place, what = _maker(inside, first.name), f"the gradient that it hands down to {first.name}"
    says = _about(what, found, numbers)
    return Named(place=place, says=_guessed(says, place), clue=found, reading=first)


def _left_out(inside: Inside, first: Reading) -> str | None:
    """A module with weights that a wrong value should have come through, and that only the subject does not come by."""
    place = inside.places.get(first.name) if first.direction == "forward" else None
    for name in place.inputs if place else ():
        shown_by = [side for side in inside.sides if inside.tensor(side, "forward", name) is not None]
        if inside.places[name].parameter is not None and set(shown_by) == {"reference", "oracle"}:
            return name
    return None


def _maker(inside: Inside, name: str) -> str:
    """Whose derivative a gradient comes from: the modules that the value goes into."""
    return " or ".join(inside.consumers[name]) or name


def _by_parameters_alone(readings: Sequence[Reading]) -> Named:
    """Without a look inside, an error in one place is in the gradients of nearly all parameters."""
    judged = [reading for reading in readings if reading.state != "not seen" and reading.direction == "parameter"]
    wrong = [reading for reading in judged if reading.state == "differs"]
    worst = max(wrong, key=lambda one: one.ratio if math.isfinite(one.ratio) else math.inf)
    says = (
        f"gradient differs, and {len(wrong)} of {len(judged)} parameters' do; this one most, "
        f"{shown(worst.subject)} off the exact values. Nothing was seen inside the step, so where it begins is "
        "not known"
    )
    return Named(place=worst.name, says=says, clue=None, reading=worst)


def _clue(inside: Inside, reading: Reading) -> str | None:
    exact, given, reference = (
        inside.tensor(side, reading.direction, reading.name) for side in ("oracle", "subject", "reference")
    )
    assert exact is not None and given is not None and reference is not None, "a reading that differs has all three"
    if (reading.direction, reading.name) == ("forward", LOSS):
        logits, batch = inside.tensor("subject", "forward", HEAD), inside.batch
        if logits is not None:
            exact = np.asarray(inside.loss_of_own_logits("subject"))
            found = loss_clue(
                float(given), logits, batch["tokens"], batch["loss_mask"], ALLOWED_RATIO * reading.allowance
            )
            if found:
                return found
    scene = _scene(inside, reading, exact, given, reference)
    return clue(scene) or _tied_clue(inside, scene, reading)


def _scene(inside: Inside, reading: Reading, exact: Any, given: Any, reference: Any) -> Scene:
    place = inside.places.get(reading.name)
    inputs = place.inputs if place and reading.direction == "forward" else ()
    taken = {name: inside.tensor("subject", "forward", name) for name in inputs}
    prefix = f"{'gradient' if reading.direction == 'parameter' else reading.direction}."
    others = inside.sides["oracle"].tensors
    return Scene(
        name=reading.name,
        axes=place.axes if place else ("output channel", "input channel")[2 - exact.ndim :],
        subject=given,
        exact=exact,
        reference=reference,
        allowed=ALLOWED_RATIO * reading.allowance,
        taken={name: tensor for name, tensor in taken.items() if tensor is not None},
        elsewhere={name.removeprefix(prefix): t for name, t in others.items() if name.startswith(prefix)},
    )


def _tied_clue(inside: Inside, scene: Scene, reading: Reading) -> str | None:
    """A tied head's weight gets its gradient from two uses; one of them may be missing."""
    lookups = inside.tensor("oracle", "backward", "model.embed_tokens")
    if not inside.tied or reading.name != "model.embed_tokens.weight" or lookups is None:
        return None
    part = np.zeros(scene.exact.shape)
    np.add.at(part, inside.batch["tokens"][:, :-1], lookups)
    if scene.fits(part):
        return "it holds what comes from the lookups alone, not from the tied head"
    return "it holds what comes from the tied head alone" if scene.fits(scene.exact - part) else None


def _about(what: str, found: str | None, numbers: str) -> str:
    """A clue that begins with `it` is about the tensor; any other stands for itself."""
    if found is None:
        return f"{what} is {numbers}"
    if found.startswith("it "):
        return f"{what} {found.removeprefix('it ')}"
    return found if what == "output" else f"{what}: {found}"


def _guessed(says: str, place: str) -> str:
    """What a layer that passes its input on, or a gradient that is nowhere, comes from most often."""
    if says.startswith("output is identical to its input"):
        last = place.rpartition(".")[2]
        guess = "missing norm?" if "norm" in last else "not rotated?" if "rotary" in place else "left out?"
        return f"{says}; {guess}"
    return f"{says}; detached?" if "gradient" in says and "is zero everywhere" in says else says


def shown(value: float | None) -> str:
    """A number of a sentence."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
