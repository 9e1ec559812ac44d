"""The standards as data: named, versioned sets of criteria, each limit with its reason and source.

Takes a YAML file, gives a frozen record with a digest, and refuses a file with all of its errors at once.
A looser standard is another digest.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from harness.base.digest import digest_json
from harness.base.errors import InputError
from harness.base.yaml_records import Record
from harness.cases.task import TaskName

STANDARDS_DIR = Path(__file__).parent

Statistic = Literal["first", "mean", "rms", "maximum", "minimum", "bias"]
Comparator = Literal["at_most", "below", "at_least"]


class Limit(Record):
    """A statistic of a measurement, and what it may be at most (or must be at least).

    `first` is the value of step 1, `rms` the root of the mean square, `bias` the absolute value of the mean of signed
    values.
    """

    measurement: str
    statistic: Statistic
    comparator: Comparator = "at_most"
    value: float
    reason: str = Field(min_length=1)
    source: str = Field(min_length=1)


class Criterion(Record):
    """Met where any one of its limits is. `unmet` says what it means if none is: a failure, or too little shown."""

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    limits: tuple[Limit, ...] = Field(min_length=1)
    unmet: Literal["FAIL", "INCONCLUSIVE"] = "FAIL"


class Standard(Record):
    """A set of criteria for the cases of a task. `compute_dtype` names the precision that its limits were derived for,
    `learning_rate` the highest rate; None is any.

    A case of another precision is refused. One with a higher rate is judged all the same, and what fails then comes
    with a remark: the rate decides nothing, and is no part of the digest.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    version: int = Field(ge=1)
    title: str
    task: TaskName = "pretrain"
    compute_dtype: Literal["float32", "bfloat16"] | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    def digest(self) -> str:
        record = self.model_dump(mode="json", exclude={"learning_rate"})
        if self.task == "pretrain":  # standards of training are older than tasks, and keep their digests
            del record["task"]
        return digest_json(record)


def shipped_standards() -> dict[str, Path]:
    """Name and file of each standard that comes with the package."""
    return {path.stem: path for path in sorted(STANDARDS_DIR.glob("*.yaml"))}


def parse_standard(content: Any, origin: str) -> Standard:
    """A standard from the content of its file.

    Raises:
        InputError: every problem of the content, one a line.
    """
    try:
        standard = Standard.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(whole file)'}: {e['msg']}" for e in error.errors()]
        raise InputError(f"{origin} is not a valid standard:\n" + "\n".join(lines)) from None
    ids = [criterion.id for criterion in standard.criteria]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise InputError(f"{origin} is not a valid standard: these criteria stand twice: {', '.join(twice)}")
    return standard


def load_standard(name_or_path: str) -> Standard:
    """A shipped standard by name, or any standard by the path of its YAML file.

    Raises:
        InputError: no such standard, not YAML, or not valid.
    """
    path = shipped_standards().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        known = ", ".join(shipped_standards())
        raise InputError(f"There is no standard {name_or_path!r}: neither a shipped one ({known}) nor a file.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from None
    standard = parse_standard(content, str(path))
    shipped = shipped_standards().get(standard.name)
    if shipped is not None and path != shipped:
        raise InputError(
            f"{path} calls itself {standard.name!r}, the name of a shipped standard. Give it another name."
        )
    return standard
