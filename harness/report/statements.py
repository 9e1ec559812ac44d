"""Who signed what about a bundle, and which of it counts on a day.

A valid signature identifies the signer. Whether the statement matches the bundle is checked here too, so that no
statement is shown as valid that counts for no level.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.attestation import Attestation, Claim, Recording, Refused, Signed, Waiver, Withdrawn
from harness.evidence.bundle import Bundle
from harness.levels.recorded import baseline_objection
from harness.levels.submission import Submission, objection, waiver_objection
from harness.report.words import Mark, count

VALID = Mark(glyph="✓", word="valid", tone="pass")
IDLE = Mark(glyph="✕", word="does not count", tone="fail")
WITHDRAWN = Mark(glyph="✕", word="withdrawn", tone="inconclusive")
REFUSED = Mark(glyph="✕", word="rejected", tone="fail")


@dataclass(frozen=True, kw_only=True)
class StatementRow:
    """One signed statement. A rejected one is not verified, neither person nor role, so it has only `detail`."""

    mark: Mark
    person: str
    role: str
    what: str
    date: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Statements:
    """`unread` is a sentence if the bundle has statements and no trust file was given."""

    rows: tuple[StatementRow, ...]
    unread: str | None


def build_statements(submission: Submission) -> Statements:
    """Every statement of a bundle: valid attestations first, then recordings, waivers, withdrawn and rejected ones."""
    statements, bundle = submission.statements, submission.bundle
    rows = (
        *(_attestation(bundle, signed) for signed in statements.attestations),
        *(_recording(bundle, signed) for signed in statements.recordings),
        *(_waiver(submission, signed) for signed in statements.waivers),
        *map(_withdrawn, statements.withdrawn),
        *map(_refused, statements.refused),
    )
    # Each distinct file is in one of the lists, or withdraws one that is: no rows means that none was read.
    files = 0 if rows else len(submission.files)
    return Statements(rows=tuple(rows), unread=_unread(files) if files else None)


def _unread(files: int) -> str:
    verb = "was" if files == 1 else "were"
    return f"{count(files, 'signed statement')} in this bundle {verb} not checked: no trust file was given."


def _attestation(bundle: Bundle, signed: Attestation) -> StatementRow:
    why = objection(signed.statement, bundle)
    return _row(signed, IDLE if why else VALID, why or "")


def _recording(bundle: Bundle, signed: Signed[Recording]) -> StatementRow:
    why = baseline_objection(signed.statement, bundle)
    return _row(signed, IDLE if why else VALID, why or "")


def _waiver(submission: Submission, signed: Signed[Waiver]) -> StatementRow:
    why = waiver_objection(signed, submission)
    return _row(signed, IDLE if why else VALID, why or signed.statement.reason)


def _withdrawn(entry: Withdrawn) -> StatementRow:
    by = entry.by
    return _row(entry.signed, WITHDRAWN, f"by {by.person} on {by.statement.stated_at:%Y-%m-%d}: {by.statement.reason}")


def _refused(entry: Refused) -> StatementRow:
    return StatementRow(mark=REFUSED, person="", role="", what=entry.digest[:12], date="", detail=entry.reason)


def _row(
    signed: Signed[Claim] | Signed[Recording] | Signed[Waiver] | Signed[Claim | Recording | Waiver],
    mark: Mark,
    detail: str,
) -> StatementRow:
    statement = signed.statement
    return StatementRow(
        mark=mark,
        person=signed.person,
        role=statement.role,
        what="; ".join(_content(statement)),
        date=f"{statement.stated_at:%Y-%m-%d}",
        detail=detail,
    )


def _content(statement: Claim | Recording | Waiver) -> Iterator[str]:
    if isinstance(statement, Recording):
        yield f"baseline, recorded {statement.recorded} by {statement.author} on {statement.recorded_on}"
        return
    if isinstance(statement, Waiver):
        yield f"{statement.criterion} waived until {statement.until}"
        return
    yield f"{statement.result}: {len(statement.passed)} criteria passed"
    for names, word in ((statement.failed, "failed"), (statement.warned, "inconclusive")):
        if names:
            yield f"{len(names)} {word}"
