"""A repeat in blocking mode, where two runs of a subject on Ascend differ: a diagnosis, and no part of the bundle.

In blocking mode each launch waits for the operator before it. No user trains like that, so no certified run is made in
it. But if the repeat then gives the bits of a run, what differs between runs is the order of operators on the device.
"""

import dataclasses
from pathlib import Path

from harness.base.errors import EvidenceError
from harness.cases.case import Case
from harness.cases.runs_of_a_case import SUBJECT, SUBJECT_REPEAT
from harness.certify.jobs import Options, job
from harness.evidence.bundle import read_run
from harness.runners.launcher import Launcher
from harness.runners.profile import ASCEND
from harness.runs.trace import Trace

SUFFIX = "-blocking"


def blocking_repeat(case: Case, options: Options) -> str | None:
    """What one more run of the subject in blocking mode shows, as a sentence; None where nothing is to be explained.

    The run is made again in a directory beside the bundle.
    """
    if options.device != ASCEND or not case.task.judges_steps:
        return None
    first, second = (_finished(options.out / "runs" / name) for name in (SUBJECT, SUBJECT_REPEAT))
    if first is None or second is None or _same(first, second):
        return None
    directory = options.out.with_name(f"{options.out.name}{SUFFIX}")
    again = dataclasses.replace(
        job(case, options, SUBJECT_REPEAT),
        directory=str(directory.resolve()),
        keep_tensors=None,
        resume=False,
        blocking=True,
    )
    (run,) = Launcher(workers=again.ranks).execute([again], case)
    if run.trace is None or not run.trace.complete:
        return f"A repeat in blocking mode did not finish: {run.outcome.detail}. Its log is in {directory}."
    agrees = [name for name, trace in ((SUBJECT, first), (SUBJECT_REPEAT, second)) if _same(run.trace, trace)]
    if not agrees:
        return f"A repeat in blocking mode differs from {SUBJECT} and {SUBJECT_REPEAT}. See {directory}."
    return (
        f"A repeat in blocking mode gives the bits of {agrees[0]}, so the order of operators on the device may be what "
        f"differs between {SUBJECT} and {SUBJECT_REPEAT}. See {directory}."
    )


def _finished(directory: Path) -> Trace | None:
    try:
        trace = read_run(directory).trace
    except EvidenceError:
        return None
    return trace if trace is not None and trace.complete else None


def _same(one: Trace, other: Trace) -> bool:
    """Whether two finished runs have the same bits in every step and every final parameter."""
    assert one.footer is not None and other.footer is not None, "they finished"
    return one.lines == other.lines and one.footer.parameters == other.footer.parameters
