"""The computed cells of a site: each with its level, its evidence, its history and every change of its level."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.base.digest import digest_json
from harness.evidence.again import run_again
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome, closest
from harness.levels.cells import LevelCell, LevelChange
from harness.levels.certificate import Certificate, Level
from harness.levels.rule import certify
from harness.levels.scope import Scope
from harness.levels.submission import Submission, started, statement_paths
from harness.levels.verdict_words import missing_words
from harness.report.words import number
from harness.site.changed import changes

TONES = {
    Level.RELEASED: "pass",
    Level.VALIDATED: "pass",
    Level.PRELIMINARY: "open",
    Level.UNTESTED: "inconclusive",
    Level.COMMUNITY: "inconclusive",
    Level.NONE: "fail",
}
SHORT = 12  # digits of a digest in a name
SPARK_WIDTH, SPARK_HEIGHT, SPARK_EDGE, SPARK_RUNS = 160, 36, 4, 40


@dataclass(frozen=True, kw_only=True)
class Past:
    """One run of a cell: its level on its day, its certificate, and the share of its limit that a criterion used."""

    day: str
    level: Level
    tone: str
    worst: str
    ratio: float | None
    criterion: str
    digest: str
    revision: str
    page: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a cell's level, with what was missing for the next one."""

    at: datetime
    day: str
    before: Level
    after: Level
    tone: str
    bundle: str
    why: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SiteCell:
    """A computed cell. `page`, `certificate` and `badge` are paths on the site; `fallen` is the last earlier run with a
    higher level than the cell has now."""

    id: str
    case: str
    case_digest: str
    changed: tuple[str, ...]
    scope: Scope
    level: Level
    tone: str
    run: str
    until: str | None
    worst: str
    ratio: float | None
    criterion: str
    passed: int
    criteria: int
    next_level: Level | None
    why: tuple[str, ...]
    digest: str
    page: str
    certificate: str
    badge: str
    history: tuple[Past, ...]
    changes: tuple[Change, ...]
    fallen: Past | None
    spark: str
    again: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """A cell, the bundle that it has its level from, and each run with its certificate by the path of its page."""

    cell: SiteCell
    submission: Submission
    pages: Mapping[str, tuple[Submission, Certificate]]


def build_cell(group: LevelCell, at: datetime) -> Built:
    """The computed cell of a group of runs at a moment."""
    submission, certificate = group.current(at)
    bundle = submission.bundle
    id_ = _id(group, bundle)
    found = closest(bundle.findings)
    history = tuple(_past(id_, one) for one in group.runs)
    cell = SiteCell(
        id=id_,
        case=bundle.case.name,
        case_digest=group.case_digest,
        changed=changes(bundle.case),
        scope=group.scope,
        level=certificate.level,
        tone=TONES[certificate.level],
        run=certificate.started.date().isoformat(),  # a year of four digits, which strftime does not give of all
        until=certificate.until.date().isoformat() if certificate.until else None,
        worst=_worst(found[0] if found else None),
        ratio=_finite(found[0] if found else None),
        criterion=f"{found[1].standard}/{found[1].criterion}" if found else "",
        passed=sum(one.outcome is Outcome.PASS for one in bundle.findings),
        criteria=len(bundle.findings),
        next_level=certificate.next_level,
        why=tuple(map(missing_words, certificate.missing)),
        digest=bundle.digest,
        page=f"cells/{id_}.html",
        certificate=_certificate(id_, bundle),
        badge=f"badges/{id_}.svg",
        history=history,
        changes=tuple(map(_change, group.changes(at))),
        fallen=_fallen(history, certificate.level),
        spark=_spark(history),
        again=run_again(bundle, *(("--device", "Ascend") if group.scope.device == "Ascend" else ())),
    )
    pages = {_certificate(id_, one.bundle): (one, rated) for one, rated in group.certificates(at)}
    return Built(cell=cell, submission=submission, pages=pages)


def slug(text: str) -> str:
    """A safe file name: only letters, digits, dots and dashes, for any text of a bundle."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _id(group: LevelCell, bundle: Bundle) -> str:
    """The name of a cell's files; its last part is a digest of scope and case, so that no two cells have one."""
    key = digest_json([group.scope.record(), group.case_digest])[:8]
    return slug(f"{bundle.case.name}-{group.scope.implementation}-{group.scope.device}-{key}")


def _certificate(id_: str, bundle: Bundle) -> str:
    """The page of a bundle. Runs with the same bits differ in when they were made, and copies in what was signed."""
    key = digest_json([bundle.record, [path.name for path in statement_paths(bundle.path)]])
    return f"certificates/{id_}-{bundle.digest[:SHORT]}-{key[:SHORT]}.html"


def _past(id_: str, submission: Submission) -> Past:
    """A run with its level on its own day, whether or not it has expired since."""
    bundle, day = submission.bundle, started(submission)
    level = certify(submission, day).level
    found = closest(bundle.findings)
    revision = bundle.source.revision
    return Past(
        day=f"{day:%Y-%m-%d %H:%M}",
        level=level,
        tone=TONES[level],
        worst=_worst(found[0] if found else None),
        ratio=_finite(found[0] if found else None),
        criterion=f"{found[1].standard}/{found[1].criterion}" if found else "",
        digest=bundle.digest,
        revision=f"{revision[:SHORT]}{' +' * bundle.source.dirty}" if revision else "",
        page=_certificate(id_, bundle),
    )


def _change(change: LevelChange) -> Change:
    level = change.certificate.level
    return Change(
        at=change.at,
        day=f"{change.at:%Y-%m-%d %H:%M}",
        before=change.before,
        after=level,
        tone=TONES[level],
        bundle=change.bundle,
        why=tuple(map(missing_words, change.certificate.missing)),
    )


def _fallen(history: Sequence[Past], level: Level) -> Past | None:
    """The last earlier run with a higher level than the newest run and the cell have."""
    lower = (level, history[-1].level)
    return next((one for one in reversed(history[:-1]) if not any(now.reaches(one.level) for now in lower)), None)


def _worst(ratio: float | None) -> str:
    return "–" if ratio is None else number(ratio)


def _finite(ratio: float | None) -> float | None:
    return ratio if ratio is not None and math.isfinite(ratio) else None


def _spark(history: Sequence[Past]) -> str:
    """The worst ratios of the last runs as points of an SVG line, logarithmic, with the limit at the top."""
    ratios = [one.ratio for one in history[-SPARK_RUNS:]]
    if len(ratios) < 2:
        return ""
    return " ".join(_points(ratios))


def _points(ratios: Sequence[float | None]) -> Iterator[str]:
    step = (SPARK_WIDTH - 2 * SPARK_EDGE) / (len(ratios) - 1)
    for index, ratio in enumerate(ratios):
        decades = min(max(math.log10(ratio), -2.0), 1.0) if ratio else (1.0 if ratio is None else -2.0)
        y = SPARK_EDGE + (1.0 - decades) / 3.0 * (SPARK_HEIGHT - 2 * SPARK_EDGE)
        yield f"{SPARK_EDGE + index * step:.1f},{y:.1f}"
