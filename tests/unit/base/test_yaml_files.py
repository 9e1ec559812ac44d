"""YAML files: what is read is what YAML means, no key is dropped, and every error has its file and line."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.base.yaml_files import DEEPEST, LARGEST_BYTES, MOST_NODES, parse_yaml, read_yaml
from tests.support.examples import ROOT

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.dates()
KEYS = TEXT | st.integers() | st.booleans() | st.dates()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(VALUES, st.booleans())
def test_a_dumped_value_reads_as_yaml_reads_it(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert parse_yaml(text, "f").value == yaml.safe_load(text)


def written(key: Any) -> str:
    """A key on one line; `safe_dump` writes some on two. U+2028 and U+2029 end a line in YAML 1.1."""
    if not isinstance(key, str):
        return str(key)
    return json.dumps(key, ensure_ascii=False).replace("\u2028", r"\L").replace("\u2029", r"\P")


@given(st.lists(KEYS, min_size=1, max_size=6, unique=True), st.integers(0, 3), st.data())
def test_a_key_that_is_given_twice_is_refused_at_its_second_line(keys: list[Any], depth: int, data: Any) -> None:
    twice = data.draw(st.sampled_from(keys))
    first = keys.index(twice)
    after = data.draw(st.integers(first + 1, len(keys)))
    keys.insert(after, twice)
    outer = [f"{'  ' * level}level:" for level in range(depth)]
    text = "\n".join([*outer, *(f"{'  ' * depth}{written(key)}: 1" for key in keys)])
    message = refused(text)
    assert message.startswith("f cannot be read as YAML (1 problem):\n")
    assert f"f:{depth + after + 1}: the key " in message
    assert message.endswith(f"is given twice, first in line {depth + first + 1}")


@given(st.lists(KEYS, min_size=1, max_size=6, unique=True), st.integers(0, 3))
@example(["", "\u2028", "\u2029"], 0)
def test_a_key_is_found_at_its_line_at_any_depth(keys: list[Any], depth: int) -> None:
    outer = [f"{'  ' * level}level:" for level in range(depth)]
    found = parse_yaml("\n".join([*outer, *(f"{'  ' * depth}{written(key)}: 1" for key in keys)]), "f")
    for index, key in enumerate(keys):
        if [str(other) for other in keys].count(str(key)) == 1:
            assert found.line_of([*["level"] * depth, str(key)]) == depth + index + 1


def refused(text: str) -> str:
    with pytest.raises(InputError) as error:
        parse_yaml(text, "f")
    return str(error.value)


def test_every_key_that_is_given_twice_is_told_at_once() -> None:
    message = refused("a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n")
    assert message.splitlines() == [
        "f cannot be read as YAML (3 problems):",
        "  f:2: the key 'c' is given twice, first in line 2",
        "  f:3: the key 'a' is given twice, first in line 1",
        "  f:4: the key 'a' is given twice, first in line 1",
    ]


@pytest.mark.parametrize(("first", "second"), [("1", "0x1"), ("1", "1.0"), ("1", "true"), ("null", "~"), ("a", "'a'")])
def test_two_ways_to_write_one_key_are_one_key(first: str, second: str) -> None:
    """A mapping of Python would keep one of the values, and nobody would know which."""
    assert f"f:2: the key {second.strip(chr(39))!r} is " in refused(f"{first}: x\n{second}: y\n")


@pytest.mark.parametrize("text", ["1: x\n'1': y\n", "a: x\nA: y\n", "true: x\n'true': y\n"])
def test_two_keys_that_look_alike_are_two_keys(text: str) -> None:
    assert parse_yaml(text, "f").value == yaml.safe_load(text)


MERGED = """\
base: &base
  steps: 1
  seed: 2
more: &more
  <<: *base
  seed: 3
first:
  <<: [*more, *base]
  steps: 4
