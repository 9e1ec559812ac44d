"""What a person wrote, as plain values with their lines, and the problems that were found in it.

It reads no file: the process of a run takes its case as values, and has no package that reads YAML.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.base.errors import InputError

KeyPath = Sequence[int | str]  # the keys and list positions that lead to a value


def _no_line(_: KeyPath) -> None:
    """The line of a key in content without lines."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """The content of a file.

    Attributes:
        value: The content as plain values.
        origin: The file's name, for messages.
        line_of: The line of the last existing key of a path; None if the content has no lines.
    """

    value: Any
    origin: str
    line_of: Callable[[KeyPath], int | None] = _no_line


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with the value that some keys lead to."""

    keys: tuple[int | str, ...]
    message: str


def refusal(written: Written, what: str, problems: Sequence[Problem]) -> InputError:
    """The error that lists every problem of some content as `FILE:LINE: key.path: message`, by line."""
    found = [(written.line_of(one.keys), _worded(one)) for one in problems]
    return listed(written.origin, what, sorted(found, key=lambda one: one[0] or 0))


def _worded(problem: Problem) -> str:
    return f"{'.'.join(map(str, problem.keys)) or '(whole file)'}: {problem.message}"


def listed(origin: str, what: str, problems: Iterable[tuple[int | None, str]]) -> InputError:
    """The error that lists lines with what is wrong there."""
    lines = [text if line is None else f"{origin}:{line}: {text}" for line, text in problems]
    count = f"{len(lines)} problem{'s' * (len(lines) > 1)}"
    return InputError("\n  ".join([f"{origin} {what} ({count}):", *lines]))
