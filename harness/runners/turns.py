"""Whose turn it is: which job starts next, and which no longer starts after others ended."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.base.records import write_json
from harness.cases.runs_of_a_case import TRAINING
from harness.runners import devices
from harness.runners.job import Job
from harness.runners.profile import ASCEND, CPU
from harness.runners.protection import Guard
from harness.runners.running import Running, ranks_here
from harness.runs.files import OUTCOME
from harness.runs.trace import ENDED, RunOutcome


def next_job(waiting: Sequence[Job], running: Sequence[Running], workers: int, guard: Guard | None) -> Job | None:
    """The job that starts next: the first of those on the CPU, or of those on devices, if there is room for it.

    Each kind has its queue: a run on a device leaves the CPU to others, and is not held to cores. With one worker
    nothing overlaps.
    """
    if workers == 1 and running:
        return None
    for on_cpu in (True, False):
        queue = [job for job in waiting if (job.device == CPU) == on_cpu]
        alike = [one.job for one in running if (one.job.device == CPU) == on_cpu]
        if queue and _may_start(queue[0], waiting, running, guard) and _room(queue[0], alike, workers):
            return queue[0]
    return None


def _may_start(job: Job, waiting: Sequence[Job], running: Sequence[Running], guard: Guard | None) -> bool:
    """Whether the weights of an inference job are there, and no run of the subject could read what it leaves."""
    trained = job.arm != "infer" or all(one.job.run != TRAINING for one in running)
    if guard is not None and guard.kind != "namespaces" and job.side != "subject":
        left = [*(one.job for one in running), *waiting]
        return trained and all(one.side != "subject" for one in left)
    return trained


def _room(job: Job, alike: Sequence[Job], workers: int) -> bool:
    """Whether a job can start next to those of its kind: of device runs each has devices of its own."""
    if job.device == ASCEND:
        return not alike or (devices.free(ranks_here(job)) and len(alike) < workers)
    return not alike or sum(one.ranks for one in alike) + job.ranks <= workers


def without_consequences(waiting: Sequence[Job], over: Sequence[Running], guard: Guard | None) -> list[Job]:
    """The jobs that still start after these ended; the outcome of each other one states why it does not."""
    for why, concerned in _consequences(over):
        for job in filter(concerned, waiting):
            _leave_out(job, why)
            if guard is not None:
                guard.ended(job)
        waiting = [job for job in waiting if not concerned(job)]
    return list(waiting)


def _consequences(over: Sequence[Running]) -> Iterator[tuple[str, Callable[[Job], bool]]]:
    """Why runs are not started after these ended, and which: those of several nodes, one of which may be gone, and
    inference with weights that were not trained."""
    for one in over:
        if one.job.nodes and one.status not in ENDED:
            yield f"{one.job.run} broke, which several nodes make together, so one of them may be gone", _of_nodes
        if one.job.run == TRAINING and one.status != "completed":
            yield f"{one.job.run} did not complete, so there are no weights for inference", _infers


def _of_nodes(job: Job) -> bool:
    return job.nodes is not None


def _infers(job: Job) -> bool:
    return job.arm == "infer"


def _leave_out(job: Job, why: str) -> None:
    """Records that a run was not started."""
    directory = Path(job.directory)
    shutil.rmtree(directory, ignore_errors=True)
    outcome = RunOutcome(status="missing", last_step=0, detail=f"not begun: {why}")
    write_json(directory / OUTCOME, outcome)
