"""What changed between two bundles, and whether it is the toolchain or the subject.

Takes two bundles of one case, gives the changes by section and a verdict with its reason. The reason is the floor, if
one was measured: two correct runs differ by no more than that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.cases.runs_of_a_case import REFERENCE, SUBJECT
from harness.evidence.agreement import differences
from harness.evidence.bundle import Bundle
from harness.evidence.floor import floor_of
from harness.evidence.judge import NAMED, Outcome
from harness.evidence.moved import moved

WORSE = {Outcome.PASS: 0, Outcome.INCONCLUSIVE: 1, Outcome.FAIL: 2, Outcome.ERROR: 3}


class DifferenceKind(StrEnum):
    """The kind of a difference."""

    SAME = "the same"
    ANOTHER_CASE = "another case"
    TOOLCHAIN_DRIFT = "toolchain drift"
    REGRESSION = "regression"
    IMPROVEMENT = "improvement"


@dataclass(frozen=True, kw_only=True)
class BundleChange:
    """One change; `section` names what it belongs to."""

    section: str
    name: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class BundleDifference:
    """All changes, the verdict with its reason, and where the subject's numbers began to differ."""

    kind: DifferenceKind
    reason: str
    changes: tuple[BundleChange, ...]
    where: tuple[str, ...] = ()


def diff_bundles(a: Bundle, b: Bundle) -> BundleDifference:
    """The changes from one bundle to another."""
    changes = tuple(_changes(a, b))
    if a.digest == b.digest:
        return BundleDifference(
            kind=DifferenceKind.SAME, reason="both have the same manifest, bit for bit", changes=changes
        )
    if a.case.digest() != b.case.digest():
        reason = "their cases differ, so their numbers cannot be compared"
        return BundleDifference(kind=DifferenceKind.ANOTHER_CASE, reason=reason, changes=changes)
    kind, reason = _judged(a, b)
    return BundleDifference(kind=kind, reason=reason, changes=changes, where=moved(a, b))


def _changes(a: Bundle, b: Bundle) -> Iterator[BundleChange]:
    yield from _mapping("case", _flat(a.case.record()), _flat(b.case.record()))
    yield from _mapping("inputs", vars(a.inputs), vars(b.inputs))
    yield from _mapping("environment", _flat(vars(a.environment)), _flat(vars(b.environment)))
    yield from _mapping("source", vars(a.source), vars(b.source))
    yield from _mapping(
        "standards",
        {standard.name: standard.digest() for standard in a.standards},
        {standard.name: standard.digest() for standard in b.standards},
    )
    yield from _mapping("limits", _limits(a), _limits(b))
    yield from _mapping("runs", _ends(a), _ends(b))
    yield from _mapping("criteria", _outcomes(a), _outcomes(b))
    if a.case.digest() != b.case.digest():
        return
    for name in (REFERENCE, SUBJECT):
        for number, value in differences(a, b, name).items():
            if value:
                yield BundleChange(
                    section="numbers", name=f"{name} {number}", before="", after=f"up to {value:.3g} apart"
                )


def _mapping(section: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[BundleChange]:
    for name in dict.fromkeys((*a, *b)):
        before, after = (str(side[name]) if name in side else "absent" for side in (a, b))
        if before != after:
            yield BundleChange(section=section, name=name, before=before, after=after)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def _limits(bundle: Bundle) -> dict[str, str]:
    return {
        f"{standard.name}/{criterion.id}": "; ".join(
            f"{limit.statistic} of {limit.measurement} {limit.comparator} {limit.value:g}" for limit in criterion.limits
        )
        for standard in bundle.standards
        for criterion in standard.criteria
    }


def _ends(bundle: Bundle) -> dict[str, str]:
    return {name: run.outcome.status for name, run in bundle.runs.items()}


def _outcomes(bundle: Bundle) -> dict[str, Outcome]:
    return {f"{finding.standard}/{finding.criterion}": finding.outcome for finding in bundle.findings}


def _judged(a: Bundle, b: Bundle) -> tuple[DifferenceKind, str]:
    before, after = _outcomes(a), _outcomes(b)
    shared = [name for name in before if name in after]
    worse = [name for name in shared if WORSE[after[name]] > WORSE[before[name]] and WORSE[after[name]] > 1]
    better = [name for name in shared if WORSE[after[name]] < WORSE[before[name]]]
    reference, subject = differences(a, b, REFERENCE), differences(a, b, SUBJECT)
    beyond, floor = _beyond_floor(a, subject)
    moved = "the reference moved too" if any(reference.values()) else "the reference has the same bits"
    if worse:
        return DifferenceKind.REGRESSION, f"{_named(worse)} passed before and does not pass now; {moved}; {floor}"
    if beyond:
        return DifferenceKind.REGRESSION, f"{floor}; {moved}, and no limit is broken yet"
    if better:
        return DifferenceKind.IMPROVEMENT, f"{_named(better)} did not pass before and now do; {floor}"
    if any(reference.values()) or any(subject.values()):
        return DifferenceKind.TOOLCHAIN_DRIFT, f"{floor}; {moved}, and no criterion changed for the worse"
    return DifferenceKind.SAME, "every number has the same bits; only other files differ"


def _named(criteria: Sequence[str]) -> str:
    """The first criteria, and how many more there are."""
    more = f" and {len(criteria) - NAMED} more" if len(criteria) > NAMED else ""
    return ", ".join(criteria[:NAMED]) + more


def _beyond_floor(bundle: Bundle, moved: Mapping[str, float]) -> tuple[bool, str]:
    """Whether the subject moved by more than the floor, and this as text. Without a floor nothing is beyond it."""
    limits = floor_of(bundle)
    words = ", ".join(f"{number} {value:.2g}" for number, value in moved.items()) or "unknown"
    if not moved or limits is None:
        return False, f"the subject moved by {words}, and this case has no measured floor"
    beyond = any(not value <= limits[number] for number, value in moved.items())
    allowed = ", ".join(f"{number} {value:.2g}" for number, value in limits.items())
    return beyond, f"the subject moved by {words}, {'beyond' if beyond else 'within'} the floor of {allowed}"
