"""A run whose process was started: what its files show, when it is over, and how it ended.

A run is watched through its own trace file, so what is shown is what is on disk. A crash, a hang and a non-finite
number are outcomes.
"""

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import EvidenceError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.evidence.bundle import read_run
from harness.runners import cores, devices
from harness.runners.executor import Listener
from harness.runners.job import Job
from harness.runners.left import JOB, tidy, trace_of
from harness.runners.processes import log_tail
from harness.runners.profile import ASCEND, CPU
from harness.runners.protection import KEPT_TENSORS, Guard, is_apart, weakest_of
from harness.runners.resuming import CHECKPOINT, resume_step
from harness.runners.starting import Process, Start
from harness.runs.files import LOG, OUTCOME, RANKS, TIMING, TRACE
from harness.runs.trace import ENDED, Protection, RunOutcome, Scored, Status, Trace, read_trace

READ_SECONDS = 1.0
TERMINATE_SECONDS = 2.0
READ_ONLY = os.strerror(errno.EROFS)


@dataclass
class Running:
    """A started process and its last known state."""

    job: Job
    process: Process
    log: BinaryIO
    resumed_after: tuple[int, ...]
    size: int = 0
    signs: int = 0  # of life: the sizes of the files that it writes as it goes
    last_step: int = 0
    status: Status | None = None  # how it ended
    last_change: float = dataclasses.field(default_factory=time.monotonic)
    tensors: Path | None = None  # where they go when it has ended; it writes them into its own directory
    protection: Protection | None = None
    apart: bool | None = None

    @property
    def directory(self) -> Path:
        return Path(self.job.directory)


def start_job(job: Job, start: Start, guard: Guard | None) -> Running:
    """Starts the process of a job, on cores or devices of its own, from its checkpoint if it left one."""
    if job.device == CPU:
        job = dataclasses.replace(job, cores=cores.reserve(job.threads * ranks_here(job)))
    if job.device == ASCEND:
        job = dataclasses.replace(job, devices=devices.reserve(ranks_here(job)))
    try:
        return _started(job, start, guard)
    except BaseException:
        cores.release(job.cores)
        devices.release(job.devices)
        raise


def _started(job: Job, start: Start, guard: Guard | None) -> Running:
    directory, tensors = Path(job.directory), job.keep_tensors and Path(job.keep_tensors)
    if not job.resume or not _resumable(directory, job):
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    resumed_after, before = _resumed_before(directory)
    protection = weakest_of(job, guard, before.protection if before else None) if guard is not None else None
    apart = is_apart(job, protection, before)
    if tensors:
        job = dataclasses.replace(job, keep_tensors=str(directory / KEPT_TENSORS))
    write_json(directory / JOB, job)
    log = (directory / LOG).open("ab")
    process = start(job, directory / JOB, log)
    return Running(
        job=job,
        process=process,
        log=log,
        resumed_after=resumed_after,
        tensors=tensors or None,
        protection=protection,
        apart=apart,
    )


def _resumable(directory: Path, job: Job) -> bool:
    """Whether there are a trace of this very job and a checkpoint to resume from. The ranks of a layout save one after
    the other, so the checkpoints of a stopped run may be of different steps: it starts again."""
    if job.ranks > 1:
        return False
    try:
        trace = read_trace(directory / TRACE)
    except EvidenceError:
        return False
    same = trace.header.case == job.case_digest and trace.header.runner == job.runner
    return same and trace.footer is None and resume_step(directory / CHECKPOINT) > 0


def _resumed_before(directory: Path) -> tuple[tuple[int, ...], RunOutcome | None]:
    """The steps after which this run was resumed before, and the step after which it is resumed now; and how it ended
    before."""
    step = resume_step(directory / CHECKPOINT)
    if not step:
        return (), None
    try:
        before = read_run(directory).outcome
    except EvidenceError:
        return (step,), None
    return (*before.resumed_after, step), before


