"""Measurements of the runs of a training case; they judge nothing.

Takes the runs that were made, gives named measurements: a value per step, per tensor or per run. A step that one side
does not have is NaN and never omitted. If a run is missing, the measurement has no values and states why.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.cases.runs_of_a_case import (
    FLOOR,
    ORACLE,
    REFERENCE,
    SUBJECT,
    SUBJECT_ALONE_PROBE,
    SUBJECT_PROBE,
)
from harness.comparison.against_oracle import against_oracle
from harness.comparison.catalogue import EXACT, FINAL_BITS, FINAL_PARAMETERS, NUMBERS, PAIRS, RESUMED
from harness.comparison.coherent import coherent
from harness.comparison.distance import MEASURES, fall, spike, trend
from harness.comparison.elements import of_elements
from harness.comparison.left import difference, has_sketches, names_of
from harness.comparison.measurement import Comparison, Measurement, Place, Series, Tensors, why_broken, why_missing
from harness.comparison.operators import of_operators
from harness.comparison.watched import NOT_WATCHED, of_steps
from harness.runs.collected import BATCHES, omitted
from harness.runs.files import GRADIENT
from harness.runs.trace import Run, Step, Trace, TraceHeader

RATE_ROUNDING = 2e-7  # of a rate in float32, as in the official criterion `learning-rate`
SKETCHED = "single elements are not kept: the evidence of this case is sketches"


def compare_steps(reference: Run | None, subject: Run | None) -> dict[str, Series]:
    """The differences of two runs at each step: `NUMBER.MEASURE` for each number of a step and each measure, and
    `batch.differs`."""
    steps = max((run.trace.header.steps for run in (reference, subject) if run and run.trace), default=0)
    missing, broken = why_missing(reference, subject), why_broken(reference, subject)
    places = tuple(range(1, steps + 1)) if missing is None else ()
    left, right = _by_step(reference), _by_step(subject)
    taken = [step in left and step in right for step in places]
    found: dict[str, Series] = {}
    for number in NUMBERS:
        sides = tuple((_number(left.get(step), number), _number(right.get(step), number)) for step in places)
        for measure, function in MEASURES.items():
            found[f"{number}.{measure}"] = Series(
                places=places,
                values=tuple(
                    function(a, b) if by_both else math.nan for by_both, (a, b) in zip(taken, sides, strict=True)
                ),
                sides=sides,
                between=(reference.name, subject.name) if reference and subject else None,
                missing=missing,
                broken=broken,
            )
    batches = tuple(_differs(left.get(step), right.get(step)) for step in places)
    return {**found, "batch.differs": Series(places=places, values=batches, missing=missing, broken=broken)}


def _differs(a: Step | None, b: Step | None) -> float:
    return math.nan if a is None or b is None else float(a.batch != b.batch)


def _number(step: Step | None, number: str) -> float:
    return math.nan if step is None else float(getattr(step, number))


def _by_step(run: Run | None) -> dict[int, Step]:
    return {step.step: step for step in run.trace.steps} if run and run.trace else {}


def compare_parameters(
    pair: str, reference: Tensors | None, subject: Tensors | None, broken: str | None
) -> Iterable[Measurement]:
    """`PAIR.parameters.relative` and `.maximum`, one value per tensor; NaN if one side does not have the tensor."""
    missing = "final parameters were not kept" if reference is None or subject is None else None
    reference, subject = reference or {}, subject or {}
    names = tuple(sorted(names_of(reference) | names_of(subject))) if missing is None else ()
    pairs = [difference(name, reference, subject) for name in names]
    not_kept = SKETCHED if has_sketches(reference) else None
    for index, measure, why in ((0, "relative", missing), (1, "maximum", missing or not_kept)):
        yield Measurement(
            name=f"{pair}.parameters.{measure}",
            places=names if why is None else (),
            values=tuple(pair[index] for pair in pairs) if why is None else (),
            missing=why,
            broken=broken,
        )


def compare_mappings(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None, broken: str | None = None) -> Series:
    """0 for each key with the same value on both sides, else 1, also if one side does not have the key."""
    if a is None or b is None:
        return Series(missing="a run did not state them", broken=broken)
    names = tuple(sorted({*a, *b}))
    values = tuple(float(key not in a or key not in b or a[key] != b[key]) for key in names)
    return Series(places=names, values=values, broken=broken)


def _final(run: Run | None) -> Mapping[str, str] | None:
    return run.trace.footer.parameters if run and run.trace and run.trace.footer else None


def _single(name: str, run: Run | None, value: Callable[[Trace], float]) -> Measurement:
    missing, broken = why_missing(run), why_broken(run)
    if missing is not None or run is None or run.trace is None:
        return Measurement(name=name, missing=missing, broken=broken)
    return Measurement(name=name, places=(run.name,), values=(value(run.trace),), broken=broken)


def _of_losses(curve: Callable[[Sequence[float]], float]) -> Callable[[Trace], float]:
    return lambda trace: curve([step.loss for step in trace.steps])


def per_run(name: str, required: Sequence[str], runs: Mapping[str, Run], value: Callable[[Run], float]) -> Measurement:
    """A value of each required run; NaN if the run is missing."""
    values = tuple(value(runs[run]) if run in runs else math.nan for run in required)
    absent = [f"{run}: not run" for run in required if run not in runs]
    broken = "; ".join(absent + [text for run in runs.values() if (text := why_broken(run))])
    return Measurement(name=name, places=tuple(required), values=values, broken=broken or None)


def missing_steps(run: Run) -> float:
    """How many of its required steps a run did not take; NaN if it did not finish."""
    if run.trace is None or not run.outcome.ended:
        return math.nan
    missing = float(abs(run.trace.header.steps - len(run.trace.lines)))
    return missing if run.trace.footer else missing or math.nan


def _foreign_inputs(runs: Mapping[str, Run], expected: "Expected") -> Measurement:
    """Of each run, the digests and the steps that are not the case's; of the first such step, what it states."""

    def differing(run: Run) -> float:
        if run.trace is None:
            return math.nan
        digests = sum(getattr(run.trace.header, key) != digest for key, digest in expected.inputs.items())
        return float(digests + len(list(_foreign_steps(run.trace, expected))))

    found = per_run("runs.foreign_inputs", expected.runs, runs, differing)
    firsts = {name: next(_foreign_steps(run.trace, expected), None) for name, run in runs.items() if run.trace}
    within: dict[Place, str] = {name: text for name, text in firsts.items() if text and name in expected.runs}
    return dataclasses.replace(found, within=within)


