"""The criteria of a standard by topic, each group with a summary line; only groups with a failure are unfolded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.comparison.catalogue import CATALOGUE, Topic
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Finding, Outcome, closest
from harness.report.criteria import CriterionRow, criterion_row, used_of_allowed
from harness.report.words import Mark, mark
from harness.standards import Standard

# In the order of the page: what holds for a run as a whole comes before what follows from it.
GROUPS: tuple[Topic, ...] = (
    "Runs",
    "Alignment",
    "Determinism",
    "Optimizer",
    "First step and gradients",
    "Layout",
    "Scores",
    "Logits",
    "Continuations",
    "Cache and batch",
    "Trajectory",
    "Convergence",
    "Length",
    "Others",
)
WORST_FIRST = (Outcome.ERROR, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)


@dataclass(frozen=True, kw_only=True)
class CriterionGroup:
    """`mark` is the worst outcome of its criteria; only a group in which all pass is `folded`."""

    title: str
    mark: Mark
    summary: str
    folded: bool
    criteria: tuple[CriterionRow, ...]


@dataclass(frozen=True, kw_only=True)
class StandardTable:
    name: str
    version: int
    title: str
    digest: str
    groups: tuple[CriterionGroup, ...]


def standard_tables(bundle: Bundle) -> tuple[StandardTable, ...]:
    """A table a standard, in the order of `GROUPS`, each group in the order of the standard."""
    return tuple(_table(bundle, standard) for standard in bundle.standards)


def _table(bundle: Bundle, standard: Standard) -> StandardTable:
    found: dict[Topic, list[Finding]] = {title: [] for title in GROUPS}
    for finding in bundle.findings:
        if finding.standard == standard.name:
            found[group_of(finding)].append(finding)
    return StandardTable(
        name=standard.name,
        version=standard.version,
        title=standard.title,
        digest=standard.digest(),
        groups=tuple(_group(bundle, title, findings) for title, findings in found.items() if findings),
    )


def group_of(finding: Finding) -> Topic:
    """The group that a finding belongs to, by its first limit."""
    limit = finding.judged[0].limit
    kind = CATALOGUE.get(limit.measurement)
    if kind is None:  # a recorded standard may limit what is not measured any more
        return "Others"
    return "First step and gradients" if kind.topic == "Trajectory" and limit.statistic == "first" else kind.topic


def _group(bundle: Bundle, title: str, findings: Sequence[Finding]) -> CriterionGroup:
    outcomes = [finding.outcome for finding in findings]
    passed = outcomes.count(Outcome.PASS)
    return CriterionGroup(
        title=title,
        mark=mark(next(outcome for outcome in WORST_FIRST if outcome in outcomes)),
        summary=f"{passed} of {len(findings)} pass{_closest(findings)}",
        folded=passed == len(findings),
        criteria=tuple(criterion_row(bundle.comparison, finding) for finding in findings),
    )


def _closest(findings: Sequence[Finding]) -> str:
    """The passing criterion that uses most of its limit; empty if all limits require equality."""
    passing = [replace(f, judged=tuple(j for j in f.judged if j.outcome is Outcome.PASS)) for f in findings]
    found = closest(passing)
    if found is None or not found[0]:
        return ""
    _, finding, judged = found
    bar = used_of_allowed(judged.limit, judged.value)
    return f"; closest to its limit, {bar.text}: {finding.title}" if bar else ""
