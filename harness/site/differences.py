"""The table of differences: how far each model that was trained is from the reference, and what that took."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.comparison.measurement import Measurement
from harness.evidence.bundle import Bundle
from harness.evidence.judge import statistic
from harness.levels.scope import scope
from harness.report.provenance import most_memory
from harness.report.words import duration, number

NONE = "–"
LOSS, GRAD_NORM, GRADIENTS = "train.loss.relative", "train.grad_norm.relative", "oracle.gradients.ratio"


@dataclass(frozen=True, kw_only=True)
class DifferencesRow:
    """A bundle of training: relative differences of loss and grad norm of the first step and the largest of all; the
    largest error of a parameter's first gradient, in errors of the reference, and the parameter."""

    model: str
    device: str
    layout: str
    precision: str
    case: str
    steps: str
    loss: tuple[str, str]
    grad_norm: tuple[str, str]
    gradient: str
    parameter: str
    took: str
    memory: str


def differences(bundles: Iterable[Bundle]) -> Iterator[DifferencesRow]:
    """A row for each bundle of a task whose steps are judged."""
    for bundle in bundles:
        if bundle.case.task.judges_steps:
            yield _row(bundle)


def _row(bundle: Bundle) -> DifferencesRow:
    what, gradients = scope(bundle), bundle.comparison[GRADIENTS]
    worst = statistic("maximum", gradients.values) if gradients.values else None
    place = next((str(p) for p, v in zip(gradients.places, gradients.values, strict=True) if v == worst), "")
    return DifferencesRow(
        model=what.model,
        device=what.device,
        layout=what.layout,
        precision=what.precision,
        case=bundle.case.name,
        steps=number(bundle.case.training.steps),
        loss=_first_and_largest(bundle.comparison[LOSS]),
        grad_norm=_first_and_largest(bundle.comparison[GRAD_NORM]),
        gradient=NONE if worst is None else number(worst),
        parameter=place,
        took=duration(bundle.occasion.seconds),
        memory=most_memory(bundle) or NONE,
    )


def _first_and_largest(measured: Measurement) -> tuple[str, str]:
    """Of the first step, and of all."""
    if not measured.values:
        return NONE, NONE
    return _shown(measured.values[0]), _shown(statistic("maximum", measured.values))


def _shown(value: float) -> str:
    """A step that one side did not take is not a number."""
    return NONE if math.isnan(value) else number(value)
