"""The elementary operators of both sides on their devices, and which of them are biased.

They are measured by themselves, on inputs that are the same everywhere. A subject that is written rightly and fails by
accuracy often fails by one of them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from harness.cases.runs_of_a_case import REFERENCE_PROBE, SUBJECT_PROBE
from harness.comparison.measurement import Comparison, Measurement, Tensors, why_broken, why_missing
from harness.runs.operators import MEASURED
from harness.runs.trace import Run
from harness.runs.watched import OPERATOR

PROBES = {"reference": REFERENCE_PROBE, "subject": SUBJECT_PROBE}
NOT_SHOWN = "the operators of the framework were not measured"
# An operator is biased if its mean error is this many times that of the reference, or of a quarter of a rounding: the
# mean of thousands of correct roundings is far below one.
ROUNDING, FACTOR = 2.0**-26, 4.0
INSTEAD: Mapping[str, str] = {
    "exp": "1 + expm1(x)",
    "softmax": "1 + expm1 of the differences, divided by their sum",
    "log_softmax": "the differences less log of the sum of 1 + expm1",
    "logsumexp": "the largest plus log of the sum of 1 + expm1",
    "log": "log1p(x - 1)",
    "sigmoid": "1 / (2 + expm1(-x))",
}


def of_operators(runs: Mapping[str, Run], steps: Mapping[str, Tensors]) -> Iterable[Measurement]:
    """`SIDE.operators.bias`, `.error` and `.largest`, by operator: the mean signed relative error, the root mean square
    and the largest."""
    for side, probe in PROBES.items():
        left = {name: values for name, values in steps.get(probe, {}).items() if name.startswith(OPERATOR)}
        names = sorted(name for name, values in left.items() if values.shape == (len(MEASURED),))
        missing = why_missing(runs.get(probe)) or (None if names else NOT_SHOWN)
        for number, what in enumerate(MEASURED):
            yield Measurement(
                name=f"{side}.operators.{what}",
                places=tuple(name.removeprefix(OPERATOR) for name in names) if missing is None else (),
                values=tuple(float(left[name][number]) for name in names) if missing is None else (),
                missing=missing,
                broken=why_broken(runs.get(probe)),
            )


def biased(comparison: Comparison) -> Iterator[str]:
    """A sentence about the operators of the subject whose results lie to one side of the exact ones, if any do."""
    reference, subject = (_biases(comparison, side) for side in PROBES)
    found = {
        name: bias
        for name, bias in subject.items()
        if not math.isfinite(bias) or abs(bias) > FACTOR * max(abs(reference.get(name, 0.0)), ROUNDING)
    }
    if not found:
        return
    every = [
        f"{name} by {bias:+.2g}, the reference's by {reference.get(name, math.nan):+.2g}"
        + (f" (use {INSTEAD[name]})" if name in INSTEAD else "")
        for name, bias in found.items()
    ]
    yield (
        f"On this device these operators of the subject's framework are off on average: {'; '.join(every)}. If the "
        "subject uses one, what sums its results inherits that."
    )


def _biases(comparison: Comparison, side: str) -> dict[str, float]:
    name = f"{side}.operators.bias"
    if name not in comparison:
        return {}
    return {str(place): value for place, value in zip(comparison[name].places, comparison[name].values, strict=True)}
