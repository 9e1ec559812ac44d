"""A summary of a bundle: whether it can be diagnosed, what failed first, and remarks."""

import math
from collections.abc import Iterator

from harness.cases.case import Case
from harness.comparison.catalogue import CATALOGUE, DIFFERS, REFERENCE_ERRORS
from harness.comparison.operators import biased
from harness.evidence.bundle import Bundle
from harness.evidence.floor import not_measured
from harness.evidence.judge import Finding, Outcome
from harness.runs.collected import PREFIX
from harness.standards import Standard

BY_AN_OPERATOR = 100.0  # errors of the reference; measured of a loss by such operators: 2 to 6


def can_be_diagnosed(bundle: Bundle) -> bool:
    """Whether `certify diagnose` applies to a bundle: it needs complete training runs of the harness and a failure."""
    failed = any(finding.outcome is Outcome.FAIL for finding in bundle.findings)
    return bundle.case.task.judges_steps and failed and not bundle.collected and not broken_names(bundle)


def remarks(bundle: Bundle) -> tuple[str, ...]:
    """A remark for each standard with a failure whose limits were derived for lower learning rates or fewer steps; and
    where limits on accuracy failed by no more than a biased operator can cause, the operators of the subject that are.
    """
    failed = {finding.standard for finding in bundle.findings if finding.outcome is Outcome.FAIL}
    inexact = [
        one.value
        for finding in bundle.findings
        for one in finding.judged
        if one.outcome is Outcome.FAIL and CATALOGUE[one.limit.measurement].unit == REFERENCE_ERRORS
    ]
    slightly = bool(inexact) and all(value is not None and value <= BY_AN_OPERATOR for value in inexact)
    beyond = [one for each in bundle.standards if each.name in failed for one in _beyond_the_floor(bundle.case, each)]
    device = not_measured(bundle)
    words = [f"The limits for this reference are {device}"] if device else []
    return (*beyond, *words, *(biased(bundle.comparison) if slightly else ()))


def _beyond_the_floor(case: Case, standard: Standard) -> Iterator[str]:
    """Remarks on what a case has more of than the runs that the limits of a standard were derived from."""
    rate, steps = case.lr_schedule.learning_rate, case.training.steps
    if standard.learning_rate is not None and rate > standard.learning_rate:
        yield (
            f"The limits of {standard.name} were derived for learning rates up to {standard.learning_rate:g}, and this "
            f"case goes up to {rate:g}. Training amplifies the last bit there, so a correct run may fail at a late "
            "step. Findings at step 1 and at learning rate 0 are valid at any rate."
        )
    if standard.steps is not None and steps > standard.steps:
        yield (
            f"The limits of {standard.name} were derived for {standard.steps} steps, and this case takes {steps}. "
            "Errors of successive steps are alike, so a mean over more of them may be further from zero in a correct "
            "run too."
        )


def first_failure(bundle: Bundle) -> tuple[int, Finding] | None:
    """The earliest step at which a failed finding exceeds its limit, and that finding; None if none is about steps. Of
    several, one with a limit for single steps locates the failure more exactly than one with a limit for a mean. Where
    a number is not finite, no repeat has the same one, which does not show that the subject is not deterministic."""
    failed = (finding for finding in bundle.findings if finding.outcome is Outcome.FAIL)
    found = [(step, finding) for finding in failed if (step := failing_step(finding)) is not None]
    return min(found, key=_rank, default=None)


def _rank(failure: tuple[int, Finding]) -> tuple[int, bool, bool]:
    step, finding = failure
    return step, _cannot_compare(finding), summarizes(finding)


def _cannot_compare(finding: Finding) -> bool:
    """Whether what has to be the same could not be compared, because a number is not finite."""
    failed = [one for one in finding.judged if one.outcome is Outcome.FAIL]
    return all(
        CATALOGUE[one.limit.measurement].unit == DIFFERS and one.value is not None and math.isnan(one.value)
        for one in failed
    )


def broken_names(bundle: Bundle) -> list[str]:
    """The runs that did not finish, and those that were not made."""
    stopped = [name for name, run in bundle.runs.items() if not run.outcome.ended]
    return [*stopped, *bundle.absent]


def summarizes(finding: Finding) -> bool:
    """Whether the limit is for a mean, a root mean square or a bias."""
    return finding.judged[0].limit.statistic in ("mean", "rms", "bias")


def failing_step(finding: Finding) -> int | None:
    """The first step at which a failed finding exceeds its limit; None if it is not about steps."""
    steps = [
        one.first_beyond for one in finding.judged if one.outcome is Outcome.FAIL and isinstance(one.first_beyond, int)
    ]
    return min(steps, default=None)


def collected_notices(bundle: Bundle) -> Iterator[str]:
    """Which runs a trainer made by itself, and which runs of the case are missing for that."""
    for name in sorted(bundle.collected):
        trace = bundle.runs[name].trace
        by = trace.header.runner.removeprefix(PREFIX) if trace else "unknown"
        yield f"{name} was collected from the trainer {by}; the harness did not run it."
    if bundle.not_collected:
        yield f"Not collected, and so not judged: {', '.join(bundle.not_collected)}."
