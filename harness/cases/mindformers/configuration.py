"""A training configuration of mindformers (its YAML) as the content of a case, field by field.

Takes the content of such a file; gives the content of a case and every given field with its handling. Keys that are not
in the table of fields, and fields that contradict each other, are errors, reported all at once.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.written import KeyPath, Written, refusal
from harness.cases.mindformers.fields import MODE, Field, known_fields
from harness.cases.mindformers.given import Given
from harness.cases.mindformers.kind import check_kind
from harness.cases.mindformers.large import for_its_size, with_fields
from harness.cases.mindformers.sections import Sections
from harness.cases.mindformers.transfers import read_speed_up


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a file states: the content of a case, each field with its value, and the memory that a device may use.

    The lines of the case's content are those of the fields that it was made from.

    Attributes:
        case: The content of the case.
        fields: The given fields and their values.
        defaults: Where a field that shapes the case is not given: its dotted name and mindformers' default.
        for_size: Fields of the case, by dotted names, that a large model has otherwise than a small one.
        notes: Sentences about fields that are given and have no effect.
        max_device_memory: Such as `58GB`.
        speed_up: The content of the file that `parallel_speed_up_json_path` names; None if there is no such file. It
            configures transfers.
    """

    case: Written
    fields: tuple[tuple[Field, Any], ...]
    defaults: Mapping[str, Any]
    for_size: Mapping[str, Any]
    notes: tuple[str, ...]
    max_device_memory: str | None
    speed_up: Mapping[str, Any] | None


def read_configuration(written: Written) -> Configuration:
    """The case that a configuration describes, named like its file.

    Raises:
        InputError: it is of another model or of mindformers 2.x; or every unknown key, missing key, unsupported value
            and contradiction, with its line.
    """
    check_kind(written)
    read = Given(written.value)
    sections = Sections(read)
    case = sections.case(re.sub(r"[^a-z0-9._-]+", "-", Path(written.origin).stem.lower()).strip("._-") or "case")
    memory, speed_up = sections.max_device_memory, read_speed_up(read, written.origin)
    if read.problems:
        # of another mode the mode alone says what is wrong
        of_mode = [problem for problem in read.problems.values() if problem.keys == (MODE,) and MODE in read.given]
        raise refusal(written, "cannot be read as a case", of_mode or list(read.problems.values()))
    known, for_size = known_fields(), for_its_size(case)
    case = with_fields(case, for_size)
    fields = tuple((known[path], value) for path, value in read.given.items())
    return Configuration(
        case=Written(value=case, origin=written.origin, line_of=functools.partial(_line_of, written, fields)),
        fields=fields,
        defaults=dict(read.defaults),
        for_size=for_size,
        notes=tuple(read.notes),
        max_device_memory=memory,
        speed_up=speed_up,
    )


def _line_of(written: Written, fields: tuple[tuple[Field, Any], ...], keys: KeyPath) -> int | None:
    """The line of the field that a value of the case was read from; the first one if several fields give it, or parts
    of it. A part of a value has the line of the whole one."""
    names = list(map(str, keys))
    for end in range(len(names), 0, -1):
        path = ".".join(names[:end])
        for field, _ in fields:
            if field.case == path or (end > 1 and field.case.startswith(f"{path}.")):
                return written.line_of(field.mindformers.split("."))
    return written.line_of([])
