"""What a page states about itself: which program rendered it, for which moment, with which trust and statements.

A page is a function of these and of its bundle. So it can be rendered again and compared; a page of another program
cannot, and is not verified.
"""

import functools
import importlib.metadata
import json
import re
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.base.digest import canonical_json, digest_file, digest_json
from harness.base.errors import EvidenceError
from harness.base.records import encode, parse, read_bytes
from harness.evidence.bundle_files import PAGE
from harness.evidence.provenance import in_utc

DISTRIBUTION, BYTECODE = "mindspore-certify", ".pyc"
DRAWN_BY = "plotly"  # whose script is in the page
MARK = re.compile(rb"<!-- rendered (\{[^\n]*\}) -->\n<!-- sha256 [0-9a-f]{64} -->\n\Z")
SHORT = 12


@dataclass(frozen=True, kw_only=True)
class RenderedBy:
    """`at` is the moment of the level (ISO 8601, UTC), `program` the version that rendered the page, `trust` the digest
    of the trust file (None: no signature was checked), `statements` the digests of the statements that lay there."""

    at: str
    program: str
    trust: str | None
    statements: tuple[str, ...]

    @property
    def line(self) -> str:
        """The line of a page that states this."""
        return f"<!-- rendered {canonical_json(encode(self))} -->\n"


@functools.cache
def program() -> str:
    """The version of this program, with the digest of its files, and of what draws its figures."""
    root = Path(harness.__file__).parent
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != BYTECODE)
    digest = digest_json({path.relative_to(root).as_posix(): digest_file(path) for path in files})
    return f"{_version(DISTRIBUTION)} ({digest[:SHORT]}), {DRAWN_BY} {_version(DRAWN_BY)}"


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def rendered(directory: Path) -> RenderedBy | None:
    """What the page of a bundle states about itself; None where it states nothing, as pages of older versions.

    Raises:
        EvidenceError: it states something that is none of this.
    """
    found = MARK.search(read_bytes(directory / PAGE))
    if found is None:
        return None
    try:
        content = json.loads(found[1])
    except (ValueError, RecursionError):
        raise EvidenceError(f"{directory / PAGE} does not state what rendered it.") from None
    stated: RenderedBy = parse(RenderedBy, content, directory / PAGE)
    if not in_utc(stated.at):
        raise EvidenceError(f"{directory / PAGE} states no UTC time of its level, but {stated.at!r}.")
    return stated
