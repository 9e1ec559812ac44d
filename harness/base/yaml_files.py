"""YAML files that a person wrote: the one place that reads them.

Takes a file or a text, gives its content with the line of every key. Rejects a key that is given twice: YAML readers
keep one of the values without a message, and a standard with two limits would judge by the second. Also rejects aliases
without end.
"""

import functools
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.base.errors import InputError
from harness.base.text import is_text
from harness.base.written import KeyPath, Written, listed

LARGEST_BYTES = 256 << 10  # PyYAML reads some 50 KiB in a second
MOST_NODES = 100_000  # an alias counts as all that it stands for
DEEPEST = 64  # levels of nesting; what uses the content may recurse into it
MERGE, VALUE, STRING = (f"tag:yaml.org,2002:{name}" for name in ("merge", "value", "str"))
PROBLEMS_IN_YAML = "cannot be read as YAML"


def read_yaml(path: Path) -> Written:
    """The content of a file.

    Raises:
        InputError: it cannot be read, is not UTF-8, or is rejected by `parse_yaml`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > LARGEST_BYTES:
        raise InputError(f"{path} has more than {LARGEST_BYTES >> 10} KiB. Is it the YAML file that you mean?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise listed(
            str(path), PROBLEMS_IN_YAML, [(line, f"byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8.")]
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Written:
    """The content of a text; `origin` is what messages call it.

    Raises:
        InputError: it is not YAML, or a key is given twice (all such keys at once), or it is nested too deeply, or
            aliases make it endless or too large.
    """
    try:
        value, root = _content(text)
    except _KeysGivenTwice as error:
        raise listed(origin, PROBLEMS_IN_YAML, error.problems) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character U+{error.character:04X} is not allowed"
        raise listed(origin, PROBLEMS_IN_YAML, [(line, message)]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise listed(origin, PROBLEMS_IN_YAML, [(mark.line + 1 if mark else None, message)]) from None
    except RecursionError:
        raise listed(origin, PROBLEMS_IN_YAML, [(None, "it is nested too deeply")]) from None
    return Written(value=value, origin=origin, line_of=functools.partial(_line_of, root))


def _content(text: str) -> tuple[Any, yaml.Node | None]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        loader.check(root)
        return loader.construct_document(root), root
    finally:
        loader.dispose()


class _KeysGivenTwice(Exception):
    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        super().__init__()
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """Reads a document, and checks it before values are made of it: endless aliases would make endless values."""

    def check(self, root: yaml.Node) -> None:
        """Rejects keys that are given twice, and a document that is too large or too deep."""
        self._extents: dict[int, tuple[int, int] | None] = {}
        self._twice: list[tuple[int, str]] = []
        nodes, levels = self._extent(root)
        if nodes > MOST_NODES or levels > DEEPEST:
            limits = f"at most {MOST_NODES} values and {DEEPEST} levels of nesting are read"
            raise _error(f"too large or too deep, with what its aliases stand for: {limits}", root)
        if self._twice:
            raise _KeysGivenTwice(sorted(self._twice))

    def _extent(self, node: yaml.Node) -> tuple[int, int]:
        """The number of nodes that a node stands for, itself included, and their depth."""
        if id(node) in self._extents:
            known = self._extents[id(node)]
            if known is None:
                raise _error("an alias inside the value that it stands for", node)
            return known
        self._extents[id(node)] = None  # being measured
        if isinstance(node, yaml.ScalarNode) and not is_text(node.value):
            raise _error("a lone surrogate is no character", node)
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        inside = [self._extent(child) for child in _children(node)]
        found = 1 + sum(nodes for nodes, _ in inside), 1 + max((levels for _, levels in inside), default=0)
        self._extents[id(node)] = found
        return found

    def _check_keys(self, node: yaml.MappingNode) -> None:
        first: dict[Hashable, yaml.Node] = {}
        for key, _ in node.value:
            name = self._name(key)
            before = first.setdefault(name, key)
            if before is not key:
                self._twice.append((key.start_mark.line + 1, _given_twice(key, before)))

    def _name(self, key: yaml.Node) -> Hashable:
        """A key as a mapping holds it: 1 and 0x1 are one, 1 and '1' are two."""
        if key.tag == MERGE:
            return key.tag, key.value
        if key.tag == VALUE:  # `=`, which PyYAML has no value for
            key.tag = STRING
        name = self.construct_object(key, deep=True) if isinstance(key, yaml.ScalarNode) else []
        if not isinstance(name, Hashable):
            raise _error("a key is one word or number, and no list or mapping", key)
        return name

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts what `<<` merges before the other keys of a mapping. A key of the mapping replaces a merged one, and of
        two merged mappings the first counts; PyYAML 6.0.4 decides this by whether two texts are one object.

        Source: YAML, merge key language-independent type, version 1.1.
        """
        own = {self._name(key): (key, value) for key, value in node.value if key.tag != MERGE}
        merged: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
        for source in (source for key, value in node.value if key.tag == MERGE for source in _merged_by(value)):
            self.flatten_mapping(source)
            for key, value in source.value:
                merged.setdefault(self._name(key), (key, value))
        node.value = [*(pair for name, pair in merged.items() if name not in own), *own.values()]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value. What its constructor cannot make, such as the day 2026-02-30, is an error at its line."""
        try:
            return super().construct_object(node, deep)
        except yaml.MarkedYAMLError:
            raise
        except Exception:  # constructors of PyYAML raise whatever they come across: `!!int ""` is an IndexError
            raise _error(f"{str(node.value)!r:.60} is no {node.tag.rpartition(':')[2]}", node) from None


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _given_twice(key: yaml.Node, before: yaml.Node) -> str:
    line = before.start_mark.line + 1
    if key.value == before.value:
        return f"the key {key.value!r} is given twice, first in line {line}"
    return f"the key {key.value!r} is the same as {before.value!r} in line {line}"


def _merged_by(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if not isinstance(source, yaml.MappingNode):
            raise _error("'<<' merges a mapping, or a list of mappings", source)
        yield source


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _line_of(root: yaml.Node | None, keys: KeyPath) -> int | None:
    """The line of the last existing key of a path. A key that does not exist, such as a missing one, is skipped."""
    if root is None:
        return 1
    mark, node = root.start_mark, root
    for key in keys:
        mark, node = _step(node, key) or (mark, node)
    return int(mark.line) + 1


def _step(node: yaml.Node, key: int | str) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark, node.value[key]
    if isinstance(node, yaml.MappingNode):
        return next(((name.start_mark, value) for name, value in node.value if name.value == str(key)), None)
    return None
