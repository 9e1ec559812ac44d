"""Differences of two runs where at least one has printed digits only, and the differences that the digits could hide.

A loss may be the mean of several steps. Where the steps of the other run cover the same span, their mean is compared.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.comparison.distance import HALF_ULP, relative, signed
from harness.logs import PRINTED, ImportedRun, Printed
from harness.runs.trace import Trace

Result = Literal["same", "differs", "INCONCLUSIVE"]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A number that holds for the steps `first` to `last`."""

    first: int
    last: int
    number: Printed


@dataclass(frozen=True, kw_only=True)
class LogDifference:
    """The difference of two runs in one number.

    `hidden` is the largest difference that the digits could hide at a step; `first` is the first step with a larger
    one. The result is `same` only where both sides were written with every bit.
    """

    number: str
    compared: int
    alone: int  # spans without a counterpart on the other side
    mean: float  # of |subject - reference| / |reference|
    maximum: float
    bias: float
    hidden: float
    first: int | None

    @property
    def result(self) -> Result:
        if self.first is not None:
            return "differs"
        return "same" if self.compared and not self.alone and self.hidden == 0 else "INCONCLUSIVE"


def differences(reference: Trace | ImportedRun, subject: Trace | ImportedRun) -> list[LogDifference]:
    """The difference in each number; INCONCLUSIVE for a number that a side does not have."""
    return [_difference(name, _spans(reference, name), _spans(subject, name)) for name in PRINTED]


def _spans(run: Trace | ImportedRun, name: str) -> list[Span]:
    if isinstance(run, Trace):
        return [Span(first=s.step, last=s.step, number=Printed(getattr(s, name))) for s in run.steps]
    spans = list[Span]()
    for step in run.steps:
        number = getattr(step, name)
        if number is not None:
            over = step.over if name == "loss" else 1
            spans.append(Span(first=step.step - over + 1, last=step.step, number=number))
    return spans


def _difference(name: str, left: Sequence[Span], right: Sequence[Span]) -> LogDifference:
    pairs = list(_paired(left, right))
    relatives = [relative(a.value, b.value) for _, a, b, _ in pairs]
    signeds = [signed(a.value, b.value) for _, a, b, _ in pairs]
    used = sum(count for *_, count in pairs)
    return LogDifference(
        number=name,
        compared=len(pairs),
        alone=len(left) + len(right) - used,
        mean=float(np.mean(relatives)) if pairs else math.nan,
        maximum=float(np.max(relatives)) if pairs else math.nan,
        bias=float(np.mean(signeds)) if pairs else math.nan,
        hidden=max((a.resolution + b.resolution for _, a, b, _ in pairs), default=0.0),
        first=next((last for last, a, b, _ in pairs if _differs(a, b)), None),
    )


def _differs(a: Printed, b: Printed) -> bool:
    """Whether two numbers differ by more than their digits can hide. A number that is not finite always differs."""
    # the sum of the two resolutions is itself rounded
    return not abs(a.value - b.value) <= (a.resolution + b.resolution) * (1 + 1e-9)


def _paired(left: Sequence[Span], right: Sequence[Span]) -> Iterator[tuple[int, Printed, Printed, int]]:
    """Spans of both sides that cover the same steps: the last step, both means, and the number of spans used."""
    i = j = 0
    while i < len(left) and j < len(right):
        if left[i].first != right[j].first:
            i, j = (i + 1, j) if left[i].first < right[j].first else (i, j + 1)
            continue
        ends_i, ends_j = i + 1, j + 1
        while left[ends_i - 1].last != right[ends_j - 1].last:
            shorter_left = left[ends_i - 1].last < right[ends_j - 1].last
            side, end = (left, ends_i) if shorter_left else (right, ends_j)
            if end == len(side) or side[end].first != side[end - 1].last + 1:
                break
            ends_i, ends_j = (ends_i + 1, ends_j) if shorter_left else (ends_i, ends_j + 1)
        else:
            a, b = left[i:ends_i], right[j:ends_j]
            yield a[-1].last, _mean(a), _mean(b), len(a) + len(b)
            i, j = ends_i, ends_j
            continue
        # the spans do not end at the same step: continue after the shorter side
        i, j = (ends_i, j) if left[ends_i - 1].last < right[ends_j - 1].last else (i, ends_j)


def _mean(spans: Sequence[Span]) -> Printed:
    if len(spans) == 1:
        return spans[0].number
    lengths = [span.last - span.first + 1 for span in spans]
    value = float(np.average([span.number.value for span in spans], weights=lengths))
    resolution = float(np.average([span.number.resolution for span in spans], weights=lengths))
    # the other program may have computed its mean in float32
    return Printed(value, resolution + abs(value) * HALF_ULP * len(spans))
