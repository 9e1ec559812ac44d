"""The fields of one configuration: given, from the directory of a model, or with mindformers' default.

A field that is not given has the value that mindformers takes, or must be given. Every problem is kept for the end.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.base.near_names import nearest
from harness.base.written import Problem
from harness.cases.mindformers.fields import CONFIG, MODEL, allowed, known_fields
from qwen3_model.config_problems import Qwen3ConfigError
from qwen3_model.configuration_qwen3 import Qwen3Config

EXPONENT = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")  # a number to everyone but YAML 1.1, which wants 1.0e-2
C = TypeVar("C")


class Given:
    """The fields by dotted name, with what is found while they are read.

    Attributes:
        given: The fields of the file itself.
        problems: Each once, however often its field is read.
        defaults: mindformers' defaults of fields that shape the case and are not given.
        notes: Sentences about fields that are given and have no effect.
    """

    def __init__(self, content: Any) -> None:
        self.given = dict(_leaves(content, ""))
        self.problems: dict[tuple[str, str], Problem] = {}
        self.defaults: dict[str, Any] = {}
        self.notes: list[str] = []
        self._from_directory = self._read_directory()

    def _read_directory(self) -> dict[str, Any]:
        """The fields of the model in `pretrained_model_dir`, which the file itself may override."""
        path = self.given.get("pretrained_model_dir")
        if path in (None, ""):
            return {}
        try:
            config = Qwen3Config.from_hf(Path(str(path)))
        except Qwen3ConfigError as error:
            self.refuse("pretrained_model_dir", "; ".join(error.problems))
            return {}
        named = {f"{MODEL}.{name}": value for name, value in config.to_hf().items()}
        return {name: value for name, value in named.items() if name in known_fields()}

    def copied(self) -> dict[str, Any]:
        """The sections of a case with every field that is copied into it, as far as they can be read."""
        case: dict[str, Any] = {}
        for path, value in self.given.items():
            self._take(path, value, case)
        for path, value in self._from_directory.items():
            if path not in self.given:
                self._take(path, value, case)
        self._take_defaults(case)
        return case

    def is_given(self, path: str) -> bool:
        """Whether the file or the directory of the model has a field."""
        return path in self.given or path in self._from_directory

    def get(self, path: str) -> Any:
        """The value of a field; if it is not given, what mindformers takes."""
        if path in self.given:
            return self.given[path]
        return self._from_directory.get(path, known_fields()[path].default)

    def chosen(self, path: str, choices: Mapping[Any, C], words: str = "") -> C:
        """The meaning of a field's value, one of some choices; if it is none, a problem and the first choice."""
        value = self.get(path)
        for one, choice in choices.items():
            if value == one and isinstance(value, bool) == isinstance(one, bool):
                return choice
        only = words or ", ".join(map(str, choices))
        if self.is_given(path):
            self.refuse(path, f"{value!r} is not supported, only {only}")
        elif not known_fields()[path].required:
            self.refuse(path, f"missing: mindformers takes {value!r}, which is not supported, only {only}")
        return next(iter(choices.values()))

    def flag(self, path: str) -> bool:
        """The value of a field that is true or false."""
        return self.chosen(path, {True: True, False: False}, "true, false")

    def refuse(self, path: str, why: str) -> None:
        """Keeps a problem of a field."""
        self.problems[path, why] = Problem(keys=tuple(path.split(".")), message=why)

    def number(self, path: str) -> int:
        """The value of a field that is a whole number above 0; if it is none, a problem and 1."""
        value = self.get(path)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(path, f"{value!r} is no whole number above 0")
            return 1
        return value

    def _take(self, path: str, value: Any, case: dict[str, Any]) -> None:
        known = known_fields().get(path)
        if known is None:
            self.refuse(path, _unknown(path, value))
            return
        if known.fate == "only":
            self.chosen(path, dict.fromkeys(allowed(known.about)), words=known.about)
        if known.case and known.fate in ("case", "only"):
            section, _, name = known.case.partition(".")
            case.setdefault(section, {})[name] = value

    def _take_defaults(self, case: dict[str, Any]) -> None:
        """Every field that is not given: mindformers' default, or a problem."""
        for path, known in known_fields().items():
            if self.is_given(path):
                continue
            if known.required:
                # the model may be in a directory that cannot be read, which is a problem of its own
                if not (path.startswith(MODEL) and self.get("pretrained_model_dir")):
                    self.refuse(path, "missing: a configuration of Qwen3's training states it")
            elif known.default is not None:
                if known.case and known.fate != "idle":
                    self.defaults[path] = known.default
                if known.fate != "read":
                    self._take(path, known.default, case)


def _leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of each field; a mapping that is one entry of the table is one field."""
    if not isinstance(content, Mapping) or path in known_fields():
        yield path, content if path == f"{CONFIG}.data_path" else _with_numbers(content)
        return
    if path and not content:
        yield path, content  # an empty section
    for key, value in content.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _with_numbers(value: Any) -> Any:
    """A value in which numbers such as 1e-2 are numbers: YAML 1.1 reads text."""
    if isinstance(value, list):
        return [_with_numbers(one) for one in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _unknown(path: str, value: Any) -> str:
    """The message about a key that the table does not have."""
    inside = [name.removeprefix(f"{path}.") for name in known_fields() if name.startswith(f"{path}.")]
    if inside:
        return f"{value!r:.40} is not a section with keys such as {inside[0]}"
    section, _, last = path.rpartition(".")
    named = [name for name in known_fields() if name.rpartition(".")[2] == last]
    beside = {name.rpartition(".")[2]: name for name in known_fields() if name.rpartition(".")[0] == section}
    near = (nearest(path, named) or named[0]) if named else beside.get(nearest(last, beside) or "")
    return f"unknown key; did you mean {near!r}?" if near else "unknown key"
