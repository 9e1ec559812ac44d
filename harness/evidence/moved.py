"""Where the numbers of a subject began to differ between two bundles of one case.

Read from what both recorded: the settings that were built, the elementary operators of the framework, the gradients of
the first batch, the update by given gradients, the steps, and their times. Each is a sentence; none is a verdict.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.cases.runs_of_a_case import REFERENCE, SUBJECT, SUBJECT_PROBE
from harness.evidence.bundle import Bundle
from harness.runs.files import GRADIENT, UPDATED
from harness.runs.operators import MEASURED
from harness.runs.trace import Run, Step

# Times are of two occasions on a machine that others may use: less than this says nothing, and of each the fastest
# step counts.
SLOWER = 1.5
NAMED = 4
FIRST_TIMED = 2  # the first step may compile


def moved(a: Bundle, b: Bundle) -> tuple[str, ...]:
    """What differs in the subject from bundle to bundle, from what is built to what it costs."""
    looks = (_settings, _operators, _first_step, _optimizer, _steps, _times)
    return tuple(sentence for look in looks for sentence in look(a, b))


def _settings(a: Bundle, b: Bundle) -> Iterator[str]:
    before, after = (_header(one, "alignment") for one in (a, b))
    changed = [name for name in before if name in after and before[name] != after[name]]
    if changed:
        listed = _listed([f"{name} {before[name]} -> {after[name]}" for name in changed])
        yield f"Another setting was built: {listed}"


def _header(bundle: Bundle, field: str) -> Mapping[str, Any]:
    run = bundle.runs.get(SUBJECT)
    found: Mapping[str, Any] = getattr(run.trace.header, field) if run is not None and run.trace is not None else {}
    return found


def _operators(a: Bundle, b: Bundle) -> Iterator[str]:
    before, after = _of_operators(a), _of_operators(b)
    shared = [name for name in before if name in after]
    other = {name: math.dist(before[name], after[name]) for name in shared if before[name] != after[name]}
    if other:
        names = sorted(other, key=lambda name: -other[name])
        listed = _listed([f"{name} (bias {before[name][0]:+.2g} -> {after[name][0]:+.2g})" for name in names])
        yield f"Operators of the framework with other results, the most changed first: {listed}"
    elif shared:
        yield f"The {len(shared)} operators of the framework that were probed have the same errors"


def _of_operators(bundle: Bundle) -> dict[str, tuple[float, ...]]:
    """Mean signed, root mean square and largest error of each operator of the subject's framework."""
    found: dict[str, tuple[float, ...]] = {}
    for what in MEASURED:
        name = f"subject.operators.{what}"
        if name in bundle.comparison:
            measured = bundle.comparison[name]
            for place, value in zip(measured.places, measured.values, strict=True):
                found[str(place)] = (*found.get(str(place), ()), value)
    return found


def _first_step(a: Bundle, b: Bundle) -> Iterator[str]:
    before, after = _digests(a, GRADIENT), _digests(b, GRADIENT)
    if not before or not after:
        return
    other = sorted((name for name in before if before[name] != after.get(name)), key=_backward)
    if not other:
        yield "The gradients of the first batch have the same bits"
        return
    if len(other) == len(before):
        yield "The gradients of the first batch differ in every parameter: the forward pass or the loss differs"
        return
    yield (
        f"The gradients of the first batch differ in {len(other)} of {len(before)} parameters; in the order of the "
        f"backward pass first in {other[0]}"
    )


def _optimizer(a: Bundle, b: Bundle) -> Iterator[str]:
    before, after = _digests(a, UPDATED), _digests(b, UPDATED)
    other = [name for name in before if name in after and before[name] != after[name]]
    if other:
        yield f"By the same given gradients the optimizer makes other parameters: {_listed(other)}"


def _digests(bundle: Bundle, prefix: str) -> dict[str, str]:
    run = bundle.runs.get(SUBJECT_PROBE)
    if run is None or run.trace is None or run.trace.footer is None:
        return {}
    left = run.trace.footer.parameters
    return {name.removeprefix(prefix): digest for name, digest in left.items() if name.startswith(prefix)}


def _backward(name: str) -> tuple[int, str]:
    """The order in which a backward pass comes by the parameters: head, last norm, layers from the last, embedding."""
    layer = re.search(r"layers\.(\d{1,9})\.", name)
    if layer:
        return 10_000 - int(layer[1]), name
    return (20_000 if "embed_tokens" in name else 0 if name.startswith("lm_head") else 1), name


def _steps(a: Bundle, b: Bundle) -> Iterator[str]:
    before, after = (_by_step(one.runs.get(SUBJECT)) for one in (a, b))
    for number, step in before.items():
        other = after.get(number)
        if other is None:
            continue
        names = [name for name in ("loss", "grad_norm", "learning_rate") if getattr(step, name) != getattr(other, name)]
        if names:
            pairs = _listed([f"{name} {getattr(step, name)!r} -> {getattr(other, name)!r}" for name in names])
            yield f"The steps differ from step {number} on: {pairs}"
            return
    if before and after:
        yield "Every step has the same bits"


def _by_step(run: Run | None) -> dict[int, Step]:
    lines = run.trace.lines if run is not None and run.trace is not None else ()
    return {line.step: line for line in lines if isinstance(line, Step)}


def _times(a: Bundle, b: Bundle) -> Iterator[str]:
    """Where the reference was timed too, the change of its time is that of the machine."""
    before, after = _seconds(a, SUBJECT), _seconds(b, SUBJECT)
    machine = [_seconds(one, REFERENCE) for one in (a, b)]
    if before is None or after is None:
        return
    ratio, of_machine = after / before, None
    if a.baseline is None and b.baseline is None and machine[0] and machine[1]:
        of_machine = machine[1] / machine[0]
    if ratio / (of_machine or 1.0) > SLOWER:
        by = f"; the reference's {of_machine:.2f} times" if of_machine else ""
        yield f"The fastest step takes {ratio:.2f} times as long ({before:.3g} s -> {after:.3g} s){by}"


def _seconds(bundle: Bundle, run: str) -> float | None:
    timing = bundle.timings.get(run)
    steps = [seconds for number, seconds in timing.steps if number >= FIRST_TIMED] if timing else []
    return min(steps) if steps and min(steps) > 0 else None


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return "; ".join(words[:NAMED]) + more
