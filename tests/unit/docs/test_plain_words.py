"""The documents use the field's terms. What the program prints stands in code, and is judged where it is made."""

import re
from pathlib import Path

import pytest

from tests.support.documents import SITE, prose, read
from tests.support.examples import ROOT

PATHS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    *SITE.rglob("*.md"),
    *(ROOT / folder / "README.md" for folder in ("baselines", "reports")),
]
# A picture where the field has a term, and the term.
INSTEAD = {
    r"asks?|asked|asking|answerers?": "require, infer, run inference",
    r"tells?|told|telling|says?|said|saying": "report, state, print",
    r"mends?|mended|mending": "fix",
    r"nobody|somebody|whoever": "no one, a person",
    r"beside": "compared with, next to",
    r"comes? to (?:its|their) end|came to (?:its|their) end": "finish",
    r"taken up again|takes? up": "resume",
    r"left away|left out|leaves? out": "omit, remove",
    r"refuses?|refused|refusing": "reject",
    r"looks? into|looked into|looked at|a look": "examine, diagnose, tap",
    r"anew": "again",
    r"believes?|believed": "verify, trust",
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_document_uses_the_terms_of_the_field(path: Path) -> None:
    found = [
        f"{line.strip()!r}: {match[0]!r} -> {better}"
        for line in prose(read(path)).splitlines()
        for picture, better in INSTEAD.items()
        if (match := re.search(rf"\b(?:{picture})\b", line, re.IGNORECASE))
    ]
    assert found == []
