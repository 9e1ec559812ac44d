"""A page rendered again and compared with the one that lies in a bundle."""

import base64
import gzip
import io
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from harness.attestation import Trust
from harness.base.digest import digest_bytes
from harness.base.errors import EvidenceError
from harness.base.records import read_bytes
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import PAGE
from harness.evidence.page import RenderedBy, program, rendered
from harness.levels.rule import certify
from harness.levels.submission import statement_digests, submitted

PACKED = re.compile(r"[A-Za-z0-9+/]{1000,}={0,2}")
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]?\d+)?(?![\w.])|(?<![\w.])-?\d+e[+-]?\d+(?![\w.])")
SAME_DIGITS = 1e-6  # processors sum in different orders, and a number of a figure is printed in full
LARGEST_UNPACKED = 256 << 20


class PageState(StrEnum):
    """Whether the page of a bundle is the page of that bundle."""

    NONE = "no page"
    VERIFIED = "verified"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, kw_only=True)
class PageCheck:
    """The state of a page, and why it could not be verified."""

    state: PageState
    why: str = ""


def check_page_again(bundle: Bundle, trust: Trust | None) -> PageCheck:
    """Renders the page of a bundle again and compares.

    Raises:
        EvidenceError: the page is not what its bundle gives.
    """
    path = bundle.path / PAGE
    if not path.is_file():
        return PageCheck(state=PageState.NONE)
    stated = rendered(bundle.path)
    if why := _cannot(stated, bundle, trust):
        return PageCheck(state=PageState.UNVERIFIED, why=why)
    assert stated is not None
    from harness.report import page_text  # here, because nothing else of `certify verify` draws

    submission = submitted(bundle, trust, datetime.fromisoformat(stated.at), only=stated.statements)
    again = page_text(submission, certify(submission, datetime.fromisoformat(stated.at)))
    content = read_bytes(path).decode(errors="replace")
    if not _same(content[: content.rfind("<!-- sha256 ")], again):
        raise EvidenceError(
            f"{path} does not show what its bundle gives: it was edited. Write it again: {report_command(bundle)}"
        )
    return PageCheck(state=PageState.VERIFIED)


def report_command(bundle: Bundle) -> str:
    """The command that writes the page of a bundle again."""
    return shlex.join(["certify", "report", str(bundle.path)])


def _cannot(stated: RenderedBy | None, bundle: Bundle, trust: Trust | None) -> str | None:
    """Why a page cannot be rendered again here."""
    if stated is None:
        return "rendered by an older version, which does not state itself"
    if stated.program != program():
        return f"rendered by version {stated.program}, and this is {program()}"
    if stated.trust != (trust.digest() if trust else None):
        given = "without a trust file" if stated.trust is None else f"with the trust file {stated.trust[:12]}"
        return f"rendered {given}, and verified with another"
    if gone := set(stated.statements) - set(statement_digests(bundle)):
        return f"rendered with {len(gone)} signed statements that lie there no more"
    return None


def _same(page: str, again: str) -> bool:
    """Whether two pages are the same but for the last digits of numbers and for how their data is packed."""
    if page == again:
        return True
    one, other = _unpacked(page), _unpacked(again)
    if NUMBER.sub("#", one) != NUMBER.sub("#", other):
        return False
    return all(
        a == b or math.isclose(float(a), float(b), rel_tol=SAME_DIGITS)
        for a, b in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    )


def _unpacked(page: str) -> str:
    return "".join(_pieces(page))


def _pieces(page: str) -> Iterator[str]:
    end = 0
    for packed in PACKED.finditer(page):
        yield page[end : packed.start()]
        yield _content(packed[0])
        end = packed.end()
    yield page[end:]


def _content(packed: str) -> str:
    """What is packed, or the text itself where it is not packed; a script by its digest."""
    try:
        with gzip.open(io.BytesIO(base64.b64decode(packed, validate=True))) as file:
            data = file.read(LARGEST_UNPACKED)
    except (OSError, EOFError, ValueError):
        return packed
    text = data.decode(errors="replace")
    return text if text.startswith("{") else digest_bytes(data)
