"""One run as its process receives it: a frozen record that travels as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.base.code import imported, started_by_site
from harness.base.digest import digest_each
from harness.cases.case import Case
from harness.runners.cores import held_to
from harness.runners.protocol import Answerer, Runner
from harness.runners.registry import runner_code
from harness.runs.trace import Arm, Side, TraceHeader


def header_of(job: "Job", case: Case, model: Runner | Answerer, *, weights: str, batches: str) -> TraceHeader:
    """What a trace begins with; the case, and the digests `weights` and `batches`, are of what the run itself read."""
    return TraceHeader(
        run=job.run,
        side=job.side,
        arm=job.arm,
        case=case.digest(),
        weights=weights,
        batches=batches,
        steps=job.steps,
        runner=job.runner,
        initial=digest_each(model.parameters()),
        alignment=model.alignment(),
        provenance={
            **model.provenance(),
            "code": imported(),
            **runner_code(job.runner),
            **({"started_by_site": found} if (found := started_by_site()) else {}),
            "ranks": job.ranks,
            "cores": held_to(),
            "perturbation": job.perturbation,
        },
    )


Starter = Literal["msrun", "torchrun"]
PORTS_OF_A_START = 2  # of `msrun`, and where the ranks wait for each other


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The machines that make a run together, which of them this one is, and where their processes meet: at a port of
    the first and at those after it, `PORTS_OF_A_START` each time that they are started, which may be twice."""

    count: int
    rank: int
    master: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """The input of one run's process. Paths are absolute.

    `ranks`: how many processes make the run together, and `starter` what starts them; `nodes`: on which machines, where
    it is not this one alone; `logs`: where their logs go, where it is not into the run's directory. `checkpoint`: where
    the last state is saved. `cores`: those of this machine that the run is held to; none if it may use all. `whole`:
    the tensors of a step that are left whole though the case keeps none. `watch`: the run is looked at in every step.
    `weights_left`: a tapped run takes its steps first, leaves the weights that it then has in this file, and taps the
    step after them. `blocking`: each launch on the device waits for the one before. `python`: the interpreter of its
    process, where it is another than the one that starts it. `devices`: those of this machine that the run alone sees;
    none if they are not counted. `profile`: the first and the last of the steps that its framework profiles.
    """

    run: str
    side: Side
    arm: Arm
    runner: str
    device: str
    threads: int
    ranks: int
    steps: int
    case: Mapping[str, Any]
    case_digest: str
    inputs: str
    weights: str
    directory: str
    keep_tensors: str | None
    perturbation: int | None
    resume: bool
    nodes: Nodes | None = None
    logs: str | None = None
    checkpoint: str | None = None
    cores: tuple[int, ...] = ()
    whole: tuple[str, ...] = ()
    watch: bool = False
    weights_left: str | None = None
    starter: Starter = "msrun"
    blocking: bool = False
    python: str | None = None
    devices: tuple[int, ...] = ()
    profile: tuple[int, int] | None = None
