"""The verdict on a bundle in words: the level, what fails first and where, what is missing, and the next command.

The command line, the pytest plugin, a night and the page of a bundle all take their sentences from here; each of them
only lays them out.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.base.text import listed
from harness.evidence.again import RUN, without_place
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Finding, Outcome, closest
from harness.evidence.summary import broken_names, can_be_diagnosed, first_failure, remarks
from harness.levels.certificate import Certificate, Level, Requirement

NO_LEVEL = "No level"
FEW = 3  # so many criteria that state nothing for one reason are one line
RESUMES = "resumes the runs that did not finish; if the code has changed since, start again with another --out"
UNFINISHED = "a run that they need did not finish"
SAME_LOG = "its log ends like that of {}"


@dataclass(frozen=True, kw_only=True)
class NextCommand:
    """A command that can be pasted as it is, and its result."""

    command: str
    result: str


@dataclass(frozen=True, kw_only=True)
class ClosestCriterion:
    """A criterion as `STANDARD/CRITERION`, and the share of its limit that is used; above 1 it is exceeded."""

    criterion: str
    used: float

    def __str__(self) -> str:
        return f"{self.criterion}, at {self.used:.4g} of its limit"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """A verdict in words.

    Attributes:
        case: The name of the case.
        level: The level; `No level` where none is reached.
        scope: What the level holds for.
        sentence: How many criteria pass or fail, after the runs that did not finish.
        broken: How each run ended that did not complete, by its name.
        findings: Each criterion that does not pass, with its outcome; those that say nothing for one reason together.
        first: The failure at the earliest step; None where no failure is about steps.
        remarks: What to know about the failures.
        missing: Each requirement that is missing for the next level.
        next_level: That level; None where the highest is reached.
        closest: The criterion that is closest to its limit, or furthest beyond it; None where no limit has a share.
        next_command: None if there is nothing to do.
    """

    case: str
    level: str
    scope: str
    sentence: str
    broken: Mapping[str, str]
    findings: tuple[tuple[Outcome, str], ...]
    first: str | None
    remarks: tuple[str, ...]
    missing: tuple[str, ...]
    next_level: str | None
    closest: ClosestCriterion | None
    next_command: NextCommand | None

    @property
    def headline(self) -> str:
        """Case, level and scope."""
        return f"{self.case}: {self.level} ({self.scope})"

    @property
    def missing_line(self) -> str | None:
        """All that is missing, in one line."""
        return f"Missing for {self.next_level}: {'; '.join(self.missing)}" if self.missing else None

    @property
    def closest_line(self) -> str | None:
        return f"Closest to its limit, or furthest beyond it: {self.closest}" if self.closest else None

    @property
    def next_line(self) -> str | None:
        """The next command; its result is a comment of the shell, so that the rest of the line can be pasted."""
        return f"Next: {self.next_command.command}  # {self.next_command.result}" if self.next_command else None


def conclude(bundle: Bundle, certificate: Certificate, *, place: str | None = None) -> Conclusion:
    """The verdict in words. `place` stands for the bundle's directory in the next command."""
    return Conclusion(
        case=bundle.case.name,
        level=NO_LEVEL if certificate.level is Level.NONE else certificate.level.value,
        scope=str(certificate.scope),
        sentence=_sentence(bundle),
        broken=_broken(bundle),
        findings=tuple(_listed(bundle.findings, broken_names(bundle))),
        first=_first(bundle),
        remarks=remarks(bundle),
        missing=tuple(map(missing_words, certificate.missing)),
        next_level=certificate.next_level.value if certificate.next_level else None,
        closest=_closest(bundle),
        next_command=_next(bundle, place or str(bundle.path)),
    )


def _sentence(bundle: Bundle) -> str:
    outcomes = Counter(finding.outcome for finding in bundle.findings)
    total = f"{len(bundle.findings)} criteri{'on' if len(bundle.findings) == 1 else 'a'}"
    first = first_failure(bundle)
    at = f", the first at step {first[0]}" if first else ""
    others = (Outcome.ERROR, "could not be judged"), (Outcome.INCONCLUSIVE, "inconclusive")
    rest = "".join(f"; {outcomes[outcome]} {word}" for outcome, word in others if outcomes[outcome])
    if broken := broken_names(bundle):
        return f"{listed(broken)} did not finish: {outcomes[Outcome.FAIL]} of {total} fail{at}{rest}."
    if outcomes[Outcome.FAIL]:
        return f"{outcomes[Outcome.FAIL]} of {total} fail{at}{rest}."
    return f"{outcomes[Outcome.PASS]} of {total} pass, none fails{rest}."


def _broken(bundle: Bundle) -> dict[str, str]:
    ended = {run.name: run.outcome.detail for run in bundle.runs.values() if run.outcome.status != "completed"}
    return {**ended, **dict.fromkeys(bundle.absent, "was not run")}


def _listed(findings: Sequence[Finding], broken: Sequence[str]) -> Iterator[tuple[Outcome, str]]:
    """The criteria that do not pass. Those of a standard that all state nothing for one reason follow in one line."""
    silent: dict[tuple[Outcome, str, str], list[Finding]] = {}
    for one in findings:
        if (reason := _silent(one, broken)) is not None:
            silent.setdefault((one.outcome, one.standard, reason), []).append(one)
    alike = {one for group in silent.values() if len(group) >= FEW for one in group}
    yield from ((one.outcome, _found(one)) for one in findings if one.outcome is not Outcome.PASS and one not in alike)
    for (outcome, standard, reason), group in silent.items():
        if len(group) >= FEW:
            ids = listed([one.criterion for one in group])
            yield outcome, f"{len(group)} criteria of {standard}: {reason}: {ids}"


def _silent(finding: Finding, broken: Sequence[str]) -> str | None:
    """Why a criterion states nothing, if that is one reason."""
    reasons = {judged.explanation for judged in finding.judged}
    if finding.outcome is Outcome.ERROR and any(f"{run}: " in reason for run in broken for reason in reasons):
        return UNFINISHED
    if finding.outcome is not Outcome.INCONCLUSIVE or len(reasons) > 1:
        return None
    return reasons.pop() or None


def _found(finding: Finding) -> str:
    return f"{finding.criterion}: {finding.message}"


def _first(bundle: Bundle) -> str | None:
    if (found := first_failure(bundle)) is None:
        return None
    step, finding = found
    return f"The first step beyond a limit is step {step} ({finding.standard}/{finding.criterion})."


def missing_words(requirement: Requirement) -> str:
    """A requirement and what was found; the detail of a criterion already begins with its text."""
    if requirement.detail.startswith(requirement.text):
        return requirement.detail
    return f"{requirement.text}: {requirement.detail}"


def _closest(bundle: Bundle) -> ClosestCriterion | None:
    found = closest(bundle.findings)
    if found is None:
        return None
    used, finding, _ = found
    return ClosestCriterion(criterion=f"{finding.standard}/{finding.criterion}", used=used)


def _next(bundle: Bundle, place: str) -> NextCommand | None:
    if can_be_diagnosed(bundle):
        command = shlex.join(["certify", "diagnose", place])
        return NextCommand(command=command, result="names the module, the gradient or the check that differs first")
    began = bundle.occasion.command
    if broken_names(bundle) and began[:2] == RUN:
        command = shlex.join([*without_place(began), "--out", place, "--resume"])
        return NextCommand(command=command, result=RESUMES)
    return None
