"""The runs of a case as jobs, from the case and the options of the command line."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.attestation import Trust
from harness.base.errors import InputError
from harness.base.near_names import did_you_mean
from harness.cases.case import Case
from harness.cases.runs_of_a_case import (
    ORACLE,
    ORACLE_PROBE,
    REFERENCE,
    REFERENCE_LR_ZERO,
    REFERENCE_PROBE,
    SUBJECT,
    SUBJECT_LR_ZERO,
    SUBJECT_PROBE,
    SUBJECT_REPEAT,
    TRAINING,
    floor_runs,
    required_runs,
    role,
    runs_of,
)
from harness.cases.task import PRETRAIN
from harness.runners.job import PORTS_OF_A_START, Job, Nodes
from harness.runners.registry import find_runner
from harness.runs.inputs import WEIGHTS
from harness.runs.trace import Arm, Side

MSRUN_LOG, CHECKPOINTS = "msrun_log", "checkpoint"
INITIAL, TRAINED = "initial", "trained"  # weights that are kept
# The runs that start first. Longest first would be quickest; this order shows a difference between the two sides
# soonest. What trains the weights that others wait for comes before all.
SOONEST = (
    TRAINING, REFERENCE, SUBJECT, REFERENCE_PROBE, SUBJECT_PROBE, ORACLE_PROBE, REFERENCE_LR_ZERO, SUBJECT_LR_ZERO,
)  # fmt: skip
ALONE: tuple[Arm, ...] = ("alone", "alone_probe")  # in one process, whatever the layout
WATCHED_RUNS = (REFERENCE, SUBJECT, ORACLE)  # where the case examines steps
BY_TORCHRUN = (PRETRAIN.reference, PRETRAIN.oracle)  # what several processes make together without MindSpore
ALL_SIDES: tuple[Side, ...] = ("reference", "subject", "oracle")
RECORDED_SIDES: tuple[Side, ...] = ("reference", "oracle")


Protecting = Literal["auto", "namespaces", "order"]
PROTECTIONS: tuple[Protecting, ...] = ("auto", "namespaces", "order")


def protection_of(name: str) -> Protecting:
    """The protection of that name.

    Raises:
        InputError: there is none; it names those that can be chosen.
    """
    for known in PROTECTIONS:
        if name == known:
            return known
    raise InputError(f"--protection {name!r} is none of {', '.join(PROTECTIONS)}.{did_you_mean(name, PROTECTIONS)}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a command besides those of the case. `subject`, `reference` and `oracle` are runners.

    `baselines` is the directory whose baseline replaces the runs of reference and oracle; without it they run.
    `nodes` are the machines that make the subject's runs together, with the logs of their processes and the last
    checkpoint under `output`. `reference_device` is that of reference and oracle, and `reference_processes`
    make each run of the reference together. `subject_python` is the interpreter of the subject's runs, and
    `reference_python` that of reference and oracle; None: this one. `protection` is what keeps the subject's runs from
    the answers: namespaces where they can be had (`auto`), always, or never (`order`). `threads` are those of each run;
    None: those of the case. `trust`: whose signatures count; a baseline must then have one. `keep_weights`: the initial
    and the trained weights stay beside the bundle. `profile`: the first and the last of the steps that MindSpore
    profiles, in the repeat of the subject.
    """

    out: Path
    command: tuple[str, ...]
    resume: bool = False
    device: str = "CPU"
    threads: int | None = None
    workers: int = 2
    subject: str = "mindspore"
    reference: str = "torch"
    oracle: str = "oracle"
    baselines: Path | None = None
    nodes: Nodes | None = None
    output: Path | None = None
    keep_weights: bool = False
    reference_device: str = "CPU"
    reference_processes: int = 1
    subject_python: Path | None = None
    reference_python: Path | None = None
    protection: Protecting = "auto"
    trust: Trust | None = None
    profile: tuple[int, int] | None = None

    def device_of(self, side: Side) -> str:
        """CPU, CUDA or Ascend. An NPU multiplies no matrices of float64, so there the oracle stays on the CPU."""
        if side == "subject":
            return self.device
        return "CPU" if side == "oracle" and self.reference_device == "Ascend" else self.reference_device

    def python_of(self, side: Side) -> Path | None:
        """The interpreter of a side's runs; None if it is this one."""
        return self.subject_python if side == "subject" else self.reference_python

    @property
    def weights(self) -> Path:
        """Where weights stay: beside the bundle, since they are no part of it."""
        return self.out.with_name(f"{self.out.name}-weights")

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that run here."""
        return ALL_SIDES if self.baselines is None else ("subject",)


def plan(case: Case, options: Options) -> list[Job]:
    """The jobs of a case that run here, in their order."""
    jobs = [one for one in all_jobs(case, options) if one.side in options.sides]
    # What several nodes make together comes first, so that none waits while another does what it does alone.
    ordered = sorted(jobs, key=lambda job: job.nodes is None)
    return [_at_own_ports(job, number) for number, job in enumerate(ordered)]


def _at_own_ports(job: Job, number: int) -> Job:
    """A run of several nodes, away from the run before: one node may begin it while that one still ends on another, and
    would be taken for one of its processes."""
    if job.nodes is None:
        return job
    return dataclasses.replace(
        job, nodes=dataclasses.replace(job.nodes, port=job.nodes.port + number * 2 * PORTS_OF_A_START)
    )


def recorded_jobs(case: Case, options: Options) -> list[Job]:
    """The jobs of a case whose runs make its baseline."""
    return [one for one in all_jobs(case, options) if one.side in RECORDED_SIDES]


def all_jobs(case: Case, options: Options) -> list[Job]:
    """Every run that the case has to have, and its perturbed repeats of the reference, in the order of their start."""
    required = required_runs(case)
    order = dict.fromkeys((*(name for name in SOONEST if name in required), *required, *floor_runs(case)))
    return [job(case, options, name) for name in order]


def job(case: Case, options: Options, name: str) -> Job:
    """The job of one run of a case."""
    known = role(name, case)
    assert known is not None, f"{name} is no run of a case"
    side, arm = known
    watched = bool(case.training.examined_steps) and name in WATCHED_RUNS
    keep = watched or name in runs_of(case).kept
    return dataclasses.replace(job_of(case, options, name, side, arm, keep=keep), watch=watched)


def job_of(case: Case, options: Options, name: str, side: Side, arm: Arm, *, keep: bool) -> Job:
    """The job of a run of that name; `keep`: its tensors are kept."""
    root = options.out.resolve()
    ranks = ranks_of(case, options, side, arm)
    runner = runner_of(case, getattr(options, side), name)
    return Job(
        run=name,
        side=side,
        arm=arm,
        runner=runner,
        device=options.device_of(side),
        threads=threads_of(case, options),
        ranks=ranks,
        steps=case.steps_of(side, arm),
        case=case.record(),
        case_digest=case.digest(),
        inputs=str(root / "inputs"),
        weights=str(weights_of(case, root, arm)),
        directory=str(root / "runs" / name),
        keep_tensors=str(root / "tensors" / f"{name}.safetensors") if keep else None,
        perturbation=int(name.rpartition("-")[2]) if arm == "floor" else None,
        resume=options.resume,
        nodes=options.nodes if ranks > 1 and side == "subject" else None,
        logs=_logs(options.output, name) if options.output and ranks > 1 and side == "subject" else None,
        checkpoint=_checkpoint(options) if name == SUBJECT else None,
        starter="torchrun" if runner in BY_TORCHRUN else "msrun",
        profile=options.profile if name == SUBJECT_REPEAT and arm == "train" else None,
        python=str(python.absolute()) if (python := options.python_of(side)) else None,
    )


def ranks_of(case: Case, options: Options, side: Side, arm: Arm) -> int:
    """The processes that make a run together: of the subject those of the layout. Another oracle than the shipped one,
    and one that is not on the device of the reference, has one."""
    if side == "subject":
        return 1 if arm in ALONE else case.parallel.world_size
    if side == "oracle" and (
        find_runner(options.oracle, case.task) not in BY_TORCHRUN
        or options.device_of("oracle") != options.reference_device
    ):
        return 1
    return options.reference_processes


def _checkpoint(options: Options) -> str | None:
    """Where the last state of the first training run is saved, if it is."""
    if options.output:
        return str(options.output.resolve() / CHECKPOINTS)
    return str(options.weights.resolve() / TRAINED) if options.keep_weights else None


def outputs_of(options: Options) -> tuple[Path, ...]:
    """Where runs leave weights and logs besides their bundle."""
    below = (options.output / name for name in (CHECKPOINTS, MSRUN_LOG)) if options.output else ()
    return tuple(path.resolve() for path in (options.weights, *below))


def threads_of(case: Case, options: Options) -> int:
    """The threads of each run."""
    return options.threads or case.training.threads


def runner_of(case: Case, name: str, run: str) -> str:
    """Who makes a run. Weights for inference are always trained by the shipped subject."""
    return PRETRAIN.subject if run == TRAINING else find_runner(name, case.task)


def weights_of(case: Case, root: Path, arm: Arm) -> Path:
    """The file of the weights that a run begins with."""
    trained = arm == "infer" and case.trains_weights
    return root / "tensors" / f"{TRAINING}.safetensors" if trained else root / "inputs" / WEIGHTS


def _logs(output: Path, run: str) -> str:
    """Where the processes of a run log: those of the first training run where MindSpore Transformers puts its own."""
    base = output.resolve() / MSRUN_LOG
    return str(base if run == SUBJECT else base / run)
