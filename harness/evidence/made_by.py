"""Which runners made the runs of a bundle: those that are recorded, one for each side, and none of a trainer's own."""

from collections.abc import Container, Mapping
from pathlib import Path

from harness.base.errors import EvidenceError
from harness.cases.case import Case
from harness.cases.runs_of_a_case import TRAINING, role
from harness.evidence.provenance import Source
from harness.runs.collected import PROVENANCE
from harness.runs.trace import Run


def check_made_by(
    directory: Path, case: Case, runs: Mapping[str, Run], source: Source, collected: Container[str]
) -> None:
    """Checks the runners that the traces of a bundle state; collected runs are none of this program.

    Raises:
        EvidenceError: a side was made by several runners, a runner that is recorded made no run, or a run of the
            harness states that a trainer collected it.
    """
    traces = {name: run.trace for name, run in runs.items() if run.trace is not None and name not in collected}
    sides: dict[str, dict[str, str]] = {}
    for name, trace in traces.items():
        if PROVENANCE in trace.header.provenance:
            place = directory / "runs" / name
            raise EvidenceError(f"{place} states that a trainer collected it, and it is no such run.")
        known = role(name, case)
        if known is not None and name != TRAINING:
            sides.setdefault(known[0], {}).setdefault(trace.header.runner, name)
    for side, made in sides.items():
        if len(made) > 1:
            named = ", ".join(f"{name} by {runner}" for runner, name in made.items())
            raise EvidenceError(f"The runs of the {side} in {directory} were made by several runners: {named}.")
    stated = {runner for made in sides.values() for runner in made}
    unused = sorted(set(source.runners or {}) - stated)
    if unused and all(run.trace is not None for run in runs.values()):
        raise EvidenceError(
            f"{directory} records the runner {', '.join(unused)}, and every one of its runs states another one."
        )
