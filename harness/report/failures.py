"""The first section after a failure: failed runs, differences in the setup, then the earliest failing numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.cases.alignment import expected_alignment
from harness.cases.runs_of_a_case import REFERENCE, SUBJECT
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Finding, Outcome, describe_place
from harness.evidence.summary import failing_step, first_failure, summarizes
from harness.levels.verdict_words import SAME_LOG, Conclusion, NextCommand
from harness.report.groups import group_of
from harness.report.words import Mark, mark, number, purpose
from harness.runs.files import LOG
from harness.runs.trace import Run, Scored

LOG_LINES = 20
SHOWN = 4  # findings that are unfolded, and keys of a configuration that are shown with both values
REFUSED = (Outcome.ERROR, Outcome.FAIL)
ALIGNED_RUNS = {"reference.alignment.differs": REFERENCE, "subject.alignment.differs": SUBJECT}
ABSENT = "nothing"


@dataclass(frozen=True, kw_only=True)
class BrokenRun:
    """A run that did not finish: a sentence, its purpose, and the end of its output."""

    name: str
    purpose: str
    sentence: str
    log: str


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A finding about a setup that must be equal on both sides, with the keys that differ and both values."""

    mark: Mark
    message: str
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Failed runs, then causes, then the earliest findings, then the others.

    `remarks`, `first` and `next_command` are those of `harness.levels.verdict_words.Conclusion`.
    """

    remarks: tuple[str, ...]
    broken: tuple[BrokenRun, ...]
    causes: tuple[Cause, ...]
    first: str | None
    next_command: NextCommand | None
    earliest: tuple[tuple[Mark, str], ...]
    others: tuple[tuple[Mark, str], ...]


def build_trouble(bundle: Bundle, conclusion: Conclusion) -> Trouble | None:
    """None if every run finished and no finding is FAIL or ERROR."""
    refused = [finding for finding in bundle.findings if finding.outcome in REFUSED]
    broken = tuple(_broken_runs(bundle))
    if not refused and not broken:
        return None
    step, _ = first_failure(bundle) or (None, None)
    failed = [finding for finding in refused if finding.outcome is Outcome.FAIL]
    causes = [finding for finding in failed if group_of(finding) == "Alignment"]
    failed = [finding for finding in failed if finding not in causes]
    earliest = [finding for finding in failed if step is None or failing_step(finding) == step]
    if not broken and not failed and not causes:
        earliest = refused
    earliest = sorted(earliest, key=summarizes)[:SHOWN]
    others = [finding for finding in refused if finding not in earliest and finding not in causes]
    others.sort(key=lambda finding: (finding.outcome is Outcome.ERROR, failing_step(finding) or 0))
    return Trouble(
        remarks=conclusion.remarks,
        broken=broken,
        causes=tuple(_cause(bundle, finding) for finding in causes),
        first=conclusion.first,
        next_command=conclusion.next_command,
        earliest=tuple((mark(finding.outcome), finding.message) for finding in earliest),
        others=tuple((mark(finding.outcome), finding.message) for finding in others),
    )


def _cause(bundle: Bundle, finding: Finding) -> Cause:
    runs = [ALIGNED_RUNS[one.limit.measurement] for one in finding.judged if one.limit.measurement in ALIGNED_RUNS]
    keys = [text for run in runs for text in _misaligned(bundle, run)]
    more = [f"{number(len(keys) - SHOWN)} more"] if len(keys) > SHOWN else []
    return Cause(mark=mark(finding.outcome), message=finding.message, keys=(*keys[:SHOWN], *more))


def _misaligned(bundle: Bundle, name: str) -> Iterator[str]:
    """Each key of a side's configuration that differs from the case, with both values."""
    run, wanted = bundle.runs.get(name), expected_alignment(bundle.case)
    stated: dict[str, Any] = dict(run.trace.header.alignment) if run and run.trace else {}
    for key in sorted({*wanted, *stated}):
        expected, found = wanted.get(key, ABSENT), stated.get(key, ABSENT)
        if expected != found:
            yield f"{key}: the {name.partition('-')[0]} has {found}, the case has {expected}"


def _broken_runs(bundle: Bundle) -> list[BrokenRun]:
    ended = [run for run in bundle.runs.values() if run.outcome.status != "completed"]
    logs = {run.name: _log(bundle, run) for run in ended}
    first = {log: name for name, log in reversed(logs.items())}  # the run whose log is shown
    found = [
        BrokenRun(
            name=run.name,
            purpose=purpose(run.name, bundle.case.task),
            sentence=_how_it_ended(run),
            log=log if first[log] == run.name or not log else SAME_LOG.format(first[log]),
        )
        for run in ended
        for log in (logs[run.name],)
    ]
    return found + [
        BrokenRun(name=name, purpose=purpose(name, bundle.case.task), sentence="was not run", log="")
        for name in bundle.absent
    ]


def _how_it_ended(run: Run) -> str:
    bad = run.trace.first_non_finite if run.trace else None
    if bad is None:
        return f"{run.outcome.status.replace('_', ' ')}: {run.outcome.detail}"
    if isinstance(bad, Scored):
        numbers = f"score {number(bad.score)}"
    else:
        numbers = f"loss {number(bad.loss)}, grad norm {number(bad.grad_norm)}"
    return f"not finite at {describe_place(bad.step)}: {numbers}"


def _log(bundle: Bundle, run: Run) -> str:
    """The end of the run's output: as recorded, or else from the log in the bundle."""
    path = bundle.path / "runs" / run.name / LOG
    text = run.outcome.log_tail
    if not text and path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.rstrip().splitlines()[-LOG_LINES:])
