"""Starts the runs of a case, each in a fresh process, watches them, and records how each ended.

A run is watched through its own trace file, so what is shown is what is on disk. A crash, a hang and a non-finite
number are outcomes. However this process ends, it leaves no run behind.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from harness.base.errors import EvidenceError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.cases.runs_of_a_case import TRAINING
from harness.evidence.bundle import read_run
from harness.runners import cores, devices
from harness.runners.environment_of_a_run import environment_of
from harness.runners.executor import Listener, no_listener, runs_of
from harness.runners.job import Job, Starter
from harness.runners.left import JOB, tidy, trace_of
from harness.runners.processes import log_tail
from harness.runners.profile import ASCEND, CPU, profile_variables
from harness.runners.protection import KEPT_TENSORS, Guard, Strays, seen_by, weakest_of
from harness.runners.protection import start as start_confined
from harness.runners.worker import CHECKPOINT, resume_step
from harness.runs.files import LOG, OUTCOME, TIMING, TRACE
from harness.runs.trace import ENDED, Protection, Run, RunOutcome, Scored, Status, Trace, read_trace

POLL_SECONDS, READ_SECONDS = 0.1, 1.0
TERMINATE_SECONDS = 2.0
# What has several processes carry out a job together.
RANKS_BY: Mapping[Starter, str] = {"msrun": "harness.runners.ranks", "torchrun": "harness.runners.torch_ranks"}
FIRST_INSIDE = "1"  # the process that starts a run in a namespace of processes

OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class Process(Protocol):
    """A started process, as `subprocess.Popen` is one; it leads a group of its own."""

    @property
    def pid(self) -> int:
        """Also the group's."""

    @property
    def returncode(self) -> int | None:
        """Negative for a signal, None while it runs."""

    def poll(self) -> int | None:
        """`returncode`, as it is now."""

    def wait(self, timeout: float | None = None) -> int:
        """Until its end, or `subprocess.TimeoutExpired` after so many seconds."""


Start = Callable[[Job, Path, BinaryIO], Process]


def variables(threads: int, device: str = CPU, *, blocking: bool = False) -> dict[str, str]:
    """The environment variables that every run on a device gets, besides those of this process."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # 3: errors only; the log of a run that broke should end with what broke it
    own = profile_variables(device, blocking=blocking)
    return {**own, **OFFLINE, "GLOG_v": "3", **{pool: str(threads) for pool in pools}}


@dataclass
class _Running:
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

    @property
    def directory(self) -> Path:
        return Path(self.job.directory)


def finished(job: Job) -> bool:
    """Whether a run of this job has finished before, with its complete trace."""
    try:
        run = read_run(Path(job.directory))
    except EvidenceError:
        return False
    if run.trace is None or run.trace.header.case != job.case_digest or run.trace.header.runner != job.runner:
        return False
    return run.outcome.status == "completed" and run.trace.complete


def start_fresh(job: Job, job_file: Path, log: BinaryIO, guard: Guard | None = None) -> "subprocess.Popen[bytes]":
    """A fresh interpreter that carries out a job, or that has several carry it out together; of the subject it has the
    namespaces of a guard, if that gives any."""
    module = "harness.runners.worker" if job.ranks == 1 else RANKS_BY[job.starter]
    command = [job.python or sys.executable, "-m", module, str(job_file)]
    own = {**variables(job.threads, job.device, blocking=job.blocking), **devices.visible(job.devices)}
    environment = {**environment_of(job.runner, job.python), **own}
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
    given = {"env": environment, "start_new_session": True, **streams}
    if guard is not None and guard.kind == "namespaces" and job.side == "subject":
        return start_confined([*command, FIRST_INSIDE], seen_by(job, guard), **given)
    return subprocess.Popen([*command, str(os.getpid())], **given)


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """An executor with a process for each job: `workers` at a time, or one job that has more processes. Runs on devices
    have a queue of their own, and each has devices of its own.

    `start` starts the process of a job from the job's file. With a `guard` the subject's runs are kept from those of
    the other sides: by namespaces, or because no other side's run begins before all of them have ended.
    """

    workers: int
    start: Start = start_fresh
    guard: Guard | None = None

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out every job that is not finished; see `Executor`.

        Outside the main thread SIGTERM is left to the caller. When a run that several nodes make together breaks,
        another node may be gone: the other runs of that kind are omitted, and their outcome states why; otherwise each
        would wait for that node.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; all runs are ended first and can be resumed.
        """
        waiting, guard = [job for job in jobs if not finished(job)], self._guard()
        start = functools.partial(start_fresh, guard=guard) if self.start is start_fresh else self.start
        if guard is not None and guard.kind == "order":
            waiting.sort(key=lambda job: job.side != "subject")
        running: list[_Running] = []
        fresh = guard is not None and self.start is start_fresh
        strays = Strays() if fresh and sys.platform == "linux" else None
        with terminate_as_interrupt():
            try:
                while waiting or running:
                    while job := _next(waiting, running, self.workers, guard):
                        waiting.remove(job)
                        running.append(_start(job, start, guard))
                    time.sleep(POLL_SECONDS)
                    over = [one for one in running if _look(one, case, listener)]
                    running = [one for one in running if one not in over]
                    if over and strays is not None:
                        strays.end(one.process.pid for one in running)
                    for one in over:
                        _note_end(one.job, guard)
                    waiting = _without_consequences(waiting, over, guard)
            finally:
                for one in running:
                    _end(one)
                    _take_note(one, listener)
                    _record(one, "interrupted", f"interrupted after step {one.last_step}")
        return runs_of(jobs)

    def _guard(self) -> Guard | None:
        """The guard as it works here: only a fresh process can have namespaces."""
        if self.guard is None or self.start is start_fresh or self.guard.kind != "namespaces":
            return self.guard
        return dataclasses.replace(self.guard, kind="order", why="the runs are forked from one process")


