"""The standards as data: named, versioned sets of criteria, each limit with its reason and source.

Takes a YAML file, gives a frozen record with a digest, and reports all errors of the file at once: also a limit on
something that is not measured, or one that a wrong number meets. A looser standard has another digest.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from harness.base.digest import digest_json
from harness.base.errors import InputError
from harness.base.near_names import did_you_mean
from harness.base.written import Problem, Written
from harness.base.yaml_files import read_yaml
from harness.base.yaml_records import Problems, Record, validated
from harness.cases.task import TASKS, TaskName
from harness.comparison.catalogue import CATALOGUE, Kind, names_of

STANDARDS_DIR = Path(__file__).parent
HISTORY = STANDARDS_DIR / "history.csv"  # the day of each criterion of each shipped standard, at its version

Statistic = Literal["first", "mean", "rms", "maximum", "minimum", "bias"]
Comparator = Literal["at_most", "below", "at_least"]


class Limit(Record):
    """A statistic of a measurement, and its largest allowed (or smallest required) value.

    `first` is the value of step 1, `rms` the root of the mean square, `bias` the absolute value of the mean of signed
    values.
    """

    measurement: str
    statistic: Statistic
    comparator: Comparator = "at_most"
    value: float
    reason: str = Field(min_length=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self, info: ValidationInfo) -> Self:
        # Without a context it is the limit of a recorded bundle, whose program may have measured other things.
        if info.context is not None and (problems := list(_problems(self, info.context))):
            raise Problems(problems)
        return self


class Criterion(Record):
    """Met if any one of its limits is met. `unmet` is the outcome otherwise: a failure, or too little shown."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    limits: tuple[Limit, ...] = Field(min_length=1)
    unmet: Literal["FAIL", "INCONCLUSIVE"] = "FAIL"


class Standard(Record):
    """A set of criteria for the cases of a task. `compute_dtype` names the precision that its limits were derived for,
    `learning_rate` the highest rate, and `steps` the longest training; None is any.

    A case of another precision is an error. A case with a higher rate or more steps is judged, and its failures come
    with a remark. Rate and steps decide nothing and are not part of the digest.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    version: int = Field(ge=1)
    title: str
    task: TaskName = "pretrain"
    compute_dtype: Literal["float32", "bfloat16"] | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_id_once(self) -> Self:
        ids = [criterion.id for criterion in self.criteria]
        twice = [
            Problem(keys=("criteria", index, "id"), message=f"another criterion has the id {name!r}")
            for index, name in enumerate(ids)
            if name in ids[:index]
        ]
        if twice:
            raise Problems(twice)
        return self

    def digest(self) -> str:
        record = self.model_dump(mode="json", exclude={"learning_rate", "steps"})
        if self.task == "pretrain":  # standards for training are older than tasks, and keep their digests
            del record["task"]
        return digest_json(record)


def _problems(limit: Limit, task: TaskName) -> Iterator[Problem]:
    """Why a limit of a standard for a task cannot be met, or would be met by a wrong number."""
    kind = CATALOGUE.get(limit.measurement)
    if kind is None:
        hint = did_you_mean(limit.measurement, names_of(task))
        yield Problem(keys=("measurement",), message=f"nothing measures {limit.measurement!r}.{hint}")
    elif task not in kind.places:
        message = f"{limit.measurement!r} is measured for {', '.join(kind.places)}, not for {task}"
        yield Problem(keys=("measurement",), message=message)
    else:
        yield from (Problem(keys=("statistic",), message=one) for one in _wrong_statistic(limit, kind, task))
        yield from (Problem(keys=("comparator",), message=one) for one in _wrong_comparator(limit, kind))


def _wrong_statistic(limit: Limit, kind: Kind, task: TaskName) -> Iterator[str]:
    if limit.statistic == "first" and kind.places[task] != "step":
        yield f"{kind.name!r} has a value for each {kind.places[task]}, and 'first' is the value of step 1"
    if limit.statistic == "bias" and kind.unsigned is None:
        yield f"the values of {kind.name!r} have no sign; use 'mean'"
    if limit.statistic not in ("bias", "rms") and kind.unsigned is not None:
        yield (
            f"{kind.name!r} has a sign, and {limit.statistic!r} would pass any number below 0; use 'bias' or 'rms', or "
            f"limit {kind.unsigned!r}"
        )
    if limit.statistic == "minimum" and not kind.higher_is_better:
        yield f"'minimum' would pass all values of {kind.name!r} but the best one; use 'maximum', 'mean' or 'rms'"


def _wrong_comparator(limit: Limit, kind: Kind) -> Iterator[str]:
    if kind.higher_is_better != (limit.comparator == "at_least"):
        better, fitting = ("higher", "'at_least'") if kind.higher_is_better else ("lower", "'at_most' or 'below'")
        yield f"a {better} {kind.name!r} is better; use {fitting}"


def shipped_standards() -> dict[str, Path]:
    """Name and file of each shipped standard."""
    return {path.stem: path for path in sorted(STANDARDS_DIR.glob("*.yaml"))}


@dataclass(frozen=True, kw_only=True)
class Dated:
    """A criterion of a shipped standard at its version, with the day since which it has its present limits."""

    standard: str
    version: int
    criterion: str
    since: str


def dated_criteria() -> tuple[Dated, ...]:
    """Every criterion of the shipped standards, in their order.

    Source: the history of the standards' files.
    """
    with HISTORY.open(encoding="utf-8", newline="") as file:
        return tuple(
            Dated(standard=standard, version=int(version), criterion=criterion, since=since)
            for standard, version, criterion, since in list(csv.reader(file))[1:]
        )


def parse_standard(content: Any, origin: str) -> Standard:
    """A standard from its recorded content.

    Raises:
        InputError: every problem of the content, one a line.
    """
    return validated(Standard, Written(value=content, origin=origin), "standard")


def load_standard(name_or_path: str) -> Standard:
    """A shipped standard by name, or any standard by the path of its YAML file.

    Raises:
        InputError: no such standard, not YAML, or not valid: every problem with its line.
    """
    path = shipped_standards().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        known = shipped_standards()
        raise InputError(
            f"There is no standard {name_or_path!r}: neither a shipped one ({', '.join(known)}) nor a file."
            f"{did_you_mean(name_or_path, known)}"
        )
    written = read_yaml(path)
    standard = validated(Standard, written, "standard", context=_task_of(written.value))
    shipped = shipped_standards().get(standard.name)
    if shipped is not None and path != shipped:
        raise InputError(f"{path} has the name {standard.name!r} of a shipped standard. Give it another name.")
    return standard


def _task_of(content: Any) -> TaskName | None:
    """The task of a standard before it is checked; None if it names no known task."""
    named = content.get("task", Standard.model_fields["task"].default) if isinstance(content, dict) else None
    return next((task for task in TASKS if task == named), None)
