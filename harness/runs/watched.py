"""What a training run leaves of its steps besides its numbers, by the names of its tensors in a file.

At every step, of each parameter and of its first moment, the part along a fixed direction: one number. Of the steps
that the case examines, a sketch of each gradient and of each update. Of the whole run, a sketch of the change of each
parameter, and its part along the initial weights.

The first moment m of Adam is b m' + (1 - b) g, where m' is that of the step before and g the gradient by which the
parameters were updated, clipped. So its change shows that gradient, and not one that is computed another time.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

WATCHED = "watched."  # what all their names begin with
PARAMETERS, MOMENTS = f"{WATCHED}parameter.", f"{WATCHED}moment."  # NAME: float64 [steps + 1], from before the first
CHANGED = f"{WATCHED}change."
OPERATOR = f"{WATCHED}operator."  # of a probe; NAME: float64 [3], what `harness.runs.operators.probed` gives
Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


def gradients_at(step: int) -> str:
    """The prefix of the sketches of a step's gradients."""
    return f"{WATCHED}gradient.{step}."


def updates_at(step: int) -> str:
    """The prefix of the sketches of a step's updates."""
    return f"{WATCHED}update.{step}."


def split(left: Tensors) -> tuple[dict[str, Array], dict[str, Array]]:
    """What a run left of its tensors, and what it left of its steps."""
    steps = {name: tensor for name, tensor in left.items() if name.startswith(WATCHED)}
    return {name: tensor for name, tensor in left.items() if name not in steps}, steps
