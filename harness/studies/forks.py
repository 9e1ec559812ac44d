"""Runs of planted defects: each in a process of its own, forked from one that has imported MindSpore and done nothing.

The repeat of the subject is made by a fresh interpreter, which compiles again. Forked processes have everything in
common that an interpreter draws when it starts, such as the state of `random`, and a kept graph holds the numbers with
which it was compiled: a subject that depends on either would repeat itself here and nowhere else.

Forking is sound only then: the import starts no thread, and device and threads are set by the run itself. For inference
the same is true of PyTorch and lm-eval. What the other runs of one defect compile is kept for the later ones, in a
directory of its own. MindSpore identifies a kept graph only by the order in which a process compiles. So every run must
compile the same graphs in the same order, and may compile more after them: the step, the gradients, the update, the
tapped gradients; for inference, both runs the same.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import TimeoutExpired
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from harness.base.errors import CertifyError
from harness.cases.case import Case
from harness.cases.runs_of_a_case import SUBJECT_REPEAT
from harness.cases.task import PRETRAIN, Task, TaskName
from harness.runners.executor import Listener, no_listener
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runners.processes import end_with_parent
from harness.runners.starting import Process, start_fresh, variables
from harness.runners.worker import main
from harness.runs.trace import Run

PRELOADED: Mapping[TaskName, str] = {
    "pretrain": "harness.studies.preload",
    "finetune": "harness.studies.preload",
    "inference": "harness.studies.preload_inference",
}
# lm-eval imports Arrow, whose memory allocator would start a thread at import.
WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
COMPILED = "compiled"
LOOK_SECONDS = 0.02
HALF_WAY = 64  # how a process ends whose job another has to end, from the checkpoint alone


class Stopped(CertifyError):
    """The run was ended by this process, so its end shows nothing."""


class _Killable(Process, Protocol):
    """A process that can be ended at once, as `subprocess.Popen` can be."""

    def kill(self) -> None:
        """By SIGKILL."""


class Forks:
    """An executor for the jobs of defects of a task; may be called from several threads."""

    def __init__(self, threads: int, task: Task = PRETRAIN) -> None:
        self._variables = {**variables(threads), **WITHOUT_THREADS}
        self._preloaded = PRELOADED[task.name]
        self._context = get_context("forkserver")
        self._running = set[_Killable]()
        self._stopped = False
        # Starting a process also polls all others; of two polls at once, each may take the other's result for lost.
        self._polling = threading.Lock()

    def __enter__(self) -> Self:
        self._context.set_forkserver_preload([self._preloaded])
        # The variables have to be there before the framework is.
        with _environment(self._variables):
            forkserver.ensure_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends what still runs; a caller that waits for it gets `Stopped`."""
        self._stopped = True
        for process in tuple(self._running):
            process.kill()

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out jobs, one after the other; see `Executor`.

        Raises:
            Stopped: they were ended.
        """
        started: list[_Killable] = []

        def start(job: Job, job_file: Path, log: BinaryIO) -> Process:
            self._check()
            started.append(self._begun(job, job_file, log))
            self._running.add(started[-1])
            return started[-1]

        try:
            runs = Launcher(workers=1, start=start).execute(jobs, case, listener)
        finally:
            self._running.difference_update(started)  # each holds a file open as long as it is known
        self._check()
        return runs

    def _check(self) -> None:
        if self._stopped:
            raise Stopped("The runs of this defect were ended before they were done.")

    def _begun(self, job: Job, job_file: Path, log: BinaryIO) -> _Killable:
        # The processes of several ranks are started by `msrun`.
        if job.ranks > 1 or job.run == SUBJECT_REPEAT:
            return start_fresh(job, job_file, log)
        return self._start(job_file, log)

    def _start(self, job_file: Path, log: BinaryIO) -> "_Forked":
        arguments = (str(job_file), log.name, {**self._variables, **kept_graphs(job_file)})
        process = self._context.Process(target=_carry_out, args=arguments, daemon=True)
        with self._polling:
            process.start()
        return _Forked(process, self._polling)


class _Forked:
    """A forked process with the interface of `subprocess.Popen` that the launcher uses."""

    def __init__(self, process: BaseProcess, polling: threading.Lock) -> None:
        assert process.pid is not None, "it was started"
        self._process, self._polling, self.pid = process, polling, process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        with self._polling:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (math.inf if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(LOOK_SECONDS)
        return code

    def kill(self) -> None:
        self._process.kill()


def kept_graphs(job_file: Path) -> dict[str, str]:
    """The variables by which the runs of a defect share what they compile."""
    return {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(job_file.parents[3] / COMPILED)}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _carry_out(job_file: str, log_file: str, environment: Mapping[str, str]) -> None:
    """In the forked process: what `harness.runners.worker` does in one that the launcher starts itself.

    The job is carried out by a process of its own once more, so that this one has done nothing yet where a second half
    is left to do.
    """
    os.setsid()
    os.environ.update(environment)
    with open(os.devnull, "rb") as nothing, open(log_file, "ab") as log:
        for file, number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(file.fileno(), number)
    end_with_parent(os.getppid())
    child = os.fork()
    if not child:
        sys.exit(0 if main(job_file, os.getppid(), resume=False) else HALF_WAY)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == HALF_WAY:
        main(job_file, os.getppid(), resume=True)
    elif code < 0:
        os.kill(os.getpid(), -code)
    else:
        sys.exit(code)