def _note_end(job: Job, guard: Guard | None) -> None:
    if guard is not None:
        guard.ended(job)


def _without_consequences(waiting: Sequence[Job], over: Sequence[_Running], guard: Guard | None) -> list[Job]:
    """The jobs that still start after these ended; the outcome of each other one states why it does not."""
    for why, concerned in _consequences(over):
        for job in filter(concerned, waiting):
            _leave_out(job, why)
            _note_end(job, guard)
        waiting = [job for job in waiting if not concerned(job)]
    return list(waiting)


def _next(waiting: Sequence[Job], running: Sequence[_Running], workers: int, guard: Guard | None = None) -> Job | None:
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


def _may_start(job: Job, waiting: Sequence[Job], running: Sequence[_Running], guard: Guard | None) -> bool:
    """Whether the weights of an inference job are there, and no run of the subject could read what it leaves."""
    trained = job.arm != "infer" or all(one.job.run != TRAINING for one in running)
    if guard is not None and guard.kind != "namespaces" and job.side != "subject":
        left = [*(one.job for one in running), *waiting]
        return trained and all(one.side != "subject" for one in left)
    return trained


def _room(job: Job, alike: Sequence[Job], workers: int) -> bool:
    """Whether a job can start next to those of its kind: of device runs each has devices of its own."""
    if job.device == ASCEND:
        return not alike or (devices.free(_ranks_here(job)) and len(alike) < workers)
    return not alike or sum(one.ranks for one in alike) + job.ranks <= workers


def _ranks_here(job: Job) -> int:
    """How many of the processes of a job are on this machine."""
    return job.ranks // (job.nodes.count if job.nodes else 1)


def _consequences(over: Sequence[_Running]) -> Iterator[tuple[str, Callable[[Job], bool]]]:
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


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Within it SIGTERM is what Ctrl-C is; a signal reaches the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(job: Job, start: Start, guard: Guard | None) -> _Running:
    if job.device == CPU:
        job = dataclasses.replace(job, cores=cores.reserve(job.threads * _ranks_here(job)))
    if job.device == ASCEND:
        job = dataclasses.replace(job, devices=devices.reserve(_ranks_here(job)))
    try:
        return _started(job, start, guard)
    except BaseException:
        cores.release(job.cores)
        devices.release(job.devices)
        raise


def _started(job: Job, start: Start, guard: Guard | None) -> _Running:
    directory, tensors = Path(job.directory), job.keep_tensors and Path(job.keep_tensors)
    if not job.resume or not _resumable(directory, job):
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    resumed_after, before = _resumed_before(directory)
    protection = weakest_of(job, guard, before) if guard is not None else None
    if tensors:
        job = dataclasses.replace(job, keep_tensors=str(directory / KEPT_TENSORS))
    write_json(directory / JOB, job)
    log = (directory / LOG).open("ab")
    process = start(job, directory / JOB, log)
    return _Running(
        job=job,
        process=process,
        log=log,
        resumed_after=resumed_after,
        tensors=tensors or None,
        protection=protection,
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


def _resumed_before(directory: Path) -> tuple[tuple[int, ...], Protection | None]:
    """The steps after which this run was resumed before, and the step after which it is resumed now; and the protection
    that it had before."""
    step = resume_step(directory / CHECKPOINT)
    if not step:
        return (), None
    try:
        before = read_run(directory).outcome
    except EvidenceError:
        return (step,), None
    return (*before.resumed_after, step), before.protection


def _look(one: _Running, case: Case, listener: Listener) -> bool:
    """Reads new steps; whether the run is over."""
    ended = one.process.poll() is not None
    # A trace is read from its beginning; doing so at every poll would take time from the training.
    if ended or time.monotonic() - one.last_change >= READ_SECONDS:
        _take_note(one, listener)
    if ended:
        _end(one)
        _judge_end(one)
        return True
    limit = case.training.step_timeout_s if one.last_step else case.training.start_timeout_s
    if time.monotonic() - one.last_change <= limit:
        return False
    _end(one)
    what = (
        f"no step within {limit:g} s after step {one.last_step}"
        if one.last_step
        else f"no first step within {limit:g} s"
    )
    _record(one, "hung", f"hung: {what}; the process was ended")
    return True


def _take_note(one: _Running, listener: Listener) -> None:
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


def _judge_end(one: _Running) -> None:
    trace, why = trace_of(one.directory, one.job)
    code = one.process.returncode
    assert code is not None, "it has ended"
    if code == 0 and trace is not None and trace.footer is not None:
        _put_tensors(one)
        _record(one, *own_end(trace))
        shutil.rmtree(one.directory / CHECKPOINT, ignore_errors=True)
        return
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    where = f"after step {one.last_step} of {one.job.steps}" if one.last_step else "before its first step"
    _record(one, "crashed", f"{how} {where}" + f"; {why}" * bool(why))


def _put_tensors(one: _Running) -> None:
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


def _record(one: _Running, status: Status, detail: str) -> None:
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
    )
    write_json(one.directory / OUTCOME, outcome)


def _end(one: _Running) -> None:
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
