"""Starts the runs of a case, each in a fresh process, watches them, and records how each ended.

A run is watched through its own trace file, so what is shown is what is on disk. A crash, a hang and a non-finite
number are outcomes. However this process ends, it leaves no run behind.
"""

import contextlib
import dataclasses
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
from typing import BinaryIO, Protocol

from harness.base.errors import EvidenceError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.cases.runs_of_a_case import TRAINING
from harness.evidence.bundle import read_run
from harness.runners import cores, devices
from harness.runners.executor import Listener, no_listener, runs_of
from harness.runners.job import Job, Starter
from harness.runners.processes import log_tail, own_code
from harness.runners.profile import ASCEND, CPU, profile_variables
from harness.runners.worker import CHECKPOINT, resume_step
from harness.runs.files import LOG, OUTCOME, TIMING, TRACE
from harness.runs.trace import ENDED, Run, RunOutcome, Scored, Status, Trace, read_trace

POLL_SECONDS, READ_SECONDS = 0.1, 1.0
TERMINATE_SECONDS = 2.0
# What has several processes carry out a job together.
RANKS_BY: Mapping[Starter, str] = {"msrun": "harness.runners.ranks", "torchrun": "harness.runners.torch_ranks"}
JOB = "job.json"  # for the process; it names paths of this machine, so it is gone when the process is

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


def start_fresh(job: Job, job_file: Path, log: BinaryIO) -> "subprocess.Popen[bytes]":
    """A fresh interpreter that carries out a job, or that has several carry it out together."""
    module = "harness.runners.worker" if job.ranks == 1 else RANKS_BY[job.starter]
    return subprocess.Popen(
        [sys.executable, "-m", module, str(job_file), str(os.getpid())],
        env={
            **os.environ,
            **own_code(),
            **variables(job.threads, job.device, blocking=job.blocking),
            **devices.visible(job.devices),
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """An executor with a process for each job: `workers` at a time, or one job that has more processes. Runs on devices
    have a queue of their own, and each has devices of its own.

    `start` starts the process of a job from the job's file.
    """

    workers: int
    start: Start = start_fresh

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out every job that is not finished; see `Executor`.

        Outside the main thread SIGTERM is left to the caller. When a run that several nodes make together breaks,
        another node may be gone: the other runs of that kind are omitted, and their outcome states why; otherwise each
        would wait for that node.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; all runs are ended first and can be resumed.
        """
        waiting = [job for job in jobs if not finished(job)]
        running: list[_Running] = []
        with terminate_as_interrupt():
            try:
                while waiting or running:
                    while job := _next(waiting, running, self.workers):
                        waiting.remove(job)
                        running.append(_start(job, self.start))
                    time.sleep(POLL_SECONDS)
                    over = [one for one in running if _look(one, case, listener)]
                    running = [one for one in running if one not in over]
                    waiting = _without_consequences(waiting, over)
            finally:
                for one in running:
                    _end(one)
                    _take_note(one, listener)
                    _record(one, "interrupted", f"interrupted after step {one.last_step}")
        return runs_of(jobs)


def _without_consequences(waiting: Sequence[Job], over: Sequence[_Running]) -> list[Job]:
    """The jobs that still start after these ended; the outcome of each other one states why it does not."""
    for why, concerned in _consequences(over):
        for job in filter(concerned, waiting):
            _leave_out(job, why)
        waiting = [job for job in waiting if not concerned(job)]
    return list(waiting)


def _next(waiting: Sequence[Job], running: Sequence[_Running], workers: int) -> Job | None:
    """The job that starts next: the first of those on the CPU, or of those on devices, if there is room for it.

    Each kind has its queue: a run on a device leaves the CPU to others, and is not held to cores. With one worker
    nothing overlaps.
    """
    if workers == 1 and running:
        return None
    for on_cpu in (True, False):
        queue = [job for job in waiting if (job.device == CPU) == on_cpu]
        alike = [one.job for one in running if (one.job.device == CPU) == on_cpu]
        if queue and _trained(queue[0], running) and _room(queue[0], alike, workers):
            return queue[0]
    return None


def _trained(job: Job, running: Sequence[_Running]) -> bool:
    """Whether the weights of an inference job are there."""
    return job.arm != "infer" or all(one.job.run != TRAINING for one in running)


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


def _start(job: Job, start: Start) -> _Running:
    if job.device == CPU:
        job = dataclasses.replace(job, cores=cores.reserve(job.threads * _ranks_here(job)))
    if job.device == ASCEND:
        job = dataclasses.replace(job, devices=devices.reserve(_ranks_here(job)))
    try:
        return _started(job, start)
    except BaseException:
        cores.release(job.cores)
        devices.release(job.devices)
        raise


def _started(job: Job, start: Start) -> _Running:
    directory = Path(job.directory)
    if not job.resume or not _resumable(directory, job):
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    resumed_after = _resumed_before(directory)
    write_json(directory / JOB, job)
    log = (directory / LOG).open("ab")
    process = start(job, directory / JOB, log)
    return _Running(job=job, process=process, log=log, resumed_after=resumed_after)


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


def _resumed_before(directory: Path) -> tuple[int, ...]:
    """The steps after which this run was resumed before, and the step after which it is resumed now."""
    step = resume_step(directory / CHECKPOINT)
    if not step:
        return ()
    try:
        earlier = read_run(directory).outcome.resumed_after
    except EvidenceError:
        earlier = ()
    return (*earlier, step)


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
    read = read_trace(trace) if size and trace.read_bytes().find(b"\n") >= 0 else None
    if read is not None:
        one.last_step = len(read.lines)
        listener(one.job.run, read)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _judge_end(one: _Running) -> None:
    trace = _try_read(one.directory / TRACE)
    code = one.process.returncode
    assert code is not None, "it has ended"
    if code == 0 and trace is not None and trace.footer is not None:
        _record(one, *own_end(trace))
        shutil.rmtree(one.directory / CHECKPOINT, ignore_errors=True)
        return
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    where = f"after step {one.last_step} of {one.job.steps}" if one.last_step else "before its first step"
    _record(one, "crashed", f"{how} {where}")


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
    outcome = RunOutcome(
        status=status,
        last_step=one.last_step,
        detail=detail,
        log_tail="" if status in ENDED else log_tail(one.directory / LOG),
        resumed_after=one.resumed_after,
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
    (one.directory / JOB).unlink(missing_ok=True)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
