"""The runs of a case by name: which side each is of, and what it is for."""

import re
from collections.abc import Mapping

from harness.cases.case import Case
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
# What a case has besides whose layout is judged: the same subject in one process.
SUBJECT_ALONE, SUBJECT_ALONE_PROBE = "subject-alone", "subject-alone-probe"
ROLES_OF_LAYOUT: Roles = {
    SUBJECT_ALONE: ("subject", "alone"),
    SUBJECT_ALONE_PROBE: ("subject", "alone_probe"),
}
FLOOR = "floor"
FLOOR_RUN = re.compile(rf"{FLOOR}-[1-9][0-9]*")
# Of a case of inference: the weights that are asked, where they are trained for it, and the answers.
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


def roles_of(case: Case) -> Roles:
    """The runs that a case has to have."""
    if case.inference is not None:
        return {**(ROLES_OF_TRAINING if case.inference.trains else {}), **ROLES_OF_INFERENCE}
    return {**ROLES, **(ROLES_OF_LAYOUT if any(map(judges_layout, case.standards)) else {})}


def required_runs(case: Case) -> tuple[str, ...]:
    """Their names."""
    return tuple(roles_of(case))


def role(run: str, case: Case) -> tuple[Side, Arm] | None:
    """Which side a run is of and what it is for; None where the case has no run of that name."""
    if case.inference is None and FLOOR_RUN.fullmatch(run):
        return "reference", "floor"
    return roles_of(case).get(run)
