"""Runs of planted defects: each in a process of its own, forked from one that has imported MindSpore and done nothing.

Forking is sound only then: the import starts no thread, and device and threads are set by the run itself. What the
runs of one defect compile is kept for its later runs, in a directory of its own. MindSpore tells what it kept apart by
the order alone in which a process compiles, so this needs that every run compiles the same in the same order, and some
more after it: the step, the gradients, the update, the tapped gradients.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import TimeoutExpired
from types import TracebackType
from typing import BinaryIO, Self

from harness.case import Case
from harness.errors import CertifyError
from harness.runners import Job
from harness.runners.launcher import run_jobs, variables
from harness.runners.worker import end_with_parent, main

PRELOADED = ["harness.power.preload"]
COMPILED = "compiled"
HALF_WAY = 64  # how a process ends whose job another has to end, from the checkpoint alone


class Stopped(CertifyError):
    """The run was ended from here, so nothing follows from how it ended."""


class Forks:
    """Carries out the jobs of defects; may be called from several threads."""

    def __init__(self, threads: int) -> None:
        self._variables = variables(threads)
        self._context = get_context("forkserver")
        self._running = set[_Forked]()
        self._stopped = False

    def __enter__(self) -> Self:
        self._context.set_forkserver_preload(PRELOADED)
        # The variables have to be there before the framework is.
        with _environment(self._variables):
            forkserver.ensure_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends what still runs; whoever waits for it gets `Stopped`."""
        self._stopped = True
        for process in tuple(self._running):
            process.kill()

    def execute(self, jobs: Sequence[Job], case: Case) -> None:
        """Carries out jobs, one after the other, and writes how each ended into its directory.

        Raises:
            Stopped: they were ended.
        """
        run_jobs(jobs, case, workers=1, listener=lambda run, trace: None, start=self._start)
        self._check()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped("The runs of this defect were ended before they were done.")

    def _start(self, job: Job, job_file: Path, log: BinaryIO) -> "_Forked":
        self._check()
        kept = {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(job_file.parents[3] / COMPILED)}
        told = (str(job_file), log.name, {**self._variables, **kept})
        process = self._context.Process(target=_carry_out, args=told, daemon=True)
        process.start()
        forked = _Forked(process)
        self._running.add(forked)
        return forked


class _Forked:
    """What the launcher knows of a process, for one that was forked."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None, "it was started"
        self._process, self.pid = process, process.pid

    @property
    def returncode(self) -> int | None:
        """As `subprocess.Popen` has it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `subprocess.Popen` has it."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen` has it."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(str(self.pid), timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        """Without waiting; nothing where it is gone."""
        self._process.kill()


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