def look(one: Running, case: Case, listener: Listener) -> bool:
    """Reads new steps; whether the run is over."""
    ended = one.process.poll() is not None
    # A trace is read from its beginning; doing so at every poll would take time from the training.
    if ended or time.monotonic() - one.last_change >= READ_SECONDS:
        take_note(one, listener)
    if ended:
        end(one)
        _judge_end(one)
        return True
    limit = case.training.step_timeout_s if one.last_step else case.training.start_timeout_s
    if time.monotonic() - one.last_change <= limit:
        return False
    end(one)
    what = (
        f"no step within {limit:g} s after step {one.last_step}"
        if one.last_step
        else f"no first step within {limit:g} s"
    )
    record(one, "hung", f"hung: {what}; the process was ended")
    return True


def take_note(one: Running, listener: Listener) -> None:
    """Reads what its files show now, and hands new steps to the listener."""
    trace, size = one.directory / TRACE, _size(one.directory / TRACE)
    if (signs := size + _size(one.directory / TIMING)) != one.signs:
        one.signs, one.last_change = signs, time.monotonic()
    if size == one.size:
        return
    one.size = size
    if (read := _try_read(trace)) is not None:
        one.last_step = len(read.lines)
        listener(one.job.run, read)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _judge_end(one: Running) -> None:
    for of_a_rank in (one.directory / RANKS).glob(f"*/{CHECKPOINT}"):  # no run of several ranks is resumed
        shutil.rmtree(of_a_rank, ignore_errors=True)
    trace, why = trace_of(one.directory, one.job)
    code = one.process.returncode
    assert code is not None, "it has ended"
    if code == 0 and trace is not None and trace.footer is not None:
        _put_tensors(one)
        record(one, *own_end(trace))
        shutil.rmtree(one.directory / CHECKPOINT, ignore_errors=True)
        return
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    where = f"after step {one.last_step} of {one.job.steps}" if one.last_step else "before its first step"
    record(one, "crashed", "; ".join(filter(None, (f"{how} {where}", why, _forbidden(one)))))


def _forbidden(one: Running) -> str:
    """What to do about a run that may not write where it wrote; empty where its log states nothing of that."""
    if one.protection != "namespaces" or READ_ONLY not in log_tail(one.directory / LOG):
        return ""
    return "in namespaces it may write to its own directory, /tmp and its home alone: --protection order permits more"


def _put_tensors(one: Running) -> None:
    """Moves the tensors of a finished run to where the case has them."""
    left = one.directory / KEPT_TENSORS
    if one.tensors is not None and left.is_file():
        one.tensors.parent.mkdir(exist_ok=True)
        os.replace(left, one.tensors)


def own_end(trace: Trace) -> tuple[Status, str]:
    """How a run ended that finished by itself, as a status and in words."""
    bad = trace.first_non_finite
    if bad is None:
        return "completed", f"{len(trace.lines)} of {trace.header.steps} steps"
    named = ("score",) if isinstance(bad, Scored) else ("loss", "grad_norm")
    numbers = ", ".join(f"{name} {getattr(bad, name)}" for name in named)
    return "non_finite", f"stopped at step {bad.step}, which is not finite: {numbers}"


def _try_read(path: Path) -> Trace | None:
    try:
        return read_trace(path)
    except EvidenceError:
        return None


def record(one: Running, status: Status, detail: str) -> None:
    """Writes how it ended."""
    one.status = status
    if status not in ENDED:
        (one.directory / KEPT_TENSORS).unlink(missing_ok=True)
    outcome = RunOutcome(
        status=status,
        last_step=one.last_step,
        detail=detail,
        log_tail="" if status in ENDED else log_tail(one.directory / LOG),
        resumed_after=one.resumed_after,
        protection=one.protection,
        apart=one.apart,
    )
    write_json(one.directory / OUTCOME, outcome)


def end(one: Running) -> None:
    """Ends the process and all that it started: by SIGTERM first, then by SIGKILL."""
    if one.process.poll() is None:
        _signal_group(one.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.process.wait(TERMINATE_SECONDS)
    _signal_group(one.process.pid, signal.SIGKILL)
    one.process.wait()
    one.log.close()
    cores.release(one.job.cores)
    devices.release(one.job.devices)
    tidy(one.directory)
    (one.directory / JOB).unlink(missing_ok=True)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def ranks_here(job: Job) -> int:
    """How many of the processes of a job are on this machine."""
    return job.ranks // (job.nodes.count if job.nodes else 1)
