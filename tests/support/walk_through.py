"""The commands of `docs/walk-through.md`, with its days moved to today."""

import datetime
import re

from tests.support.examples import ROOT

DOCUMENT = (ROOT / "docs" / "walk-through.md").read_text(encoding="utf-8")
(TRUST,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
TODAY = datetime.datetime.now(datetime.UTC).date()
DAYS = {"2026-01-01": -30, "2026-12-31": 365, "2026-07-31": 181}


def moved(text: str) -> str:
    """A text with the days that the document names moved."""
    for day, distance in DAYS.items():
        text = text.replace(day, (TODAY + datetime.timedelta(days=distance)).isoformat())
    return text


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the document with the quoted lines of its output."""
    blocks = re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL)
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ "):
            found.append((moved(line[2:]), []))
        else:
            found[-1][1].append(line)
    return found
