"""The common cause of many wrong gradients: a factor that all of them have, or the place from which on all are wrong.

One wrong value near the loss makes nearly every gradient of a parameter wrong. Then the largest error says nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.diagnosis.errors_by_place import ALLOWED_RATIO, Reading, TappedStep
from harness.runs.places import HEAD

EVERY = "every gradient"  # the place of a cause outside the model


@dataclass(frozen=True, kw_only=True)
class CommonCause:
    """Where gradients go wrong, and how; `reading` is the first wrong one from the loss down."""

    place: str
    finding: str
    clue: str
    reading: Reading


def common_cause(step: TappedStep, readings: Sequence[Reading]) -> CommonCause | None:
    """The cause that several wrong gradients of parameters have in common, or None.

    It is sought where no recorded value differs. With taps, a gradient that arrives wrong without a common factor is
    left to the first place that differs.
    """
    every = [reading for reading in readings if reading.state != "not recorded"]
    if any(reading.state == "differs" for reading in every if reading.direction == "forward"):
        return None
    judged = [reading for reading in every if reading.direction == "parameter"]
    wrong = [reading for reading in judged if reading.state == "differs"]
    inside = [reading.state for reading in every if reading.direction == "backward"]
    if len(wrong) < 2:
        return None
    if len(wrong) == len(judged):
        return _of_every(step, wrong, inside)
    return None if inside else _from_a_place(step, wrong, judged)


def _of_every(step: TappedStep, wrong: Sequence[Reading], inside: Sequence[str]) -> CommonCause | None:
    factor = _common_factor(step, wrong)
    arrives = "differs" in inside
    if arrives and factor is None:
        return None
    what = "differs, without a common factor" if factor is None else f"is {factor:.6g} times what it should be"
    where = "the loss, its scale, or what sums and scales gradients after the backward pass"
    if factor is None:
        where = "the forward pass, the loss, or what is done to gradients after the backward pass"
    if arrives:
        where = f"from {HEAD} on: the scale of the loss, or its derivative"
    elif inside:
        where = "those inside the step are right: what sums, scales or rounds gradients after the backward pass"
    finding = f"{EVERY} of {len(wrong)} {what}; {where}"
    return CommonCause(place="loss" if arrives else EVERY, finding=finding, clue=what, reading=wrong[0])


def _common_factor(step: TappedStep, wrong: Sequence[Reading]) -> float | None:
    """The number by which every gradient is multiplied, if all are multiples of the exact ones by the same number."""
    found = []
    for reading in wrong:
        pair = [step.left(side, reading.direction, reading.name) for side in ("subject", "oracle")]
        factor = _factor(*pair, allowed=ALLOWED_RATIO * reading.allowance)
        if factor is None:
            return None
        found.append((factor, ALLOWED_RATIO * reading.allowance))
    middle = float(np.median([factor for factor, _ in found]))
    same = all(abs(factor - middle) <= 2 * allowed * abs(middle) for factor, allowed in found)
    return middle if same and middle else None


def _factor(given: Any, exact: Any, *, allowed: float) -> float | None:
    if given is None or exact is None or given.shape != exact.shape or not np.isfinite(given).all():
        return None
    given, exact = given.astype(np.float64), exact.astype(np.float64)
    square = float(np.square(exact).sum())
    factor = float((given * exact).sum()) / square if square else 0.0
    left = float(np.linalg.norm(given - factor * exact))
    return factor if left <= allowed * abs(factor) * square**0.5 else None


def _from_a_place(step: TappedStep, wrong: Sequence[Reading], judged: Sequence[Reading]) -> CommonCause | None:
    """The place nearest to the loss whose gradient reaches exactly the parameters that are wrong."""
    names, known = {reading.name for reading in wrong}, {reading.name for reading in judged}
    for place in reversed(list(step.places.values())):
        if {step.places[name].parameter for name in step.before(place.name)} & known == names:
            takes = step.consumers[place.name]
            # The gradient of its own weight is wrong, so what arrives is wrong; otherwise it may be its own derivative.
            where = " or ".join(takes if place.parameter else [place.name, *takes])
            finding = (
                f"the gradients of the {len(wrong)} parameters before it differ, and those of the "
                f"{len(judged) - len(wrong)} others do not. The step was not tapped, so this follows from them alone"
            )
            return CommonCause(place=where, finding=finding, clue="all before it differ", reading=wrong[0])
    return None
