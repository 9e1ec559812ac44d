"""The matrix of a nightly: its YAML file as a frozen record, all errors at once."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from harness.base.digest import digest_json
from harness.base.written import Problem
from harness.base.yaml_files import read_yaml
from harness.base.yaml_records import Problems, Record, validated
from harness.cases.case import Case, load_case
from harness.certify.case_options import with_layout
from harness.levels.certificate import Level

UNITS = {"s": 1, "m": 60, "h": 3600}
Failing = Literal["regression", "below", "broken", "not run"]
FAILING: tuple[Failing, ...] = ("regression", "below", "broken", "not run")


def _seconds(value: Any) -> Any:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", value) if isinstance(value, str) else None
    if found:
        return float(found[1]) * UNITS[found[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError("write a time as 45s, 30m or 2h")


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class Cell(Record):
    """A case on a device, in its own layout or another one.

    `case` is a shipped case by name, or a path relative to the matrix. `baseline` is a directory of recorded baselines;
    with it, reference and oracle do not run. `subject_python` and `reference_python` are interpreters, relative to the
    matrix; `versions` are versions of packages, and uv makes the environment that both sides then run in. `protection`
    is what keeps the subject's runs from the answers.
    """

    case: str
    device: Literal["CPU", "Ascend"] = "CPU"
    layout: dict[str, Any] | None = None
    level: Level | None = None
    limit: Seconds | None = None
    baseline: str | None = None
    subject: str | None = None
    reference: str | None = None
    oracle: str | None = None
    subject_python: str | None = None
    reference_python: str | None = None
    versions: dict[str, str] | None = None
    protection: Literal["auto", "namespaces", "order"] = "auto"

    @model_validator(mode="after")
    def _one_of_both(self) -> "Cell":
        if self.versions and (self.subject_python or self.reference_python):
            raise ValueError("give versions, or interpreters that have them, and not both")
        return self


class Matrix(Record):
    """All cells of a night, their required levels and time limits, and what makes the night fail."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    level: Level = Level.PRELIMINARY
    limit: Seconds = 3600.0
    fail_on: tuple[Failing, ...] = FAILING
    keep: int = Field(default=30, ge=2)
    keep_gib: float | None = Field(default=None, gt=0)
    cells: tuple[Cell, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> "Matrix":
        names = [name_of(cell) for cell in self.cells]
        twice = [
            Problem(keys=("cells", index), message=f"the cell {name} is given twice")
            for index, name in enumerate(names)
            if name in names[:index]
        ]
        if twice:
            raise Problems(twice)
        return self

    def digest(self) -> str:
        """Digest of the matrix; nights of one matrix have the same."""
        content = self.model_dump(mode="json")
        for cell in content["cells"]:  # a matrix from before the field was there has the digest that it had
            if cell["protection"] == "auto":
                del cell["protection"]
        if content["keep_gib"] is None:
            del content["keep_gib"]
        return digest_json(content)


def name_of(cell: Cell) -> str:
    """A name for a cell, from its case, layout and device, that can be a directory name."""
    layout = "".join(f"-{key}-{value}" for key, value in sorted((cell.layout or {}).items()))
    subject = f"-{cell.subject}" if cell.subject else ""
    versions = "".join(f"-{name}-{version}" for name, version in sorted((cell.versions or {}).items()))
    pythons = "".join(f"-{path}" for path in (cell.subject_python, cell.reference_python) if path)
    case = re.sub(r"\.ya?ml$", "", Path(cell.case).name)  # no stem: the name of a shipped case may have a dot
    words = f"{case}{layout}{subject}{versions}{pythons}-{cell.device}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words).lower()


def case_of(cell: Cell, directory: Path) -> Case:
    """The case of a cell, in the cell's layout; relative paths are relative to `directory`.

    Raises:
        InputError: there is no such case, or it cannot have this layout.
    """
    path = directory / cell.case
    case = load_case(str(path) if path.is_file() else cell.case)
    return with_layout(case, cell.layout)


def load_matrix(path: Path) -> Matrix:
    """The matrix of a file.

    Raises:
        InputError: it is missing, not YAML, or not valid: every problem, one per line.
    """
    return validated(Matrix, read_yaml(path), "matrix")
