"""The project's Markdown files, and their parts: prose, code, headings, links, tables."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.examples import ROOT

SITE = ROOT / "docs"
FOLDERS = (".", "docs", "docs/design", "baselines", "reports")
DOCUMENTS = tuple(sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md")))
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading with the names by which a link may reach it: GitHub's and MkDocs's differ."""

    level: int
    text: str

    @property
    def on_github(self) -> str:
        kept = re.sub(r"[^\w\- ]", "", self.text.lower())
        return kept.replace(" ", "-")

    @property
    def on_the_site(self) -> str:
        text = unicodedata.normalize("NFKD", self.text).encode("ascii", "ignore").decode()
        return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The language and the content of each fenced block, in order."""
    return FENCE.findall(text)


def without_code_blocks(text: str) -> str:
    return FENCE.sub("", text)


def prose(text: str) -> str:
    """The text without any code."""
    return CODE.sub("", without_code_blocks(text))


def code_spans(text: str) -> list[str]:
    return CODE.findall(without_code_blocks(text))


def links(text: str) -> list[str]:
    """Targets of links and pictures, in order; those in code are none."""
    return LINK.findall(prose(text))


def headings(text: str) -> list[Heading]:
    return [Heading(level=len(marks), text=words) for marks, words in HEADING.findall(without_code_blocks(text))]


def tables(text: str) -> Iterator[list[list[str]]]:
    """The cells of each table, row by row, without the line below its head."""
    for block in re.findall(r"(?:^\|.*\|$\n?)+", without_code_blocks(text), re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
