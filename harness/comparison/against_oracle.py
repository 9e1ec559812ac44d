"""Both sides compared with the oracle: errors, their ratio, and distances in errors of the reference.

Takes the runs that were made and the tensors of probes, gives measurements; judges nothing.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from harness.cases.runs_of_a_case import ORACLE, ORACLE_PROBE, REFERENCE, REFERENCE_PROBE, SUBJECT, SUBJECT_PROBE
from harness.comparison.catalogue import EXACT, KINDS, SIDES, STANDARD_ERRORS, Kind
from harness.comparison.distance import HALF_ULP, error_ratio, relative, root_mean_square
from harness.comparison.left import change_difference, difference, names_of, norm_of
from harness.comparison.lines import is_matrix, line_errors
from harness.comparison.located import located, located_lines
from harness.comparison.measurement import Measurement, Place, Tensors, steps_of, why_broken, why_missing
from harness.runs.files import GRADIENT, UPDATED
from harness.runs.trace import Run

Find = Callable[[str, Tensors, Tensors, Tensors], str | None]
# The ratio of errors from which a part that differs is looked for; no standard allows less.
SUSPECT, SUSPECT_LINES = 2.0, 4.0


def against_oracle(
    runs: Mapping[str, Run],
    tensors: Mapping[str, Tensors],
    distances: Mapping[str, Measurement],
    *,
    required: Sequence[str],
    head_dim: int | None = None,
) -> Iterable[Measurement]:
    """`oracle.WHAT.reference` and `.subject`: the relative error of each side against the oracle; `.ratio`: the
    subject's error divided by the reference's. WHAT is `loss` and `grad_norm`, by step; `gradients` of the first batch,
    by tensor; `updates` by the optimizer alone from given gradients, by tensor.

    `distances` holds the differences of the sides (`train.*` and `lr_zero.*`), which are also given in errors of the
    reference. Where no run of the oracle is `required` besides its probe, the first step is compared, and nothing is
    given in errors of the reference, because a single one may be small by chance.

    Of a gradient whose ratio is far from 1, the measurement states which rows, columns or heads differ; `head_dim` is
    how many rows a head has.
    """
    oracle = ORACLE if ORACLE in required else ORACLE_PROBE
    trained, probes = (oracle, REFERENCE, SUBJECT), (ORACLE_PROBE, REFERENCE_PROBE, SUBJECT_PROBE)
    for number in EXACT:
        curves = [{step.step: float(getattr(step, number)) for step in steps_of(runs.get(name))} for name in trained]
        places = tuple(place for place in sorted(set().union(*curves)) if place <= _goes_to(runs.get(oracle)))
        errors = [
            tuple(relative(curves[0].get(place, math.nan), curve.get(place, math.nan)) for place in places)
            for curve in curves[1:]
        ]
        found = {one.name: one for one in _double(f"oracle.{number}", places, errors, list(map(runs.get, trained)))}
        yield from found.values()
        yardstick = found[f"oracle.{number}.reference"]
        if oracle == ORACLE_PROBE:
            yardstick = dataclasses.replace(yardstick, places=(), values=(), missing="the oracle took no steps")
        yield from _in_errors_of_the_reference(number, {**distances, **found, yardstick.name: yardstick})
    sources = [tensors.get(name) for name in probes]
    for what, prefix in (("gradients", GRADIENT), ("updates", UPDATED)):
        names = tuple(sorted(set().union(*(names_of(source, prefix) for source in sources if source))))
        errors = [
            tuple(_tensor_error(name, prefix, sources[0], source, tensors.get("weights")) for name in names)
            for source in sources[1:]
        ]
        bare = tuple(name.removeprefix(prefix) for name in names)
        for one in _double(f"oracle.{what}", bare, errors, [runs.get(name) for name in probes]):
            find = functools.partial(located, head_dim=head_dim)
            within = _parts(sources, one, SUSPECT, find) if prefix == GRADIENT else {}
            yield dataclasses.replace(one, within=within)
    yield from _of_lines(sources, [runs.get(name) for name in probes], head_dim)
    yield _probe_norms(runs, tensors)


def _of_lines(
    sources: Sequence[Tensors | None], made: Sequence[Run | None], head_dim: int | None
) -> Iterable[Measurement]:
    """Of each matrix, the largest error of a row or column relative to its size."""
    named = {name for one in sources if one for name in names_of(one, GRADIENT) if is_matrix(name, one)}
    exact, *sides = sources
    names = tuple(sorted(named))
    errors = [tuple(_largest_of_lines(name, exact, side) for name in names) for side in sides]
    for one in _double("oracle.lines", tuple(name.removeprefix(GRADIENT) for name in names), errors, made):
        find = functools.partial(located_lines, beyond=SUSPECT_LINES, head_dim=head_dim)
        yield dataclasses.replace(one, within=_parts(sources, one, SUSPECT_LINES, find))


def _largest_of_lines(name: str, exact: Tensors | None, found: Tensors | None) -> float:
    """NaN if a number is not a number, or one side left no such matrix."""
    both = line_errors(name, exact, found) if exact and found else None
    return math.nan if both is None else float(np.max(np.concatenate(both), initial=0.0))


def _parts(sources: Sequence[Tensors | None], measured: Measurement, suspect: float, find: Find) -> dict[Place, str]:
    """Which part of each gradient differs whose ratio of errors is beyond `suspect`, where it can be told."""
    exact, reference, subject = sources
    if not measured.name.endswith(".ratio") or not (exact and reference and subject):
        return {}
    beyond = [place for place, value in zip(measured.places, measured.values, strict=True) if not value <= suspect]
    found = {place: find(f"{GRADIENT}{place}", exact, reference, subject) for place in beyond}
    return {place: part for place, part in found.items() if part is not None}


def _goes_to(oracle: Run | None) -> float:
    """The last step that the oracle has to take; unlimited if it left no trace."""
    return oracle.trace.header.steps if oracle and oracle.trace else math.inf


def _double(
    name: str, places: tuple[Place, ...], errors: Sequence[tuple[float, ...]], runs: Sequence[Run | None]
) -> Iterable[Measurement]:
    missing = why_missing(*runs) or (None if places else "nothing was recorded")
    ratios = tuple(map(error_ratio, *errors))
    for part, values in zip((*SIDES, "ratio"), (*errors, ratios), strict=True):
        yield Measurement(
            name=f"{name}.{part}",
            places=places if missing is None else (),
            values=values if missing is None else (),
            missing=missing,
            broken=why_broken(*runs),
        )


def _in_errors_of_the_reference(number: str, measured: Mapping[str, Measurement]) -> Iterable[Measurement]:
    """Distances of the loss or the grad norm in errors of the reference. Depth, widths, tokens and precision change the
    distances and the errors alike.

    `oracle.NUMBER.unit` is the error: the root mean square of the reference's relative error against the oracle over
    the training run. In it, by step, are `train.NUMBER.scaled` and `lr_zero.NUMBER.scaled` between the sides, and
    `oracle.NUMBER.scaled` between subject and oracle. `train.NUMBER.drift` holds signed distances times the root of how
    many there are, so that their mean is in standard errors of a mean of as many errors of that size.
    """
    yardstick = measured[f"oracle.{number}.reference"]
    size = root_mean_square(yardstick.values) if yardstick.values else math.nan
    unit = max(size, HALF_ULP) if math.isfinite(size) else math.nan
    yield dataclasses.replace(
        yardstick,
        name=f"oracle.{number}.unit",
        places=(REFERENCE,) if yardstick.values else (),
        values=(unit,) if yardstick.values else (),
    )
    for kind in KINDS:
        if kind.scaled_by == f"oracle.{number}.unit" and kind.scales is not None:
            yield _scaled(kind, measured[kind.scales], yardstick, unit)


def _scaled(kind: Kind, source: Measurement, yardstick: Measurement, unit: float) -> Measurement:
    """A measurement in another unit; in standard errors, times the root of the number of values."""
    factor = (math.sqrt(len(source.values)) if kind.unit == STANDARD_ERRORS else 1.0) / unit
    missing = source.missing or yardstick.missing
    return dataclasses.replace(
        source,
        name=kind.name,
        places=source.places if missing is None else (),
        values=tuple(value * factor for value in source.values) if missing is None else (),
        sides=source.sides if missing is None else (),
        missing=missing,
        broken=source.broken or yardstick.broken,
    )


def _tensor_error(
    name: str, prefix: str, exact: Tensors | None, found: Tensors | None, weights: Tensors | None
) -> float:
    """Norm of the error over norm of the exact gradient, or of the exact change of the parameter."""
    if exact is None or found is None:
        return math.nan
    if prefix == UPDATED:
        return change_difference(name, exact, found, weights)
    return difference(name, exact, found)[0]


def _probe_norms(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """The difference between the norm of the recorded gradients and the norm that the training step reported: a probe
    must show the gradients that training uses."""
    names = (REFERENCE_PROBE, SUBJECT_PROBE, ORACLE_PROBE)
    values = []
    for name in names:
        recorded, steps = tensors.get(name), steps_of(runs.get(name))
        norm = norm_of(recorded or {}, GRADIENT)
        values.append(math.nan if norm is None or not steps else relative(steps[0].grad_norm, norm))
    probes = [runs.get(name) for name in names]
    return Measurement(
        name="runs.probe_norm",
        places=names,
        values=tuple(values),
        missing=why_missing(*probes),
        broken=why_broken(*probes),
    )
