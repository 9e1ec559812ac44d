"""Who signed what about a bundle, and what of it counts on the day that is asked for.

A signature that is good says who speaks; whether what they say is what the bundle shows is asked here as well, so that
nothing is shown as standing that carries no level.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.attestation import Attestation, Claim, Refused, Signed, Waiver, Withdrawn
from harness.evidence.bundle import Bundle
from harness.levels.submission import Submission, objection, statement_files
from harness.report.words import Mark, count

STANDS = Mark(glyph="✓", word="stands", tone="pass")
IDLE = Mark(glyph="✕", word="does not count", tone="fail")
WITHDRAWN = Mark(glyph="✕", word="withdrawn", tone="inconclusive")
REFUSED = Mark(glyph="✕", word="refused", tone="fail")


@dataclass(frozen=True, kw_only=True)
class StatementRow:
    """One signed statement. Of a refused one nothing is believed, neither person nor role, so only `detail` is said."""

    mark: Mark
    person: str
    role: str
    what: str
    date: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Statements:
    """`unread` is a sentence where the bundle holds statements, and nobody said whom to believe."""

    rows: tuple[StatementRow, ...]
    unread: str | None


def build_statements(submission: Submission) -> Statements:
    """Every statement of a bundle: those that stand first, then waivers, withdrawn and refused ones."""
    standing, bundle = submission.standing, submission.bundle
    rows = (
        *(_attestation(bundle, signed) for signed in standing.attestations),
        *(_waiver(bundle, signed) for signed in standing.waivers),
        *map(_withdrawn, standing.withdrawn),
        *map(_refused, standing.refused),
    )
    # Each distinct file is in one of the lists, or is the withdrawal of one that is: no rows means that none was read.
    files = 0 if rows else len(statement_files(bundle))
    return Statements(rows=tuple(rows), unread=_unread(files) if files else None)


def _unread(files: int) -> str:
    verb = "was" if files == 1 else "were"
    return f"{count(files, 'signed statement')} in this bundle {verb} not looked at: nobody was said to be trusted."


def _attestation(bundle: Bundle, signed: Attestation) -> StatementRow:
    why = objection(signed.statement, bundle)
    return _row(signed, IDLE if why else STANDS, why or "")


def _waiver(bundle: Bundle, signed: Signed[Waiver]) -> StatementRow:
    same = signed.statement.case_digest == bundle.case.digest()
    return _row(signed, STANDS if same else IDLE, signed.statement.reason if same else "is about another case")


def _withdrawn(entry: Withdrawn) -> StatementRow:
    by = entry.by
    return _row(entry.signed, WITHDRAWN, f"by {by.person} on {by.statement.stated_at:%Y-%m-%d}: {by.statement.reason}")


def _refused(entry: Refused) -> StatementRow:
    return StatementRow(mark=REFUSED, person="", role="", what=entry.digest[:12], date="", detail=entry.reason)


def _row(signed: Signed[Claim] | Signed[Waiver] | Signed[Claim | Waiver], mark: Mark, detail: str) -> StatementRow:
    statement = signed.statement
    return StatementRow(
        mark=mark,
        person=signed.person,
        role=statement.role,
        what="; ".join(_said(statement)),
        date=f"{statement.stated_at:%Y-%m-%d}",
        detail=detail,
    )


def _said(statement: Claim | Waiver) -> Iterator[str]:
    if isinstance(statement, Waiver):
        yield f"{statement.criterion} waived until {statement.until}"
        return
    yield f"{statement.result}: {len(statement.passed)} criteria passed"
    for names, word in ((statement.failed, "failed"), (statement.warned, "not shown")):
        if names:
            yield f"{len(names)} {word}"
