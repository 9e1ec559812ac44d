"""The README is short, and says the same in English and in Chinese."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support.documents import code_blocks, code_spans, headings, links, prose, read, tables
from tests.support.examples import ROOT

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
BOTH = (ENGLISH, CHINESE)
LINES = 150
# How a heading, point, picture, table, block of code or emphasis begins; nothing for a paragraph.
BLOCK = re.compile(r"#+ |- |!\[|\||```|\*\*|")


def number_counts(text: str) -> Counter[str]:
    """How often each number is in the prose; `float32` is no number."""
    return Counter(re.findall(r"(?<![A-Za-z\d.])\d+(?:\.\d+)*", prose(text)))


@pytest.mark.parametrize("path", BOTH, ids=lambda path: path.name)
def test_the_readme_is_at_most_150_lines(path: Path) -> None:
    assert len(read(path).splitlines()) <= LINES


@pytest.mark.parametrize(("path", "other"), [BOTH, BOTH[::-1]], ids=lambda path: path.name)
def test_the_readme_links_to_its_other_language_in_the_first_lines(path: Path, other: Path) -> None:
    assert other.name in links("\n".join(read(path).splitlines()[:3]))


def test_both_languages_have_the_same_commands() -> None:
    assert code_blocks(read(CHINESE)) == code_blocks(read(ENGLISH))
    assert code_spans(read(CHINESE)) == code_spans(read(ENGLISH))


def test_both_languages_have_the_same_headings() -> None:
    assert [one.level for one in headings(read(CHINESE))] == [one.level for one in headings(read(ENGLISH))]


def test_both_languages_have_the_same_links_in_the_same_order() -> None:
    names = {path.name for path in BOTH}
    of = {path: [target for target in links(read(path)) if target not in names] for path in BOTH}
    assert of[CHINESE] == of[ENGLISH]


def test_both_languages_have_tables_of_the_same_shape() -> None:
    shapes = {path: [[len(row) for row in table] for table in tables(read(path))] for path in BOTH}
    assert shapes[CHINESE] == shapes[ENGLISH]


def test_both_languages_have_the_same_paragraphs_and_points() -> None:
    kinds = {path: [BLOCK.match(block)[0] for block in blocks(read(path))] for path in BOTH}
    assert kinds[CHINESE] == kinds[ENGLISH]


def blocks(text: str) -> list[str]:
    """Paragraphs, points, headings, pictures, tables and code."""
    return re.split(r"\n{2,}|\n(?=- )", text.strip())


def test_both_languages_have_the_same_numbers() -> None:
    assert number_counts(read(CHINESE)) == number_counts(read(ENGLISH))
