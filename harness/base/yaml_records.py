"""Frozen records of what a person wrote in YAML: nothing in a file is ignored, and all of its problems come at once."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from harness.base.near_names import nearest
from harness.base.written import KeyPath, Problem, Written, refusal

UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
NO_LIST = ("tuple_type", "list_type")
NO_MAPPING = ("model_type", "model_attributes_type", "dataclass_type")


class Record(BaseModel):
    """Frozen; an unknown key is an error, never ignored, and so are a number that is not finite, and `yes` for one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, content: Any) -> Any:
        given = content if isinstance(content, dict) else {}
        fields = _fields(cls)
        wrong = [name for name, value in given.items() if isinstance(value, bool) and _a_number(fields.get(name))]
        if wrong:
            problems = [Problem(keys=(name,), message=f"expected a number, got {given[name]}") for name in wrong]
            raise Problems(problems)
        return content


R = TypeVar("R", bound=Record)


class Problems(ValueError):
    """Raised by a validator that finds several problems, each somewhere inside what it validates."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(one.message for one in problems))
        self.problems = tuple(problems)


def validated(kind: type[R], written: Written, what: str, *, context: Any = None) -> R:
    """A record from what a person wrote.

    Args:
        kind: The record.
        written: The content.
        what: What the record is called in "FILE is not a valid WHAT".
        context: For its validators.

    Raises:
        InputError: every problem of the content, with its line.
    """
    try:
        return kind.model_validate(written.value, context=context)
    except ValidationError as error:
        problems = [problem for one in _own_errors(error) for problem in _problems(kind, one)]
        raise refusal(written, f"is not a valid {what}", problems) from None


def _own_errors(error: ValidationError) -> Iterator[ErrorDetails]:
    """The errors, without that a list is too short where only items of it are wrong: pydantic does not count those."""
    errors = error.errors()
    for one in errors:
        inside = [other for other in errors if other is not one and other["loc"][: len(one["loc"])] == one["loc"]]
        if one["type"] != "too_short" or not inside:
            yield one


def _problems(kind: type[Record], error: ErrorDetails) -> Iterator[Problem]:
    keys, cause = error["loc"], error.get("ctx", {}).get("error")
    if isinstance(cause, Problems):
        yield from (Problem(keys=(*keys, *one.keys), message=one.message) for one in cause.problems)
    elif listed := getattr(cause, "problems", None):  # of the model's package, which knows no YAML
        parts = [str(one).partition(": ") for one in listed]
        yield from (Problem(keys=(*keys, name), message=message) for name, _, message in parts)
    elif error["type"] in UNKNOWN_KEY:
        yield Problem(keys=keys, message=_unknown_key(str(keys[-1]), _known_keys(kind, keys[:-1])))
    elif error["type"] in NO_MAPPING:
        yield Problem(keys=keys, message=f"expected a mapping with the keys {', '.join(_known_keys(kind, keys))}")
    elif error["type"] in NO_LIST:
        yield Problem(keys=keys, message="expected a list")
    else:
        # the refused value is not repeated: it could be a private key
        yield Problem(keys=keys, message=error["msg"].removeprefix("Value error, "))


def _unknown_key(key: str, known: Sequence[str]) -> str:
    near = nearest(key, known)
    return f"unknown key; did you mean {near!r}?" if near else f"unknown key; known: {', '.join(known)}"


def _known_keys(kind: Any, keys: KeyPath) -> tuple[str, ...]:
    """The keys of the record that some keys lead to inside of another one."""
    for key in keys:
        if isinstance(key, str) and key in _fields(kind):
            kind = next(filter(_fields, _inside(_fields(kind)[key])), None)
    return tuple(_fields(kind))


def _fields(kind: Any) -> Mapping[str, Any]:
    """The fields of a record and their types; empty for what is none."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return typing.get_type_hints(kind)
    return {}


def _a_number(annotation: Any) -> bool:
    """Whether a field takes numbers and no booleans."""
    inside = set(filter(lambda one: isinstance(one, type), _inside(annotation)))
    return bool(inside & {int, float}) and bool not in inside


def _inside(annotation: Any) -> Iterator[Any]:
    """A type, or those inside of it: the items of a tuple, what is optional."""
    yield annotation
    for inner in typing.get_args(annotation):
        yield from _inside(inner)
