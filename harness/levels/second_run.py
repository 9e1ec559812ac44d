"""Whether a bundle is a run of its own, made after another one.

Takes two bundles. What is checked here follows from files, so it refuses copies and mistakes. It cannot show that a run
is independent: that is the word of the person who signed it.
"""

from datetime import datetime

from harness.cases.runs_of_a_case import SUBJECT, role
from harness.evidence.bundle import Bundle
from harness.evidence.timing import Timing

ROUNDING = 1.0  # seconds: a duration is rounded, and a worker's clock is not the launcher's
MOST_ALIKE = 0.5  # the share of steps that may take the same microseconds by chance


def same_run(a: Bundle, b: Bundle) -> bool:
    """Whether two bundles are one run: by record, occasion, nonce, or by steps that took the same microseconds."""
    nonces = [one.start.nonce for one in (a, b) if one.start]
    return (
        a.record == b.record
        or a.occasion == b.occasion
        or (len(nonces) == 2 and nonces[0] == nonces[1])
        or _alike(a.timings.get(SUBJECT, Timing()), b.timings.get(SUBJECT, Timing()))
    )


def _alike(a: Timing, b: Timing) -> bool:
    shared = set(a.steps) & set(b.steps)
    return len(shared) > MOST_ALIKE * min(len(set(a.steps)), len(set(b.steps)))


def not_a_later_run(first: Bundle, second: Bundle) -> str | None:
    """Why a bundle is no run of its own that was made after another one, as the end of a sentence; None if it is."""
    if second.start is None:
        return "has no nonce: it was not made by this version"
    if _moment(second.occasion.started) <= _moment(first.occasion.started):
        return "started before the first run"
    if why := _unfit_timing(second):
        return why
    return _older_revision(first, second)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _unfit_timing(bundle: Bundle) -> str | None:
    """A run that was made with the bundle has a time for each of its steps, and all together are no longer than it
    took. Runs of a baseline have none."""
    for name, run in bundle.runs.items():
        side = (role(name, bundle.case) or ("subject",))[0]
        if run.trace is None or (bundle.baseline is not None and side != "subject"):
            continue
        timing = bundle.timings.get(name, Timing())
        if {step for step, _ in timing.steps} != {line.step for line in run.trace.lines}:
            return f"has not the time of each step of {name}"
        instant = any(seconds <= 0 for _, seconds in timing.steps)
        if instant or timing.total > bundle.occasion.seconds + ROUNDING:
            return f"has times of {name} that do not fit its duration"
    return None


def _older_revision(first: Bundle, second: Bundle) -> str | None:
    a, b = first.source, second.source
    shared = set(a.runners or {}) & set(b.runners or {})
    if any((a.runners or {})[name] != (b.runners or {})[name] for name in shared):
        return "has another file of a runner under the same name"
    if a.revision == b.revision:
        return None if a.sha256 == b.sha256 else "has other code of the same revision"
    times = [one.start.committed if one.start else None for one in (first, second)]
    if times[0] is None or times[1] is None or _moment(times[1]) < _moment(times[0]):
        return "is of another revision, which is not known to be newer"
    return None
