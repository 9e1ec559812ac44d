"""Runs by fake runners, each forked from a process that has imported them: a tenth of the time of a fresh interpreter.

For tests whose law is not about processes. `tests/unit/runners/test_launcher.py` starts fresh ones, as users do, and
`tests/unit/runners/test_executors.py` shows that both leave the same bytes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runners.starting import Process, variables
from harness.studies.forks import Forks
from tests.support import fake_runners  # noqa: F401 (imported before the fork, for all that are forked)


class FakeForks(Forks):
    """Forks from a process that has imported the fake runners in place of a framework."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self._preloaded = __name__  # which imports all that a run needs

    def start(self, job: Job, job_file: Path, log: BinaryIO) -> Process:
        """The process of a job, with this process' variables as they are now; see `harness.runners.starting.Start`."""
        self._variables = {**os.environ, **variables(job.threads)}
        return self._start(job_file, log)


@contextmanager
def forked() -> Iterator[None]:
    """Has every launcher of this process fork its runs."""
    with FakeForks() as forks, pytest.MonkeyPatch.context() as patch:
        patch.setitem(Launcher.__init__.__kwdefaults__, "start", forks.start)
        yield
