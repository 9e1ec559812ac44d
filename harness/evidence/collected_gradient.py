"""The gradients of the first batch that a collected run gave, in the place of those of a probe.

Takes the sketches that a collected run left. Gives the measurements of gradients that a probe of its side would give;
what a probe records besides gradients stays not collected. A side that left its gradients as tensors is sketched here.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.cases.runs_of_a_case import ORACLE_PROBE, REFERENCE, REFERENCE_PROBE, SUBJECT, SUBJECT_PROBE
from harness.comparison.left import has_sketches, names_of
from harness.comparison.measurement import Comparison, Tensors
from harness.evidence.collected_run import CollectedRun
from harness.runs.collected import GRAD_NORM, omitted
from harness.runs.files import GRADIENT
from harness.runs.sketches import BUCKETS_OF_FIRST_GRADIENT, recorded
from harness.runs.trace import Run, Trace

PROBE_OF: Mapping[str, str] = {REFERENCE: REFERENCE_PROBE, SUBJECT: SUBJECT_PROBE}
OF_GRADIENTS = (
    "oracle.gradients.", "oracle.lines.", "oracle.decades.", "train.zeros.", "train.denormals.", "train.values.",
)  # fmt: skip
NORM = "runs.probe_norm"
Measure = Callable[[Mapping[str, Run], Mapping[str, Tensors]], Comparison]


def with_first_gradient(
    found: Comparison,
    runs: Mapping[str, Run],
    left: Mapping[str, Tensors],
    collected: Mapping[str, CollectedRun],
    weights: Tensors,
    measure: Measure,
) -> Comparison:
    """The measurements of a bundle, with those of the gradients that its collected runs gave. `measure` gives every
    measurement of some runs, and what they left."""
    given = {
        probe: run
        for run, probe in PROBE_OF.items()
        if run in collected and collected[run].gradient and probe not in runs
    }
    if not given:
        return found
    probes: dict[str, Tensors] = {name: _sketched(left[name], weights) for name in PROBE_OF.values() if name in left}
    probes |= {ORACLE_PROBE: _sketched(left[ORACLE_PROBE], weights)} if ORACLE_PROBE in left else {}
    probes |= {probe: collected[run].gradient for probe, run in given.items()}
    own = {probe: _first_step(runs[run], probe) for probe, run in given.items()}
    measured = measure({**runs, **own}, {**left, **probes}).measurements
    without_norm = any(GRAD_NORM in omitted(_trace(runs[run]).header.provenance) for run in given.values())
    picked = {name: one for name, one in measured.items() if name.startswith(OF_GRADIENTS)}
    picked |= {} if without_norm else {NORM: measured[NORM]}
    # what is still missing keeps its own reason
    kept = {name: one for name, one in picked.items() if one.missing is None}
    return Comparison(measurements={**found.measurements, **kept})


def _trace(run: Run) -> Trace:
    assert run.trace is not None, "only what left a trace was collected"
    return run.trace


def _first_step(run: Run, probe: str) -> Run:
    """The first step of a collected run, as a probe would have taken it."""
    trace = _trace(run)
    header = dataclasses.replace(trace.header, run=probe, arm="probe", steps=1)
    return Run(name=probe, outcome=run.outcome, trace=dataclasses.replace(trace, header=header, steps=trace.steps[:1]))


def _sketched(left: Tensors, weights: Tensors) -> dict[str, npt.NDArray[Any]]:
    """The gradients of a probe as sketches, as a collected run leaves them; what was sketched already stays."""
    gradients = {name: left[name] for name in names_of(left, GRADIENT)} if not has_sketches(left) else {}
    if not gradients:
        return dict(left)
    found: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in gradients.items():
        initial = weights.get(name.removeprefix(GRADIENT))
        fits = initial is not None and initial.shape == tensor.shape
        found |= recorded(
            name, np.asarray(tensor), BUCKETS_OF_FIRST_GRADIENT, located=True, weights=initial if fits else None
        )
    return found
