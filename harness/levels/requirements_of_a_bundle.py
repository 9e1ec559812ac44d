"""What a level requires of the bundle itself: what its runs were judged by, when and from what they were made, and what
came out.

Each function gives one requirement with its state. None of them reads a signature, except that a criterion that is
waived counts as it was accepted.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.cases.runs_of_a_case import role
from harness.cases.task import TaskName
from harness.evidence.again import run_again
from harness.evidence.bundle import Bundle
from harness.evidence.collected import collecting_code
from harness.evidence.floor import CPU, device_of_reference, not_measured
from harness.evidence.judge import Finding, Outcome
from harness.levels.certificate import VALID_DAYS, Level, Requirement, expires
from harness.levels.submission import Submission, started
from harness.runs.trace import Side
from harness.standards import Standard, load_standard, shipped_standards

SHORT = 12  # digits of a digest in a sentence
RULES_OF_OTHERS = "rule-"  # what a standard's name begins with that is reported and carries no level
# The criteria without which a model is not "complete and usable". No waiver applies to these or to those of a task.
WORKS = ("runs-complete", "runs-finite")


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


def counted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that a level rests on: those by the rules of papers and other teams are reported beside them, and
    neither raise a level nor lower it."""
    return tuple(finding for finding in findings if not finding.standard.startswith(RULES_OF_OTHERS))


@functools.cache
def _shipped(name: str) -> Standard | None:
    return load_standard(name) if name in shipped_standards() else None


def _as_shipped(standard: Standard) -> bool:
    shipped = _shipped(standard.name)
    return shipped is not None and standard.digest() == shipped.digest()


def named(standard: Standard) -> str:
    """The name of a standard; with its digest if it is not the shipped one, so that a looser standard is visible."""
    shipped = _shipped(standard.name)
    if shipped is None or _as_shipped(standard):
        return standard.name
    version = f"version {standard.version}, now {shipped.version}, " if standard.version != shipped.version else ""
    return f"{standard.name} (changed, {version}{standard.digest()[:12]})"


def official(level: Level, bundle: Bundle) -> Requirement:
    """The published rule and ceilings are always enforced: criteria that only share their names give no level."""
    found = [standard for standard in bundle.standards if standard.name == bundle.case.task.official]
    return Requirement(
        level=level,
        text="Judged against the official standard of this version",
        met=any(map(_as_shipped, found)),
        detail=", ".join(map(named, found)) or "the official standard is not in this bundle",
    )


def criterion(level: Level, name: str, findings: Sequence[Finding]) -> Requirement:
    """A criterion that a level requires, whichever standard of the bundle has it."""
    found = [finding for finding in findings if finding.criterion == name]
    if not found:
        return Requirement(level=level, text=name, met=False, detail="no standard in this bundle requires it")
    met = all(finding.outcome is Outcome.PASS for finding in found)
    return Requirement(level=level, text=found[0].title, met=met, detail=found[0].message)


def age(submission: Submission, at: datetime) -> Requirement:
    """A recent run."""
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


def none_broken(findings: Sequence[Finding], waived: dict[str, str]) -> Requirement:
    """No criterion failed, except waived ones."""
    refused = [f for f in findings if f.outcome in (Outcome.FAIL, Outcome.ERROR)]
    broken = [f for f in refused if f.criterion not in waived]
    return Requirement(
        level=Level.PRELIMINARY,
        text="No criterion is FAIL or ERROR",
        met=bool(findings) and not broken,
        detail=_listed(broken, refused, waived) or f"none of {len(findings)}",
    )


def all_pass(findings: Sequence[Finding], waived: dict[str, str]) -> Requirement:
    """Every criterion passed, except waived ones."""
    others = [f for f in findings if f.outcome is not Outcome.PASS]
    open_ = [f for f in others if f.criterion not in waived]
    return Requirement(
        level=Level.VALIDATED,
        text="Every criterion passes",
        met=bool(findings) and not open_,
        detail=_listed(open_, others, waived) or f"{len(findings)} of {len(findings)}",
    )


def _listed(open_: Sequence[Finding], others: Sequence[Finding], waived: dict[str, str]) -> str:
    by_outcome = {f.outcome: [one.criterion for one in open_ if one.outcome is f.outcome] for f in open_}
    named = [f"{outcome}: {', '.join(names)}" for outcome, names in by_outcome.items()]
    return "; ".join(filter(None, [*named, *(waived[f.criterion] for f in others if f.criterion in waived)]))


def committed(bundle: Bundle) -> Requirement:
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


def runners(bundle: Bundle, side: Side) -> set[str]:
    """The names of the runners that made the runs of a side."""
    headers = [run.trace.header for run in bundle.runs.values() if run.trace]
    return {header.runner for header in headers if header.side == side}


def measured(bundle: Bundle) -> Requirement:
    """Only closeness to the shipped reference and oracle is closeness to PyTorch."""
    # The source revision must cover the code of a side that measures the subject; the subject cannot measure itself.
    measured_by, rule = bundle.case.task.measured_by, TASK_RULES[bundle.case.task.name]
    foreign = [
        f"the {side} is {', '.join(sorted(ran)) or 'missing'}"
        for side, shipped in measured_by.items()
        if (ran := runners(bundle, side)) != {shipped}
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


def limits(bundle: Bundle) -> Iterator[Requirement]:
    """Limits that were measured between implementations on a CPU are no limits for a reference on another device."""
    if (device := device_of_reference(bundle)) != CPU and bundle.case.task.judges_steps:
        why = not_measured(bundle)
        yield Requirement(
            level=Level.VALIDATED,
            text="The strict limits were measured for the reference's device",
            met=why is None,
            detail=why or f"{device}, by a recorded floor",
        )
