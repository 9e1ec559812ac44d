"""The level rule as code: a pure function of bundles, of the statements signed about them, and of a day.

Takes a bundle with its valid statements, and other bundles of the same case. Gives the level, with the state of every
requirement. A level holds for one model, device, layout and precision, and for no other.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from harness.attestation import Role
from harness.base.text import listed
from harness.cases.runs_of_a_case import SUBJECT, role
from harness.cases.task import TaskName
from harness.evidence.again import run_again
from harness.evidence.agreement import differences
from harness.evidence.bundle import Bundle
from harness.evidence.collected import collecting_code
from harness.evidence.floor import common_floor
from harness.evidence.judge import Finding, Outcome
from harness.levels.scope import Scope, scope
from harness.levels.second_run import not_a_later_run, same_run
from harness.levels.submission import Submission, contradiction, valid_attestations, waiver_objection
from harness.runs.trace import Side
from harness.standards import Standard, load_standard, shipped_standards


class Level(StrEnum):
    """MindSpore Transformers' levels, highest first. `NONE`: not shown to work."""

    RELEASED = "Released"
    VALIDATED = "Validated"
    PRELIMINARY = "Preliminary"
    UNTESTED = "Untested"
    COMMUNITY = "Community"
    NONE = "none"

    def reaches(self, required: "Level") -> bool:
        """Whether this level is the required one or a higher one."""
        order = list(Level)
        return order.index(self) <= order.index(required)


VALID_DAYS = 180
SHORT = 12  # digits of a digest in a sentence
RULES_OF_OTHERS = "rule-"  # what a standard's name begins with that is reported and carries no level
LAST = datetime.max.replace(microsecond=0, tzinfo=UTC)  # of the calendar
# The criteria without which a model is not "complete and usable". No waiver applies to these or to those of a task.
WORKS = ("runs-complete", "runs-finite")
TEAMS = {Role.DEVELOPER: "developer", Role.DEV_TEAM: "development team", Role.TEST_TEAM: "test team"}
DIFFERENT_PERSON = ("", ", by a second person", ", by a third person")  # by how many roles must be other people's


@dataclass(frozen=True, kw_only=True)
class TaskRule:
    """What the rule requires of one task.

    `preliminary` are the criteria that the published definition of Preliminary requires. `exact` names the result whose
    error the oracle measures, in singular and plural. `copied` gets for each value whether its error is exactly 0, and
    decides whether the oracle's results were copied from a side: then its errors prove nothing. `same` are differences
    of subject and reference that are never all exactly 0, without any those of their errors are not: else the
    subject's numbers are the reference's.
    """

    preliminary: tuple[str, ...]
    exact: tuple[str, str]
    copied: Callable[[Iterable[bool]], bool]
    same: tuple[str, ...] = ()


# "trains and converges normally"; float64 and float32 never have the same loss at every step
OF_TRAINING = TaskRule(
    preliminary=("inputs-same", "batches-same", "converges"),
    exact=("loss", "losses"),
    copied=all,
    same=("train.loss.absolute", "train.grad_norm.absolute"),
)
TASK_RULES: Mapping[TaskName, TaskRule] = {
    "pretrain": OF_TRAINING,
    "finetune": OF_TRAINING,
    # "outputs make sense"; float64 and float32 never have the same logits in a whole row
    "inference": TaskRule(
        preliminary=("inputs-same", "batches-same", "makes-sense"), exact=("logits", "logits"), copied=any
    ),
}


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement of a level, whether it is met, and what was found. `measured`: by the bundle alone, without what
    others signed or ran."""

    level: Level
    text: str
    met: bool
    detail: str
    measured: bool = True


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The level with its reasons: the standards it was judged against, what it holds for, when the run started, and the
    moment `at` for which it was computed."""

    level: Level
    standards: tuple[str, ...]
    scope: Scope
    started: datetime
    at: datetime
    requirements: tuple[Requirement, ...]

    @property
    def until(self) -> datetime | None:
        """When the level expires; None for a level that does not, because it requires no recent run."""
        return expires(self.started) if self.level.reaches(Level.PRELIMINARY) else None

    @property
    def measured(self) -> Level:
        """The level that the bundle would have if everything were signed and repeated."""
        return _reached(tuple(r for r in self.requirements if r.measured))

    @property
    def ladder(self) -> tuple[Level, ...]:
        """The levels that have requirements, lowest first."""
        return _ladder(self.requirements)

    @property
    def next_level(self) -> Level | None:
        """The lowest computed level that is not reached."""
        unmet = {requirement.level for requirement in self.requirements if not requirement.met}
        return next((level for level in self.ladder if level in unmet), None)

    @property
    def missing(self) -> tuple[Requirement, ...]:
        """The requirements that are missing for the next level."""
        return tuple(r for r in self.requirements if r.level is self.next_level and not r.met)

    def reaches(self, required: Level) -> bool:
        """Whether this level is the required one or a higher one."""
        return self.level.reaches(required)


