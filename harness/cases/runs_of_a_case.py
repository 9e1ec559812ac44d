"""The runs of a case by name: the side and the purpose of each; by task in `RUNS`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.cases.case import Case
from harness.cases.task import TaskName
from harness.runs.trace import Arm, Side

Roles = Mapping[str, tuple[Side, Arm]]

REFERENCE, REFERENCE_REPEAT, REFERENCE_LR_ZERO = "reference-1", "reference-2", "reference-lr0"
SUBJECT, SUBJECT_REPEAT, SUBJECT_LR_ZERO = "subject-1", "subject-2", "subject-lr0"
ORACLE, SUBJECT_RESUMED = "oracle-1", "subject-resumed"
REFERENCE_PROBE, SUBJECT_PROBE, ORACLE_PROBE = "reference-probe", "subject-probe", "oracle-probe"
ROLES: Roles = {
    REFERENCE: ("reference", "train"),
    REFERENCE_REPEAT: ("reference", "train"),
    SUBJECT: ("subject", "train"),
    SUBJECT_REPEAT: ("subject", "train"),
    REFERENCE_LR_ZERO: ("reference", "lr_zero"),
    SUBJECT_LR_ZERO: ("subject", "lr_zero"),
    SUBJECT_RESUMED: ("subject", "resumed"),
    ORACLE: ("oracle", "train"),
    REFERENCE_PROBE: ("reference", "probe"),
    SUBJECT_PROBE: ("subject", "probe"),
    ORACLE_PROBE: ("oracle", "probe"),
}
REQUIRED_RUNS = tuple(ROLES)
# A case whose layout is judged also has the same subject in one process.
SUBJECT_ALONE, SUBJECT_ALONE_PROBE = "subject-alone", "subject-alone-probe"
ROLES_OF_LAYOUT: Roles = {
    SUBJECT_ALONE: ("subject", "alone"),
    SUBJECT_ALONE_PROBE: ("subject", "alone_probe"),
}
FLOOR = "floor"
FLOOR_RUN = re.compile(rf"{FLOOR}-([1-9][0-9]{{0,8}})")
# An inference case: the run that trains the weights, unless they are a checkpoint, and the inference runs.
TRAINING = "training"
ROLES_OF_TRAINING: Roles = {TRAINING: ("subject", "train")}
ROLES_OF_INFERENCE: Roles = {
    REFERENCE: ("reference", "infer"),
    REFERENCE_REPEAT: ("reference", "infer"),
    SUBJECT: ("subject", "infer"),
    SUBJECT_REPEAT: ("subject", "infer"),
    ORACLE: ("oracle", "infer"),
}


def judges_layout(standard: str) -> bool:
    """Whether a standard, by its name, compares a run over several ranks with one process."""
    return standard.startswith("layout-")


def _roles_in_training(case: Case) -> Roles:
    roles = {**ROLES, **(ROLES_OF_LAYOUT if any(map(judges_layout, case.standards)) else {})}
    if case.training.oracle == "probe":
        del roles[ORACLE]
    return roles


def _roles_in_inference(case: Case) -> Roles:
    return {**(ROLES_OF_TRAINING if case.trains_weights else {}), **ROLES_OF_INFERENCE}


@dataclass(frozen=True, kw_only=True)
class TaskRuns:
    """The runs of a task: `roles` gives the required runs of a case, `kept` names those whose tensors are compared, and
    `trained` the one that leaves trained weights."""

    roles: Callable[[Case], Roles]
    kept: frozenset[str]
    trained: str


TRAINED = TaskRuns(
    roles=_roles_in_training,
    kept=frozenset(
        (REFERENCE, SUBJECT, SUBJECT_ALONE, REFERENCE_PROBE, SUBJECT_PROBE, ORACLE_PROBE, SUBJECT_ALONE_PROBE)
    ),
    trained=SUBJECT,
)
RUNS: Mapping[TaskName, TaskRuns] = {
    "pretrain": TRAINED,
    "finetune": TRAINED,
    "inference": TaskRuns(
        roles=_roles_in_inference,
        kept=frozenset((TRAINING, REFERENCE, SUBJECT, ORACLE)),
        trained=TRAINING,
    ),
}


def runs_of(case: Case) -> TaskRuns:
    """The runs of a case's task."""
    return RUNS[case.task.name]


def roles_of(case: Case) -> Roles:
    """The required runs of a case."""
    return runs_of(case).roles(case)


def required_runs(case: Case) -> tuple[str, ...]:
    """Their names."""
    return tuple(roles_of(case))


def floor_runs(case: Case) -> tuple[str, ...]:
    """The names of the perturbed repeats of the reference that a case has."""
    repeats = case.training.floor_repeats if case.task.judges_steps else 0
    return tuple(f"{FLOOR}-{number}" for number in range(1, repeats + 1))


def role(run: str, case: Case) -> tuple[Side, Arm] | None:
    """The side and the purpose of a run; None if the case has no run of that name."""
    if (
        case.task.judges_steps
        and (repeat := FLOOR_RUN.fullmatch(run))
        and int(repeat[1]) <= case.training.floor_repeats
    ):
        return "reference", "floor"
    return roles_of(case).get(run)