def _foreign_steps(trace: Trace, expected: "Expected") -> Iterator[str]:
    """The steps that cannot be of the case: their rate follows from its schedule, their target tokens from the masks of
    its batches. Each in words."""
    rates = [0.0] * len(expected.rates) if trace.header.arm == "lr_zero" else expected.rates
    counted = () if BATCHES in omitted(trace.header.provenance) else expected.tokens
    for step in trace.steps:
        if step.step <= len(rates) and not math.isclose(
            step.learning_rate, rates[step.step - 1], rel_tol=RATE_ROUNDING
        ):
            yield f"step {step.step}: learning rate {step.learning_rate:.9g}, the case has {rates[step.step - 1]:.9g}"
        elif step.step <= len(counted) and step.tokens != counted[step.step - 1]:
            yield f"step {step.step}: {step.tokens} target tokens, the case has {counted[step.step - 1]}"


def non_finite(runs: Iterable[Run]) -> Measurement:
    """1 for each run that recorded a number that is not finite."""
    traces = [(run.name, run.trace) for run in runs if run.trace]
    bad = [(name, trace.first_non_finite) for name, trace in traces]
    return Measurement(
        name="runs.non_finite",
        places=tuple(name for name, _ in bad),
        values=tuple(float(step is not None) for _, step in bad),
        missing=None if bad else "no trace",
    )


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The required runs and their inputs: digests of `case`, `weights` and `batches`; the digest of each weight; and
    configuration and optimizer of the case, key by key; the steps that the case examines; and the learning rate and
    the target tokens of each of its steps, empty where they are not known."""

    runs: tuple[str, ...]
    inputs: Mapping[str, str]
    weights: Mapping[str, str]
    alignment: Mapping[str, Any]
    examined_steps: tuple[int, ...] = ()
    rates: Sequence[float] = ()
    tokens: Sequence[int] = ()


def measure(
    runs: Mapping[str, Run],
    expected: Expected,
    tensors: Mapping[str, Tensors],
    steps: Mapping[str, Tensors] | None = None,
) -> Comparison:
    """All measurements of a case's runs.

    `tensors` holds the tensors of each run: the final parameters of `reference-1` and `subject-1`, the gradients and
    updated parameters of the probes (`gradient.NAME`, `updated.NAME`), and the initial weights as `weights`; `steps`
    what each run left of its steps. Names:
    `train.*` compares subject with reference, `lr_zero.*` the same with learning rate 0, `reference.*` and `subject.*`
    are about one side, `oracle.*` compares both with the exact values, `floor.*` is the largest difference of the
    reference's perturbed repeats, `layout.*` compares the subject over several ranks with itself in one process,
    `runs.*` is about the runs.
    """
    get = runs.get
    found: list[Measurement] = []
    for pair in PAIRS:
        left, right = get(pair.first), get(pair.second)
        if pair is RESUMED:
            left = _beginning(left, right)
        found += [series.named(f"{pair.name}.{what}") for what, series in compare_steps(left, right).items()]
        if pair in FINAL_BITS:
            bits = compare_mappings(_final(left), _final(right), why_broken(left, right))
            if pair is RESUMED and not _goes_as_far(right, get(pair.first)):
                bits = Series(missing="the resumed run ends before the other", broken=why_broken(left, right))
            found.append(bits.named(f"{pair.name}.parameters.differs"))
        if pair in FINAL_PARAMETERS:
            kept = tensors.get(pair.first), tensors.get(pair.second)
            found += compare_parameters(pair.name, *kept, why_broken(left, right))
    found.append(_gradients_of_layout(runs, tensors))
    for side, name in (("reference", REFERENCE), ("subject", SUBJECT)):
        header = _header(get(name))
        for what, wanted in (("initial", expected.weights), ("alignment", expected.alignment)):
            stated = getattr(header, what) if header else None
            differs = compare_mappings(wanted, stated, why_broken(get(name)))
            found.append(differs.named(f"{side}.{what}.differs"))
    for curve in (fall, trend, spike):
        found.append(_single(f"subject.loss.{curve.__name__}", get(SUBJECT), _of_losses(curve)))
    found.append(_single("subject.steps", get(SUBJECT), lambda trace: float(len(trace.steps))))
    found.append(per_run("runs.missing_steps", expected.runs, runs, missing_steps))
    found.append(_foreign_inputs(runs, expected))
    found.append(non_finite(runs.values()))
    distances = {measurement.name: measurement for measurement in found}
    head_dim = expected.alignment.get("model.head_dim")
    found += against_oracle(runs, tensors, distances, required=expected.runs, head_dim=head_dim)
    found += of_elements(runs, tensors)
    found += of_operators(runs, steps or {})
    exact = ORACLE in expected.runs
    found += of_steps(
        runs,
        steps or {},
        examined=expected.examined_steps,
        beta=expected.alignment.get("optimizer.beta1", math.nan),
        exact=exact,
    )
    change = NOT_WATCHED if not expected.examined_steps else None if exact else "the oracle took no steps"
    everything = {name: {**tensors.get(name, {}), **(steps or {}).get(name, {})} for name in {*tensors, *(steps or {})}}
    found += coherent(runs, everything, tensors.get("weights", {}), why_no_change=change)
    found += _floor(get(REFERENCE), [run for name, run in sorted(runs.items()) if name.startswith(FLOOR)])
    return Comparison(measurements={measurement.name: measurement for measurement in found})


def _goes_as_far(run: Run | None, other: Run | None) -> bool:
    one, second = _header(run), _header(other)
    return one is not None and second is not None and one.steps == second.steps


def _header(run: Run | None) -> TraceHeader | None:
    return run.trace.header if run and run.trace else None


def _beginning(run: Run | None, other: Run | None) -> Run | None:
    """A run up to the last step that another run has to take."""
    header = _header(other)
    if run is None or run.trace is None or header is None:
        return run
    kept = tuple(step for step in run.trace.steps if step.step <= header.steps)
    cut = dataclasses.replace(run.trace, steps=kept, header=dataclasses.replace(run.trace.header, steps=header.steps))
    return dataclasses.replace(run, trace=cut)


def _gradients_of_layout(runs: Mapping[str, Run], tensors: Mapping[str, Tensors]) -> Measurement:
    """Norm of the difference over norm of each gradient of the first batch, over several ranks and in one process."""
    probes = (SUBJECT_ALONE_PROBE, SUBJECT_PROBE)
    alone, over_ranks = (
        {name: tensor for name, tensor in tensors.get(probe, {}).items() if name.startswith(GRADIENT)}
        for probe in probes
    )
    made = [runs.get(name) for name in probes]
    missing = why_missing(*made) or (None if alone and over_ranks else "nothing was recorded")
    names = sorted(names_of(alone) | names_of(over_ranks)) if missing is None else []
    return Measurement(
        name="layout.gradients.relative",
        places=tuple(name.removeprefix(GRADIENT) for name in names),
        values=tuple(difference(name, alone, over_ranks)[0] for name in names),
        missing=missing,
        broken=why_broken(*made),
    )


def _floor(reference: Run | None, repeats: Sequence[Run]) -> Iterable[Measurement]:
    """Step by step, the largest relative difference of any perturbed repeat of the reference from the reference."""
    each = [compare_steps(reference, run) for run in repeats]
    for number in EXACT:
        widest = _widest([found[f"{number}.relative"] for found in each])
        yield widest.named(f"floor.{number}.relative")


def _widest(series: Sequence[Series]) -> Series:
    if not series:
        return Series(missing="not run")
    values = np.array([one.values for one in series]) if len({len(one.values) for one in series}) == 1 else np.array([])
    widest = tuple(float(value) for value in values.max(axis=0)) if values.size else ()
    return Series(
        places=series[0].places if widest else (),
        values=widest,
        missing=None if values.size else "a perturbed repeat has no trace",
        broken="; ".join(one.broken for one in series if one.broken) or None,
    )