"""


def test_a_merged_key_may_be_given_again() -> None:
    found = parse_yaml(MERGED, "f")
    base, more, first = {"steps": 1, "seed": 2}, {"steps": 1, "seed": 3}, {"steps": 4, "seed": 3}
    assert found.value == {"base": base, "more": more, "first": first}
    lines = [found.line_of(keys) for keys in (["more", "seed"], ["more", "steps"], ["first", "steps"])]
    assert lines == [6, 2, 9], "a merged key is where it is written"


@given(st.text("ab", min_size=1, max_size=2), st.lists(st.integers(0, 3), max_size=3), st.booleans())
def test_of_merged_mappings_the_first_counts_and_what_is_written_out_before_all(
    key: str, order: list[int], own: bool
) -> None:
    """PyYAML itself gives another value for a key of one letter than for a key of two."""
    anchors = [f"m{index}: &m{index} {{{key}: {index}}}" for index in range(4)]
    merged = f"<<: [{', '.join(f'*m{index}' for index in order)}]"
    text = "\n".join([*anchors, f"last: {{{merged}{f', {key}: 9' if own else ''}}}", "again: {<<: {<<: *m0, m: 1}}"])
    wanted = {key: 9} if own else ({key: order[0]} if order else {})
    assert parse_yaml(text, "f").value["last"] == wanted
    assert parse_yaml(text, "f").value["again"] == {key: 0, "m": 1}


@pytest.mark.parametrize("key", ["x", "steps"])
def test_a_mapping_that_is_merged_before_it_is_read_is_read_all_the_same(key: str) -> None:
    text = f"a: &a {{{key}: 1}}\nc:\n  inner: &b\n    <<: *a\n    {key}: 2\n  <<: *b\n"
    assert parse_yaml(text, "f").value == {"a": {key: 1}, "c": {key: 2, "inner": {key: 2}}}


def test_two_merges_in_one_mapping_are_a_key_given_twice() -> None:
    assert "the key '<<' is given twice" in refused("a: &a {x: 1}\nb: &b {y: 1}\nc:\n  <<: *a\n  <<: *b\n")


BAD: dict[str, tuple[str, str]] = {
    "a value key": ("=: 1\n= : 2\n", "f:2: the key '=' is given twice"),
    "a list without end": ("a: 1\nb: [\n", "f:3: "),
    "a wrong indent": ("a:\n  b: 1\n c: 2\n", "f:3: "),
    "a tab": ("a:\n\tb: 1\n", "f:2: "),
    "an unknown alias": ("a: 1\nb: *nowhere\n", "f:2: found undefined alias"),
    "an unknown tag": ("a: 1\nb: !!python/name:os.system\n", "f:2: could not determine a constructor"),
    "two documents": ("a: 1\n---\nb: 2\n", "f:2: expected a single document"),
    "a control character": ("a: 1\nb: \x07\n", "f:2: the character U+0007 is not allowed"),
    "a list as a key": ("a: 1\n? [b]\n: 2\n", "f:2: a key is one word or number"),
    "a mapping as a key": ("a: 1\n? {b: 1}\n: 2\n", "f:2: a key is one word or number"),
    "a list's tag on a key": ("a: 1\n!!seq b: 2\n", "f:2: expected a sequence node"),
    "a day that is none": ("a: 1\nb: 2026-02-30\n", "f:2: '2026-02-30' is no timestamp"),
    "a flag that is none": ("a: 1\nb: !!bool perhaps\n", "f:2: 'perhaps' is no bool"),
    "a number that is none": ("a: 1\nb: !!int x\n", "f:2: 'x' is no int"),
    "a time that is none": ("a: 1\nb: !!timestamp soon\n", "f:2: 'soon' is no timestamp"),
    "a number beyond all": (f"a: 1\nb: {'9' * 5000}\n", "f:2: '99999"),
    "a merge of no mapping": ("a: 1\nb:\n  <<: 3\n", "f:3: '<<' merges a mapping, or a list of mappings"),
    "a list that holds itself": ("a: 1\nb: &b\n  - *b\n", "f:2: an alias inside the value that it stands for"),
    "a mapping that merges itself": ("a: &a\n  <<: *a\n", "f:1: an alias inside the value that it stands for"),
    "too many levels": (f"a: {'[' * (DEEPEST + 1)}{']' * (DEEPEST + 1)}", "f:1: too large or too deep"),
    "far too many levels": ("[" * 5000, "it is nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_yaml_is_refused_with_its_line(bad: str) -> None:
    text, told = BAD[bad]
    message = refused(text)
    assert message.startswith("f cannot be read as YAML (1 problem):\n  ") and told in message
    assert len(message) < 500


@pytest.mark.parametrize("levels", [10, 50, 2000])
def test_aliases_that_multiply_are_refused_at_once(levels: int) -> None:
    """Each list holds the one before ten times: what they stand for has ten to the power of the levels values."""
    lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels))]
    assert "too large or too deep" in (message := refused("\n".join(lines))) or "nested too deeply" in message


def test_a_file_of_many_values_is_read() -> None:
    items = list(range(MOST_NODES // 20))
    assert parse_yaml(yaml.safe_dump(items, default_flow_style=True), "f").value == items


def unreadable(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_yaml(path)
    return str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert unreadable(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'} cannot be read: No such file or directory."
    assert unreadable(tmp_path) == f"{tmp_path} cannot be read: Is a directory."
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert "loop.yaml cannot be read: Too many levels of symbolic links." in unreadable(loop)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: 1\nb: \xff\n", ":2: byte 0xff is not UTF-8"),
        ("a: 1\nb: é\n".encode("latin-1"), ":2: byte 0xe9 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), ":1: byte 0xff is not UTF-8"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused_at_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    assert f"{path}{told}" in unreadable(path)


def test_a_byte_order_mark_is_not_content(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    found = read_yaml(path)
    assert (found.value, found.line_of(["a"]), found.line_of(["b"])) == ({"a": 1, "b": 2}, 1, 2)


def test_a_file_of_another_size_than_people_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"# " + b"x" * LARGEST_BYTES)
    assert unreadable(path) == f"{path} has more than 256 KiB. Is it the YAML file that you mean?"


def test_an_empty_file_is_nothing_at_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("# only a comment\n")
    assert (read_yaml(path).value, read_yaml(path).line_of(["a"])) == (None, 1)


def test_what_is_not_there_is_at_the_nearest_key_that_is() -> None:
    found = parse_yaml("a: 1\nb:\n  - c: 1\n  - d: 1\n", "f")
    wanted = {("b", 1, "d"): 4, ("b", 1, "missing"): 4, ("b", 7): 2, ("missing",): 1, (): 1, ("a", "inside"): 1}
    assert {keys: found.line_of(keys) for keys in wanted} == wanted


def test_yaml_is_read_in_one_place() -> None:
    readers = {"load", "safe_load", "load_all", "safe_load_all", "full_load", "unsafe_load", "compose", "parse", "scan"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("harness", "qwen3_model")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml" and node.attr in readers
    ]
    assert found == []
