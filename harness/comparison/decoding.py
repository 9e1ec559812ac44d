"""Each side's steps with the cache against the oracle's full forward pass at the same position; they judge nothing.

Every side decodes the same given tokens, so no choice of a token hides or spreads an error. The rows are decoded from
their first token on; the prompts, with lengths around the sizes that buffers are rounded to, are read at once before.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT
from harness.comparison.distance import error_ratio, root_mean_square
from harness.comparison.measurement import Measurement, Tensors
from harness.comparison.outputs import ERROR, Logits, at_position, both, logits_of
from harness.comparison.scores import measured
from harness.runs.evaluation import DECODED, DECODED_BATCH
from harness.runs.trace import Run

SIDES = (("reference", REFERENCE), ("subject", SUBJECT))
NO_BORDERS = "no tokens were given after prompts: the case has no inference.borders"
WAYS = {DECODED: "alone", DECODED_BATCH: "in a batch"}


def measure_decoding(
    runs: Mapping[str, Run], tensors: Mapping[str, Tensors], lengths: Sequence[int]
) -> Iterator[Measurement]:
    """Relative errors against the oracle, and the subject's in errors of the reference.

    `oracle.cached.*`, by row: all positions of a row together, token by token. `oracle.decoded.*`, by prompt and
    position: the logits after a prompt of one of the `lengths`, and after each token that is decoded then. At some
    positions any rounding grows, so each is compared with the reference's error at the same one; a reference can be
    exact at one by chance, so its error counts as at least the root mean square over all of them.
    """
    every = [runs.get(name) for name in (ORACLE, REFERENCE, SUBJECT)]
    rows = _errors_of_rows(tensors)
    yield from _of_each_side(runs, "oracle.cached", rows)
    ratios = {place: error_ratio(one, rows["subject"][place]) for place, one in rows["reference"].items()}
    yield measured("oracle.cached.ratio", [*ratios], [*ratios.values()], *every)
    decoded = _errors_of_positions(tensors, lengths)
    yield from _of_each_side(runs, "oracle.decoded", decoded)
    ratios = _at_least_usual(decoded["reference"], decoded["subject"]) if lengths else {}
    found = measured("oracle.decoded.ratio", [*ratios], [*ratios.values()], *every)
    yield found if lengths else dataclasses.replace(found, missing=NO_BORDERS)


def _of_each_side(
    runs: Mapping[str, Run], name: str, errors: Mapping[str, Mapping[str, float]]
) -> Iterator[Measurement]:
    for side, run in SIDES:
        yield measured(f"{name}.{side}", [*errors[side]], [*errors[side].values()], runs.get(ORACLE), runs.get(run))


def _at_least_usual(reference: Mapping[str, float], subject: Mapping[str, float]) -> dict[str, float]:
    """The subject's error in errors of the reference; NaN at a place that one side lacks."""
    usual = root_mean_square([error for error in reference.values() if math.isfinite(error)] or [math.nan])
    places = {**reference, **subject}
    pairs = {place: (reference.get(place, math.nan), subject.get(place, math.nan)) for place in places}
    return {
        place: error_ratio(max(usual, one) if math.isfinite(one) else one, other)
        for place, (one, other) in pairs.items()
    }


def _errors_of_rows(tensors: Mapping[str, Tensors]) -> dict[str, dict[str, float]]:
    """By side and row; the rows are those that any side left."""
    exact = logits_of(tensors.get(ORACLE, {}), "logits")
    found = {side: logits_of(tensors.get(name, {}), "cached") for side, name in SIDES}
    rows = sorted({*exact, *(row for one in found.values() for row in one)})
    return {
        side: {f"row {row}": both(ERROR, exact.get(row), one.get(row)) for row in rows} for side, one in found.items()
    }


def _errors_of_positions(tensors: Mapping[str, Tensors], lengths: Sequence[int]) -> dict[str, dict[str, float]]:
    """By side and place: each prompt in each way at each position; NaN where a side left none."""
    exact = logits_of(tensors.get(ORACLE, {}), DECODED)
    errors: dict[str, dict[str, float]] = {side: {} for side, _ in SIDES}
    for side, name in SIDES:
        for kind, way in WAYS.items():
            found = logits_of(tensors.get(name, {}), kind)
            for n, length in enumerate(lengths):
                errors[side] |= _by_position(f"{length} tokens {way}", exact.get(n), found.get(n))
    return errors


def _by_position(prompt: str, exact: Logits | None, found: Logits | None) -> dict[str, float]:
    if exact is None or found is None or len(exact) != len(found):
        return {prompt: math.nan}
    return {
        f"{prompt}, {after} decoded": both(ERROR, at_position(exact, after), at_position(found, after))
        for after in range(len(exact))
    }
