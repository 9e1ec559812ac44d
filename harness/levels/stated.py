"""What MindSpore Transformers states: a level for each model and task of Qwen3, with the layout it stands next to.

The files under `stated_levels/` are facts read from the pages that `source` names (repository, path, commit), typed as
data. `levels.csv` has the levels; an empty cell is not stated. The layout of 30B-A3B's pretraining is headed 32B in its
source and is taken as that of its page's model. Levels of `lora` stand only in the source's table of layouts.
`settings.csv` has what the source sets next to a layout of a task; an empty size is every size. `versions.csv` has the
versions that belong together. A stated level is never a computed one: nothing here reads evidence.
"""

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from harness.base.digest import digest_file, digest_json
from harness.base.errors import InputError
from harness.base.yaml_records import Record
from harness.levels.certificate import Level
from qwen3_model.parallel_config import ParallelConfig

STATED_DIR = Path(__file__).parent / "stated_levels"
LEVELS, SETTINGS, VERSIONS = "levels.csv", "settings.csv", "versions.csv"
COLUMN_ENDS = re.compile(r"\s*;\s*")


def _maybe(value: object) -> object:
    """None for an empty cell of a table."""
    return None if value == "" else value


def _names(value: object) -> object:
    return tuple(filter(None, COLUMN_ENDS.split(value))) if isinstance(value, str) else value


def _a_level(value: Level) -> Level:
    if value is Level.NONE:
        raise ValueError("'none' is no level that is stated")
    return value


Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
MaybeCount = Annotated[Count | None, BeforeValidator(_maybe)]
Source = Annotated[str, Field(pattern=r"^\S+ \S+@[0-9a-f]{7,40}$")]
StatedTask = Literal["pretrain", "finetune", "lora", "inference"]


class _Levels(Record):
    model: Text
    size: Text
    task: StatedTask
    architecture: Text
    stated_devices: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]
    layout_device: Text
    cards: Count
    sequence_length: MaybeCount
    data_parallel: Count
    model_parallel: Count
    pipeline_stage: MaybeCount
    micro_batch_num: MaybeCount
    recompute: Annotated[bool | None, BeforeValidator(_maybe)]
    max_device_memory: Text
    stated_level: Annotated[Level, AfterValidator(_a_level)]
    source: Source
    read_on: date


class _Settings(Record):
    size: str
    task: StatedTask
    setting: Text
    value: Text


class StatedVersions(Record):
    """Versions of the four packages that belong together."""

    mindspore_transformers: Text
    mindspore: Text
    cann: Text
    hdk: Text
    source: Source
    read_on: date


class StatedLevel(_Levels):
    """A level as stated, with the settings that stand next to its layout by their names in mindformers' YAML."""

    settings: Mapping[str, str]

    @property
    def layout(self) -> ParallelConfig:
        """Its layout; what is not stated is 1 or off, as in mindformers."""
        return ParallelConfig(
            data_parallel=self.data_parallel,
            model_parallel=self.model_parallel,
            pipeline_stage=self.pipeline_stage or 1,
            micro_batch_num=self.micro_batch_num or 1,
            use_seq_parallel=self.settings.get("use_seq_parallel") == "True",
            vocab_emb_dp=self.settings.get("vocab_emb_dp") == "True",
        )


@dataclass(frozen=True, kw_only=True)
class Stated:
    """All that is stated; `digest` is that of the three files, by their names."""

    levels: tuple[StatedLevel, ...]
    versions: tuple[StatedVersions, ...]
    digest: str


@functools.cache
def load_stated(directory: Path = STATED_DIR) -> Stated:
    """The stated levels and versions of a directory with the three files.

    Raises:
        InputError: a file is missing, or every problem of a file with its line; also two levels of one model, size,
            task and layout.
    """
    settings = [row for _, row in _rows(directory / SETTINGS, _Settings)]
    rows = list(_rows(directory / LEVELS, _Levels))
    _check_unique(directory / LEVELS, rows)
    return Stated(
        levels=tuple(_stated(row, settings) for _, row in rows),
        versions=tuple(row for _, row in _rows(directory / VERSIONS, StatedVersions)),
        digest=digest_json({name: digest_file(directory / name) for name in (LEVELS, SETTINGS, VERSIONS)}),
    )


def _stated(row: _Levels, settings: Sequence[_Settings]) -> StatedLevel:
    own = {one.setting: one.value for one in settings if one.task == row.task and one.size in ("", row.size)}
    return StatedLevel(**row.model_dump(), settings=own)


R = TypeVar("R", bound=Record)


def _rows(path: Path, kind: type[R]) -> Iterator[tuple[int, R]]:
    """The rows of a table, each with the number of its line."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, restkey="more than the columns")
            lines = [(table.line_num, row) for row in table]
            columns = tuple(table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}. Take it from a release of this project.") from None
    if columns != tuple(kind.model_fields):
        raise InputError(f"{path}: expected the columns {','.join(kind.model_fields)}, found {','.join(columns)}.")
    problems, found = list[str](), list[tuple[int, R]]()
    for line, row in lines:
        try:
            found.append((line, kind.model_validate(row)))
        except ValidationError as error:
            problems += [f"line {line}: {_where(one['loc'])}: {one['msg']}" for one in error.errors()]
    if problems:
        raise InputError(f"{path} is not a table of what is stated:\n  " + "\n  ".join(problems))
    return iter(found)


def _where(keys: tuple[int | str, ...]) -> str:
    return str(keys[0]) if keys else "the line"


def _check_unique(path: Path, rows: Sequence[tuple[int, _Levels]]) -> None:
    first: dict[tuple[object, ...], int] = {}
    for line, row in rows:
        cell = (row.model, row.size, row.task, row.layout_device, row.cards)
        if (before := first.setdefault(cell, line)) != line:
            words = f"{row.model} {row.size}, {row.task}, {row.layout_device}"
            raise InputError(f"{path}: lines {before} and {line} both state a level of {words}. Keep one of them.")
