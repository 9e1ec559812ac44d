"""The numbers of every step as columns, embedded once: charts, hover texts and downloads all read them.

A column is a list, or the name of an earlier column with the same values. A step that a run did not take is None; a
number that is not finite is its name. Finite floats keep every digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.base.records import encode
from harness.cases.runs_of_a_case import ORACLE, REFERENCE, REFERENCE_LR_ZERO, SUBJECT, SUBJECT_LR_ZERO
from harness.evidence.bundle import Bundle
from harness.runs.trace import Run, Step

Column = list[Any] | str
FIELDS = ("loss", "grad_norm", "learning_rate", "tokens", "batch")
COMPARED = ("loss", "grad_norm", "learning_rate")
ARMS = (("train", REFERENCE, SUBJECT), ("lr_zero", REFERENCE_LR_ZERO, SUBJECT_LR_ZERO))

TITLES = {
    "train": "Every step",
    "lr_zero": "Every step at learning rate 0",
    "oracle": "Every step compared with the exact result",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file to download: the end of its name, its title and the names of its columns, in order."""

    ending: str
    title: str
    columns: tuple[str, ...]


def step_columns(bundle: Bundle) -> dict[str, Column]:
    """`ARM.step`, `ARM.SIDE.FIELD`, `ARM.NUMBER.relative` and, if they were measured, `floor.NUMBER.relative`,
    `oracle.step`, `oracle.NUMBER` and `oracle.NUMBER.SIDE`: the exact value, and the relative error of each side."""
    columns: dict[str, Column] = {}
    for arm, reference, subject in ARMS:
        _add_arm(columns, bundle, arm, bundle.runs.get(reference), bundle.runs.get(subject))
    for field in ("loss", "grad_norm"):
        floor = bundle.comparison[f"floor.{field}.relative"]
        if floor.values:
            add_column(columns, f"floor.{field}.relative", list(floor.values))
    _add_oracle(columns, bundle)
    return columns


def _add_oracle(columns: dict[str, Column], bundle: Bundle) -> None:
    exact = _steps(bundle.runs.get(ORACLE))
    length = len(bundle.comparison["oracle.loss.subject"].places)
    shared = min(len(steps) for steps in (exact, *(_steps(bundle.runs.get(name)) for name in (REFERENCE, SUBJECT))))
    columns["oracle.step"] = list(range(1, length + 1))
    for field in ("loss", "grad_norm") if length else ():
        add_column(columns, f"oracle.{field}", _values(exact, field, length))
        for side in ("reference", "subject"):
            errors = bundle.comparison[f"oracle.{field}.{side}"].values[:shared]
            add_column(columns, f"oracle.{field}.{side}", [*errors, *[None] * (length - shared)])


def step_tables(columns: dict[str, Column]) -> tuple[Table, ...]:
    """The CSV files of the page; an arm that was not run has none."""
    return tuple(
        Table(
            ending=f"{arm.replace('_', '-')}-steps.csv",
            title=title,
            columns=tuple(name for name in columns if name.startswith(f"{arm}.")),
        )
        for arm, title in TITLES.items()
        if columns[f"{arm}.step"]
    )


def _add_arm(columns: dict[str, Column], bundle: Bundle, arm: str, reference: Run | None, subject: Run | None) -> None:
    length = max((run.trace.header.steps for run in (reference, subject) if run and run.trace), default=0)
    columns[f"{arm}.step"] = list(range(1, length + 1))
    taken = {"reference": _steps(reference), "subject": _steps(subject)}
    for field in FIELDS:
        for side, steps in taken.items():
            add_column(columns, f"{arm}.{side}.{field}", _values(steps, field, length))
    for field in COMPARED:
        measured = bundle.comparison[f"{arm}.{field}.relative"]
        shared = min(len(steps) for steps in taken.values())
        values: Sequence[float] = measured.values[:shared]
        add_column(columns, f"{arm}.{field}.relative", [*values, *[None] * (length - len(values))])


def _steps(run: Run | None) -> tuple[Step, ...]:
    return run.trace.steps if run and run.trace else ()


def _values(steps: tuple[Step, ...], field: str, length: int) -> list[Any]:
    values = [getattr(step, field) for step in steps[:length]]
    return [*values, *[None] * (length - len(values))]


def add_column(columns: dict[str, Column], name: str, values: list[Any]) -> None:
    """Adds a column, or the name of an earlier equal column: the digests of batches that both sides read are stored
    once."""
    encoded: list[Any] = encode(values)
    columns[name] = next((earlier for earlier, column in columns.items() if column == encoded), encoded)
