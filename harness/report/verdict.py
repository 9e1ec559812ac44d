"""The first screen: the level in one sentence, its scope, the first failure, and the requirements of each level."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.levels.certificate import Certificate, Level, Requirement, expires
from harness.levels.verdict_words import conclude
from harness.report.failures import REFUSED, Trouble, build_trouble
from harness.report.words import Mark, mark

MET = Mark(glyph="✓", word="met", tone="pass")
UNMET = Mark(glyph="✕", word="not met", tone="fail")
UNSIGNED = (
    "Unsigned evidence: no signature that was verified states who is responsible for it, and whoever had its files "
    "could have changed them."
)
PLACE = "BUNDLE"  # a page does not know where it will lie


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A level of the ladder with its requirements; `state` is `reached`, `next` or `open`."""

    name: str
    state: str
    word: str
    requirements: tuple[tuple[Mark, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`tone` is `good`, `bad` or `open`; the text states the same. `unsigned` is a sentence where no one signed."""

    level: str
    tone: str
    sentence: str
    scope: str
    as_of: str
    valid: str
    unsigned: str | None
    scope_note: str
    counts: tuple[tuple[Mark, int], ...]
    ladder: tuple[Rung, ...]
    next_level: str | None
    missing: tuple[str, ...]
    ceiling: str | None
    trouble: Trouble | None


def build_verdict(bundle: Bundle, certificate: Certificate, *, signed: bool) -> Verdict:
    """Everything of the first two sections."""
    outcomes = Counter(finding.outcome for finding in bundle.findings)
    conclusion = conclude(bundle, certificate, place=PLACE)
    ceiling = next((r for r in certificate.requirements if not r.met and r.text.startswith("Signed")), None)
    return Verdict(
        level=conclusion.level,
        tone=_tone(outcomes, certificate.level),
        sentence=conclusion.sentence,
        scope=conclusion.scope,
        as_of=f"{certificate.at:%Y-%m-%d}",
        valid=_valid(bundle, certificate.at),
        unsigned=None if signed else UNSIGNED,
        scope_note=_scope_note(bundle.environment.device),
        counts=tuple((mark(outcome), outcomes[outcome]) for outcome in Outcome),
        ladder=tuple(_rung(certificate, level) for level in certificate.ladder),
        next_level=conclusion.next_level,
        missing=conclusion.missing,
        ceiling=ceiling.detail.rstrip(".") if ceiling and ceiling not in certificate.missing else None,
        trouble=build_trouble(bundle, conclusion),
    )


def _valid(bundle: Bundle, at: datetime) -> str:
    until = expires(datetime.fromisoformat(bundle.occasion.started))
    return f"The run {'expired on' if at > until else 'is valid until'} {until:%Y-%m-%d}."


def _tone(outcomes: Counter[Outcome], level: Level) -> str:
    if any(outcomes[outcome] for outcome in REFUSED):
        return "bad"
    return "open" if level in (Level.NONE, Level.UNTESTED, Level.COMMUNITY) else "good"


def _scope_note(device: str) -> str:
    if device.upper() == "CPU":
        return "Measured on a CPU. This is not a level on an NPU: this page shows nothing about the model on Ascend."
    return f"Measured on {device}. It holds for no other device, layout or precision."


def _rung(certificate: Certificate, level: Level) -> Rung:
    state = "reached" if certificate.reaches(level) else "next" if level is certificate.next_level else "open"
    words = {"reached": "reached", "next": "not reached", "open": "not reached"}
    rows = [r for r in certificate.requirements if r.level is level]
    return Rung(
        name=level.value,
        state=state,
        word=words[state],
        requirements=tuple((MET if row.met else UNMET, row.text, _detail(row)) for row in rows),
    )


def _detail(requirement: Requirement) -> str:
    return requirement.detail.removeprefix(f"{requirement.text}: ")
