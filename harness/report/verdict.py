"""The first screen: the level in one sentence, what it holds for, what broke first, and the rule behind it."""

from collections import Counter
from dataclasses import dataclass

from harness.comparison import REQUIRED_RUNS
from harness.evidence import LOG, Bundle
from harness.judge import Finding, Outcome, describe_place
from harness.levels import COMPUTED, Certificate, Level, Requirement
from harness.report.words import Mark, count, listed, mark, number
from harness.trace import Run

LOG_LINES = 20
SHOWN = 4  # findings that open unfolded
REFUSED = (Outcome.ERROR, Outcome.FAIL)
MET = Mark(glyph="✓", word="met", tone="pass")
UNMET = Mark(glyph="✕", word="not met", tone="fail")
NO_LEVEL = "No level"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A level of the ladder with what it asks for; `state` is `reached`, `next` or `open`."""

    name: str
    state: str
    word: str
    requirements: tuple[tuple[Mark, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class BrokenRun:
    """A run that did not come to its end, in a sentence, with the end of what it printed."""

    name: str
    sentence: str
    log: str


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What a reader whose run went red needs first: broken runs, then the earliest findings, then the others."""

    broken: tuple[BrokenRun, ...]
    first: str | None
    earliest: tuple[tuple[Mark, str], ...]
    others: tuple[tuple[Mark, str], ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`tone` is `good`, `bad` or `open`; the words say the same."""

    level: str
    tone: str
    sentence: str
    scope: str
    asked: str
    scope_note: str
    counts: tuple[tuple[Mark, int], ...]
    ladder: tuple[Rung, ...]
    next_level: str | None
    missing: tuple[str, ...]
    ceiling: str | None
    trouble: Trouble | None


def build_verdict(bundle: Bundle, certificate: Certificate) -> Verdict:
    """Everything of the first two sections."""
    outcomes = Counter(finding.outcome for finding in bundle.findings)
    ceiling = next((r for r in certificate.requirements if not r.met and r.text.startswith("Signed")), None)
    return Verdict(
        level=NO_LEVEL if certificate.level is Level.NONE else certificate.level.value,
        tone=_tone(outcomes, certificate.level),
        sentence=_sentence(bundle, outcomes),
        scope=str(certificate.scope),
        asked=f"{certificate.at:%Y-%m-%d}",
        scope_note=_scope_note(str(bundle.environment["device"])),
        counts=tuple((mark(outcome), outcomes[outcome]) for outcome in Outcome),
        ladder=tuple(_rung(certificate, level) for level in reversed(COMPUTED)),
        next_level=certificate.next_level.value if certificate.next_level else None,
        missing=tuple(_missing(requirement) for requirement in certificate.missing),
        ceiling=ceiling.detail if ceiling and ceiling not in certificate.missing else None,
        trouble=_trouble(bundle),
    )


def _missing(requirement: Requirement) -> str:
    """A criterion's message already says its title."""
    if requirement.detail.startswith(requirement.text):
        return requirement.detail
    return f"{requirement.text}: {requirement.detail}"


def _tone(outcomes: Counter[Outcome], level: Level) -> str:
    if any(outcomes[outcome] for outcome in REFUSED):
        return "bad"
    return "open" if level in (Level.NONE, Level.UNTESTED, Level.COMMUNITY) else "good"


def _sentence(bundle: Bundle, outcomes: Counter[Outcome]) -> str:
    """What the criteria say; a run that broke comes before a number that is off."""
    total = count(len(bundle.findings), "criterion", "criteria")
    broken = [*_broken_names(bundle)]
    step = _first_step(bundle)
    at = f", the first at step {step}" if step is not None else ""
    others = (Outcome.ERROR, "could not be judged"), (Outcome.INCONCLUSIVE, "inconclusive")
    rest = "".join(f"; {outcomes[outcome]} {word}" for outcome, word in others if outcomes[outcome])
    if broken:
        runs = f"{listed(broken)} did not come to {'its' if len(broken) == 1 else 'their'} end"
        return f"{runs}: {outcomes[Outcome.FAIL]} of {total} fail{at}{rest}."
    if outcomes[Outcome.FAIL]:
        return f"{outcomes[Outcome.FAIL]} of {total} fail{at}{rest}."
    return f"{outcomes[Outcome.PASS]} of {total} pass, none fails{rest}."


def _scope_note(device: str) -> str:
    if device.upper() == "CPU":
        elsewhere = "nothing on this page shows how the model behaves on Ascend"
        return f"Measured on a CPU. This is not a level on an NPU: {elsewhere}."
    return f"Measured on {device}. It holds for no other device, layout or precision."


def _rung(certificate: Certificate, level: Level) -> Rung:
    state = "reached" if certificate.reaches(level) else "next" if level is certificate.next_level else "open"
    words = {"reached": "✓ reached", "next": "✕ not reached", "open": "✕ not reached"}
    rows = [r for r in certificate.requirements if r.level is level]
    return Rung(
        name=level.value,
        state=state,
        word=words[state],
        requirements=tuple((MET if row.met else UNMET, row.text, _detail(row)) for row in rows),
    )


def _detail(requirement: Requirement) -> str:
    return requirement.detail.removeprefix(f"{requirement.text}: ")


def _trouble(bundle: Bundle) -> Trouble | None:
    refused = [finding for finding in bundle.findings if finding.outcome in REFUSED]
    broken = tuple(_broken_runs(bundle))
    if not refused and not broken:
        return None
    step = _first_step(bundle)
    failed = [finding for finding in refused if finding.outcome is Outcome.FAIL]
    earliest = [finding for finding in failed if step is None or _step(finding) == step]
    if not broken and not failed:
        earliest = refused
    earliest = sorted(earliest, key=_summarizes)[:SHOWN]
    others = [finding for finding in refused if finding not in earliest]
    others.sort(key=lambda finding: (finding.outcome is Outcome.ERROR, _step(finding) or 0))
    return Trouble(
        broken=broken,
        first=None if step is None else f"The first step beyond a limit is step {number(step)}.",
        earliest=tuple((mark(finding.outcome), finding.message) for finding in earliest),
        others=tuple((mark(finding.outcome), finding.message) for finding in others),
    )


def _summarizes(finding: Finding) -> bool:
    """Whether the limit is for a mean, a root mean square or a bias; one for single steps locates more sharply."""
    return finding.judged[0].limit.statistic in ("mean", "rms", "bias")


def _step(finding: Finding) -> int | None:
    """The first step at which a failed finding exceeds its limit; None where it is not about steps."""
    steps = [
        one.first_beyond for one in finding.judged if one.outcome is Outcome.FAIL and isinstance(one.first_beyond, int)
    ]
    return min(steps, default=None)


def _first_step(bundle: Bundle) -> int | None:
    failed = [_step(finding) for finding in bundle.findings if finding.outcome is Outcome.FAIL]
    return min((step for step in failed if step is not None), default=None)


def _ended(run: Run) -> bool:
    return run.outcome.status == "completed"


def _broken_names(bundle: Bundle) -> list[str]:
    stopped = [name for name, run in bundle.runs.items() if run.outcome.status not in ("completed", "non_finite")]
    return [*stopped, *(name for name in REQUIRED_RUNS if name not in bundle.runs)]


def _broken_runs(bundle: Bundle) -> list[BrokenRun]:
    stopped = [run for run in bundle.runs.values() if not _ended(run)]
    found = [BrokenRun(name=run.name, sentence=_how_it_ended(run), log=_log(bundle, run)) for run in stopped]
    absent = [name for name in REQUIRED_RUNS if name not in bundle.runs]
    return found + [BrokenRun(name=name, sentence="was not run", log="") for name in absent]


def _how_it_ended(run: Run) -> str:
    bad = run.trace.first_non_finite if run.trace else None
    if bad is None:
        return f"{run.outcome.status.replace('_', ' ')}: {run.outcome.detail}"
    numbers = f"loss {number(bad.loss)}, grad norm {number(bad.grad_norm)}"
    return f"not finite at {describe_place(bad.step)}: {numbers}"


def _log(bundle: Bundle, run: Run) -> str:
    """The end of what the run printed: as recorded, else from the log beside the bundle."""
    path = bundle.path / "runs" / run.name / LOG
    text = run.outcome.log_tail
    if not text and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.rstrip().splitlines()[-LOG_LINES:])
