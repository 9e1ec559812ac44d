"""The runs of a case as jobs: what the process of each is told, from the case and from what the command line says."""

from dataclasses import dataclass
from pathlib import Path

from harness.case import Case
from harness.comparison import (
    FLOOR,
    ORACLE_PROBE,
    REFERENCE,
    REFERENCE_LR_ZERO,
    REFERENCE_PROBE,
    SUBJECT,
    SUBJECT_ALONE,
    SUBJECT_ALONE_PROBE,
    SUBJECT_LR_ZERO,
    SUBJECT_PROBE,
    required_runs,
    role,
)
from harness.runners import Job, Nodes, find_runner
from harness.trace import Arm, Side

MSRUN_LOG, CHECKPOINTS = "msrun_log", "checkpoint"
# The runs whose tensors are compared.
KEPT = (REFERENCE, SUBJECT, SUBJECT_ALONE, REFERENCE_PROBE, SUBJECT_PROBE, ORACLE_PROBE, SUBJECT_ALONE_PROBE)
ALONE: tuple[Arm, ...] = ("alone", "alone_probe")  # in one process, whatever the layout
ALL_SIDES: tuple[Side, ...] = ("reference", "subject", "oracle")
RECORDED_SIDES: tuple[Side, ...] = ("reference", "oracle")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line may say besides the case. `subject`, `reference` and `oracle` are runners.

    `baselines` is the directory whose baseline stands for the runs of reference and oracle; without it they run.
    `nodes` are the machines that make the subject's runs together, with the logs of their processes and the last
    checkpoint under `output`.
    """

    out: Path
    command: tuple[str, ...]
    resume: bool = False
    device: str = "CPU"
    threads: int = 1
    workers: int = 2
    subject: str = "mindspore"
    reference: str = "torch"
    oracle: str = "oracle"
    baselines: Path | None = None
    nodes: Nodes | None = None
    output: Path | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that run here."""
        return ALL_SIDES if self.baselines is None else ("subject",)


def plan(case: Case, options: Options) -> list[Job]:
    """The jobs of a case that run here, in their order."""
    jobs = [one for one in all_jobs(case, options) if one.side in options.sides]
    # What several nodes make together comes first, so that none waits while another does what it does alone.
    return sorted(jobs, key=lambda job: job.nodes is None)


def recorded_jobs(case: Case, options: Options) -> list[Job]:
    """The jobs of a case whose runs make its baseline."""
    return [one for one in all_jobs(case, options) if one.side in RECORDED_SIDES]


def all_jobs(case: Case, options: Options) -> list[Job]:
    """Every run that `comparison.ROLES` names, and the perturbed repeats that the case asks for."""
    floor = [f"{FLOOR}-{number}" for number in range(1, case.training.floor_repeats + 1)]
    # Longest first would be quickest; this order shows a difference between the two sides soonest.
    soonest = (REFERENCE, SUBJECT, REFERENCE_PROBE, SUBJECT_PROBE, ORACLE_PROBE, REFERENCE_LR_ZERO, SUBJECT_LR_ZERO)
    order = dict.fromkeys((*soonest, *required_runs(case.standards), *floor))
    return [job(case, options, name) for name in order]


def job(case: Case, options: Options, name: str) -> Job:
    """What the process of one run is told."""
    known = role(name)
    assert known is not None, f"{name} is no run of a case"
    side, arm = known
    return job_of(case, options, name, side, arm, keep=name in KEPT)


def job_of(case: Case, options: Options, name: str, side: Side, arm: Arm, *, keep: bool) -> Job:
    """What the process of a run of that name is told; `keep`: it leaves its tensors."""
    root = options.out.resolve()
    ranks = 1 if side != "subject" or arm in ALONE else case.parallel.world_size
    return Job(
        run=name,
        side=side,
        arm=arm,
        runner=find_runner(getattr(options, side)),
        device=options.device if side == "subject" else "CPU",
        threads=options.threads,
        ranks=ranks,
        steps=case.training.steps_of(arm),
        case=case.record(),
        case_digest=case.digest(),
        inputs=str(root / "inputs"),
        directory=str(root / "runs" / name),
        keep_tensors=str(root / "tensors" / f"{name}.safetensors") if keep else None,
        perturbation=int(name.rpartition("-")[2]) if arm == "floor" else None,
        resume=options.resume,
        nodes=options.nodes if ranks > 1 else None,
        logs=_logs(options.output, name) if options.output and ranks > 1 else None,
        checkpoint=str(options.output.resolve() / CHECKPOINTS) if options.output and name == SUBJECT else None,
    )


def _logs(output: Path, run: str) -> str:
    """Where the processes of a run log: those of the first training run where MindSpore Transformers puts its own."""
    base = output.resolve() / MSRUN_LOG
    return str(base if run == SUBJECT else base / run)
