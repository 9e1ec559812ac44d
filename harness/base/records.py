"""Recorded files in which an edit is detected: canonical JSON, and lists of files by digest.

`encode` turns a record into JSON values, `parse` turns them back. Every record is written and read by these two.
"""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from harness.base.digest import canonical_json, digest_file
from harness.base.errors import EvidenceError
from harness.base.numbers import decode_number, encode_number
from harness.base.text import as_text

# `field(default=None, metadata=LATER)`: records of the same format were written without it. It is left out while it is
# None, so that they are still read.
LATER: Mapping[str, bool] = {"later": True}

# A field of a record that may be not finite.
Float = Annotated[float, BeforeValidator(decode_number)]

LISTED = 10  # names of files in an error
LARGEST_BYTES = (
    64 << 20
)  # of a recorded file that is read whole; the largest of a case of a published size has a few MB


def encode(value: Any) -> Any:
    """A record as JSON values: its fields by name, tuples as lists, numbers that are not finite by name, and paths that
    are no text with escapes."""
    if isinstance(value, float):
        return encode_number(value)
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, int) or value is None:  # most of what is written, so the other kinds come after
        return value
    if isinstance(value, BaseModel):
        return encode(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        absent = {name for name in _later(type(value)) if getattr(value, name) is None}
        return {name: encode(getattr(value, name)) for name in field_names(type(value)) if name not in absent}
    if isinstance(value, Mapping):
        return {encode(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def field_names(kind: Any) -> tuple[str, ...]:
    """The names of a record's fields, in order."""
    return _field_names(kind)


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def encode_json(value: Any) -> bytes:
    """The bytes of a record's JSON file, in the only form that `read_json` accepts."""
    return _canonical(encode(value))


def _canonical(value: Any) -> bytes:
    return (canonical_json(value) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Writes a record as canonical JSON. A kill leaves the old file or the new one, never a part.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is the same each time, so a run that is resumed after a kill overwrites the partial file.
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(encode_json(value))
    except OSError as error:  # that of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None
    os.replace(temporary, path)


def read_bytes(path: Path, largest: int = LARGEST_BYTES) -> bytes:
    """The content of a recorded file, which may have at most so many bytes.

    Raises:
        EvidenceError: it is larger. Nothing of it is read then: a file of holes takes no disk, and all of the memory.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > largest:
        raise EvidenceError(f"{path} has {size:,} bytes, more than the {largest:,} that are read.")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Content of a JSON file that `write_json` wrote.

    Raises:
        EvidenceError: the file is missing, is too large, is not JSON, or is not in canonical form.
    """
    try:
        text = read_bytes(path).decode("utf-8")
        value = json.loads(text)
        same = text.encode() == _canonical(value)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{path} is not JSON: {error}.") from None
    if not same:
        raise EvidenceError(f"{path} is not in canonical form: it was edited.")
    return value


@functools.cache
def _later(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind) if field.metadata == LATER)


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """What validates a kind of record; it takes milliseconds to make."""
    return TypeAdapter(kind)


def parse(kind: Any, value: Any, origin: Path) -> Any:
    """A frozen record from JSON values; `kind` is its dataclass.

    Raises:
        EvidenceError: a field is missing, unknown or of another type.
    """
    try:
        text = canonical_json(value).encode()
    except ValueError as error:
        raise EvidenceError(f"{origin} does not hold what it should: {error}.") from None
    try:
        # as strict JSON: a list may become a tuple, but a text never a number
        record = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise EvidenceError(f"{origin} does not hold what it should: {where}: {first['msg']}.") from None
    # pydantic drops unknown fields of a dataclass and turns 1 into 1.0; only the exact content of the file is accepted
    if canonical_json(encode(record)).encode() != text:
        names = ", ".join(field.name for field in fields(kind))
        raise EvidenceError(f"{origin} does not hold what it should: {names}, each of its type, and nothing else.")
    return record


def read_record(kind: Any, path: Path, form: str) -> Any:
    """A frozen record from its file, whose field `format` names its format.

    Raises:
        EvidenceError: it is missing, has another format, or its content is not valid.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != form:
        raise EvidenceError(f"{path} does not have the format {form!r}.")
    return parse(kind, value, path)


def plain_files(directory: Path) -> list[str]:
    """The relative POSIX paths of all files under a directory, sorted by their parts.

    Raises:
        EvidenceError: something is neither a file nor a directory (mostly a symbolic link), or two names differ only by
            upper and lower case, which some file systems ignore.
    """
    names, seen = list[str](), set[str]()
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise EvidenceError(f"{path} is not a plain file: links are not allowed here.")
        name = path.relative_to(directory).as_posix()
        if name.casefold() in seen:
            raise EvidenceError(f"{path} differs from another name next to it only by upper and lower case.")
        seen.add(name.casefold())
        if path.is_file():
            names.append(name)
    return names


def list_files(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file by its name, which is a path relative to the directory."""
    return {name: digest_file(directory / name) for name in names}


def check_list(directory: Path, files: Mapping[str, str], found: Sequence[str]) -> None:
    """Checks that a directory has exactly the files of a list of paths and digests.

    Raises:
        EvidenceError: files that are missing, extra or changed: of each the first ones and their number.
    """
    missing = sorted(set(files) - set(found))
    extra = sorted(set(found) - set(files))
    changed = [name for name in found if name in files and digest_file(directory / name) != files[name]]
    if missing or extra or changed:
        lists = (("missing", missing), ("extra", extra), ("changed", changed))
        parts = [f"{what}: {_first(names)}" for what, names in lists if names]
        raise EvidenceError(f"{directory} is not what was recorded. " + "; ".join(parts) + ".")


def _first(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