def certify(submission: Submission, at: datetime, others: Sequence[Submission] = ()) -> Certificate:
    """The level of a bundle at a moment (with time zone); `others` are other bundles of its case."""
    requirements = tuple(_requirements(submission, at, others))
    return Certificate(
        level=_reached(requirements),
        standards=tuple(map(_named, submission.bundle.standards)),
        scope=scope(submission.bundle),
        started=started(submission),
        at=at,
        requirements=requirements,
    )


def _reached(requirements: Sequence[Requirement]) -> Level:
    reached = Level.NONE
    for level in _ladder(requirements):
        if not all(r.met for r in requirements if r.level is level):
            break
        reached = level
    return reached


def _ladder(requirements: Sequence[Requirement]) -> tuple[Level, ...]:
    present = {requirement.level for requirement in requirements}
    return tuple(level for level in reversed(Level) if level in present)


def started(submission: Submission) -> datetime:
    """When the run of a bundle started."""
    return datetime.fromisoformat(submission.bundle.occasion.started)


def expires(run: datetime) -> datetime:
    """When a run that started at a moment carries nothing above Untested any more."""
    return run + min(timedelta(days=VALID_DAYS), LAST - run)


def counted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that a level rests on: those by the rules of papers and other teams are reported beside them, and
    neither raise a level nor lower it."""
    return tuple(finding for finding in findings if not finding.standard.startswith(RULES_OF_OTHERS))


def _requirements(submission: Submission, at: datetime, others: Sequence[Submission]) -> Iterator[Requirement]:
    bundle = submission.bundle
    findings = counted(bundle.findings)
    community_only = tuple(_community_only(submission))
    lowest = Level.COMMUNITY if community_only else Level.UNTESTED
    yield _official(lowest, bundle)
    for criterion in WORKS:
        yield _criterion(lowest, criterion, findings)
    yield from community_only
    for criterion in TASK_RULES[bundle.case.task.name].preliminary:
        yield _criterion(Level.PRELIMINARY, criterion, findings)
    yield _age(submission, at)
    waived = _waived(submission)
    yield _none_broken(findings, waived)
    yield _all_pass(findings, waived)
    yield _committed(bundle)
    yield _measured(bundle)
    yield _signed(Level.VALIDATED, submission, Role.DEVELOPER)
    yield _signed(Level.VALIDATED, submission, Role.DEV_TEAM, {Role.DEVELOPER})
    yield _signed(Level.RELEASED, submission, Role.TEST_TEAM, {Role.DEVELOPER, Role.DEV_TEAM})
    yield _second_run(submission, others, at)
    yield Requirement(
        level=Level.RELEASED,
        text="Nothing is waived",
        met=not waived,
        detail="; ".join(waived.values()) or "no waiver",
    )


@functools.cache
def _shipped(name: str) -> Standard | None:
    return load_standard(name) if name in shipped_standards() else None


def _as_shipped(standard: Standard) -> bool:
    shipped = _shipped(standard.name)
    return shipped is not None and standard.digest() == shipped.digest()


def _named(standard: Standard) -> str:
    """The name of a standard; with its digest if it is not the shipped one, so that a looser standard is visible."""
    shipped = _shipped(standard.name)
    if shipped is None or _as_shipped(standard):
        return standard.name
    version = f"version {standard.version}, now {shipped.version}, " if standard.version != shipped.version else ""
    return f"{standard.name} (changed, {version}{standard.digest()[:12]})"


def _official(level: Level, bundle: Bundle) -> Requirement:
    """The published rule and ceilings are always enforced: criteria that only share their names give no level."""
    found = [standard for standard in bundle.standards if standard.name == bundle.case.task.official]
    return Requirement(
        level=level,
        text="Judged against the official standard of this version",
        met=any(map(_as_shipped, found)),
        detail=", ".join(map(_named, found)) or "the official standard is not in this bundle",
    )


def _community_only(submission: Submission) -> Iterator[Requirement]:
    """Community records who maintains a model, whatever was measured: a community maintainer signed, and no team.

    Otherwise yields nothing. A signature in this role can lower a level and never raises one.
    """
    signed = [one for one in submission.statements.attestations if not contradiction(one.statement, submission.bundle)]
    community = [one for one in signed if one.statement.role is Role.COMMUNITY]
    if community and len(community) == len(signed):
        yield Requirement(
            level=Level.UNTESTED,
            text="Maintained by a team, not only by the community",
            met=False,
            detail=f"{community[0].person} signed for the community, and no team signed",
            measured=False,
        )


def _criterion(level: Level, criterion: str, findings: Sequence[Finding]) -> Requirement:
    found = [finding for finding in findings if finding.criterion == criterion]
    if not found:
        return Requirement(level=level, text=criterion, met=False, detail="no standard in this bundle requires it")
    met = all(finding.outcome is Outcome.PASS for finding in found)
    return Requirement(level=level, text=found[0].title, met=met, detail=found[0].message)


def _age(submission: Submission, at: datetime) -> Requirement:
    run = started(submission)
    until = expires(run)
    if run > at:
        day = f"{run:%Y-%m-%d}, after {at:%Y-%m-%d}"
        detail = f"run on {day}: a clock is wrong, or --at is an earlier day"
    elif at > until:
        detail = f"it expired on {until:%Y-%m-%d}; run it again: {run_again(submission.bundle)}"
    else:
        detail = f"run on {run:%Y-%m-%d}, valid until {until:%Y-%m-%d}"
    return Requirement(
        level=Level.PRELIMINARY,
        text=f"Run at most {VALID_DAYS} days ago",
        met=run <= at <= until,
        detail=detail,
    )


def _waived(submission: Submission) -> dict[str, str]:
    """The criteria that a waiver which counts accepts as they are, each with the text of the waiver."""
    return {
        signed.statement.criterion: f"{signed.statement.criterion} waived by {signed.person} until "
        f"{signed.statement.until}: {signed.statement.reason}"
        for signed in submission.statements.waivers
        if waiver_objection(signed, submission) is None
    }


def _none_broken(findings: Sequence[Finding], waived: dict[str, str]) -> Requirement:
    refused = [f for f in findings if f.outcome in (Outcome.FAIL, Outcome.ERROR)]
    broken = [f for f in refused if f.criterion not in waived]
    return Requirement(
        level=Level.PRELIMINARY,
        text="No criterion is FAIL or ERROR",
        met=bool(findings) and not broken,
        detail=_listed(broken, refused, waived) or f"none of {len(findings)}",
    )


def _all_pass(findings: Sequence[Finding], waived: dict[str, str]) -> Requirement:
    others = [f for f in findings if f.outcome is not Outcome.PASS]
    open_ = [f for f in others if f.criterion not in waived]
    return Requirement(
        level=Level.VALIDATED,
        text="Every criterion passes",
        met=bool(findings) and not open_,
        detail=_listed(open_, others, waived) or f"{len(findings)} of {len(findings)}",
    )


def _listed(open_: Sequence[Finding], others: Sequence[Finding], waived: dict[str, str]) -> str:
    named = [f"{f.criterion} {f.outcome}" for f in open_]
    return "; ".join(filter(None, [", ".join(named), *(waived[f.criterion] for f in others if f.criterion in waived)]))


def _committed(bundle: Bundle) -> Requirement:
    """The source of everything that ran; a baseline has a source of its own. A run that a trainer made by itself was
    collected by the code of the same revision."""
    sources = [("", bundle.source), *([("baseline: ", bundle.baseline.source)] if bundle.baseline else [])]
    other = [
        f"{name} was collected by other code ({str(code)[:SHORT]})"
        for name in bundle.collected
        if (code := collecting_code(bundle.runs[name])) != bundle.source.sha256
    ]
    return Requirement(
        level=Level.VALIDATED,
        text="Run from a committed source revision",
        met=not other and all(source.revision is not None and not source.dirty for _, source in sources),
        detail="; ".join([*(f"{of}{source.state}" for of, source in sources), *other]),
    )


def _runners(bundle: Bundle, side: Side) -> set[str]:
    headers = [run.trace.header for run in bundle.runs.values() if run.trace]
    return {header.runner for header in headers if header.side == side}


def _measured(bundle: Bundle) -> Requirement:
    """Only closeness to the shipped reference and oracle is closeness to PyTorch."""
    # The source revision must cover the code of a side that measures the subject; the subject cannot measure itself.
    measured_by, rule = bundle.case.task.measured_by, TASK_RULES[bundle.case.task.name]
    foreign = [
        f"the {side} is {', '.join(sorted(ran)) or 'missing'}"
        for side, shipped in measured_by.items()
        if (ran := _runners(bundle, side)) != {shipped}
    ]
    foreign += [
        f"{name} was collected from a trainer of its own"
        for name in sorted(bundle.collected)
        if (role(name, bundle.case) or ("", ""))[0] in measured_by
    ]
    result, results = rule.exact
    errors = {side: bundle.comparison[f"oracle.{result}.{side}"].values for side in ("reference", "subject")}
    foreign += [
        f"the oracle repeats the {side}'s {results}"
        for side, values in errors.items()
        if values and rule.copied(value == 0 for value in values)
    ]
    apart = [value for name in rule.same for value in bundle.comparison[name].values]
    if not rule.same:
        apart = [a - b for a, b in zip(errors["reference"], errors["subject"], strict=False)]
    if apart and not any(apart):
        foreign.append(f"every one of the subject's {results} has the reference's bits, as in a copy")
    return Requirement(
        level=Level.VALIDATED,
        text="Measured by the shipped reference and oracle",
        met=not foreign,
        detail="; ".join(foreign) or ", ".join(name.rpartition(":")[2] for name in measured_by.values()),
    )


def _signed(
    level: Level, submission: Submission, role: Role, others: frozenset[Role] | set[Role] = frozenset()
) -> Requirement:
    """Signed in a role by a person who has not signed in one of the other roles: no one accepts their own work."""
    good, objections = valid_attestations(submission, role)
    taken = {signed.person for other in others for signed in valid_attestations(submission, other)[0]}
    free = [signed for signed in good if signed.person not in taken]
    words = f"Signed by the {TEAMS[role]}{DIFFERENT_PERSON[len(others)]}"
    if free:
        detail = f"{free[0].person}, {free[0].statement.stated_at:%Y-%m-%d}"
    elif good:
        detail = f"{good[0].person} also signed in another role: no one accepts their own work"
    else:
        detail = "; ".join([*objections, *_lost(submission, role)]) or "no valid signature"
    return Requirement(level=level, text=words, met=bool(free), detail=detail, measured=False)


def _lost(submission: Submission, role: Role) -> Iterator[str]:
    statements = submission.statements
    for entry in statements.withdrawn:
        if entry.signed.statement.role is role:
            yield f"{entry.signed.person}'s statement was withdrawn by {entry.by.person}: {entry.by.statement.reason}"
    yield from (refused.reason for refused in statements.refused)


def _second_run(submission: Submission, others: Sequence[Submission], at: datetime) -> Requirement:
    """The test team's own run: made on another occasion, signed by people with no part in the first run, and equal.

    No file can show that a run is independent: whoever controls a machine can write every file. What is checked here
    refuses a copy and a mistake; the rest is the word of the person who signed.
    """
    reasons = [_why_not_second(submission, other, at) for other in others]
    met = None in reasons
    agreeing = [other for other, reason in zip(others, reasons, strict=True) if reason is None]
    detail = "; ".join(
        f"{_agreement(submission.bundle, other.bundle)[1]}; that it is independent is the word of "
        f"{listed(sorted(_own_signers(submission, other)))}"
        for other in agreeing
    )
    return Requirement(
        level=Level.RELEASED,
        text="The test team's own independent run agrees",
        met=met,
        detail=detail if met else "; ".join(filter(None, reasons)) or "there is no second run of this case",
        measured=False,
    )


def _why_not_second(first: Submission, second: Submission, at: datetime) -> str | None:
    a, b = first.bundle, second.bundle
    name = b.path.name
    if same_run(a, b):
        return f"{name} is the same run"
    if (scope(a), a.case.digest()) != (scope(b), b.case.digest()):
        return f"{name} is a run of another case"
    if _runners(a, "subject") != _runners(b, "subject"):
        return f"{name} is a run of another implementation"
    if _standards(a) != _standards(b):
        return f"{name} was judged by other standards"
    if why := not_a_later_run(a, b):
        return f"{name} {why}"
    own = (
        _official(Level.UNTESTED, b),
        _age(second, at),
        _all_pass(counted(b.findings), {}),
        _committed(b),
        _measured(b),
    )
    if not all(requirement.met for requirement in own):
        return f"{name} does not meet the criteria on its own"
    involved = _involved(first)
    makers = {signed.person for signed in valid_attestations(second, Role.DEVELOPER)[0]}
    if makers & involved:
        return f"{name} was made by {', '.join(sorted(makers & involved))}, who has a part in the first run"
    if not _own_signers(first, second):
        return f"{name} is not signed by a test team that has no part in the first run"
    agrees, words = _agreement(a, b)
    return None if agrees else words


def _standards(bundle: Bundle) -> dict[str, str]:
    return {standard.name: standard.digest() for standard in bundle.standards}


def _involved(submission: Submission) -> set[str]:
    """The people who made a run, or accepted it for the development team."""
    return {s.person for role in (Role.DEVELOPER, Role.DEV_TEAM) for s in valid_attestations(submission, role)[0]}


def _own_signers(first: Submission, second: Submission) -> set[str]:
    """The people of the test team who signed a second run and have no part in the first."""
    return {signed.person for signed in valid_attestations(second, Role.TEST_TEAM)[0]} - _involved(first)


def _agreement(a: Bundle, b: Bundle) -> tuple[bool, str]:
    """Whether two runs of the subject have the same bits, or differ by no more than their floor; and this as text."""
    worst = differences(a, b, SUBJECT)
    if not worst:
        return False, f"{b.path.name}: a trace of the subject is missing"
    if all(value == 0 for value in worst.values()):
        return True, f"{b.path.name}: the same bits in every number"
    floor = common_floor(a, b)
    words = ", ".join(f"{number} {value:.2g}" for number, value in worst.items())
    if floor is None:
        return False, f"{b.path.name}: differs ({words}), and no floor was measured in both"
    within = all(value <= floor[number] for number, value in worst.items())
    return within, f"{b.path.name}: {'within' if within else 'beyond'} the floor ({words})"
