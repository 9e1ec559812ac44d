"""The steps of a run that its framework profiles. Of a runner that has no profiler nothing is written.

A profiled step takes longer, so its times are no evidence. Its numbers are: the repeat of the subject is what is
profiled, and it has to give the same bits as the run that is not.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from harness.runners.job import Job
from harness.runners.protocol import Runner
from harness.runs.files import PROFILE


class Profiler(Protocol):
    """What a framework records from a moment on, until it is stopped; then it writes it."""

    def start(self) -> None:
        """Begins to record."""

    def stop(self) -> None:
        """Writes what was recorded."""


@runtime_checkable
class Profilable(Protocol):
    """A runner whose steps can be profiled."""

    def profiler(self, directory: Path) -> Profiler:
        """The profiler of this process, which writes into a directory."""


class Profiling:
    """Of one run. Call `before` and `after` around each step."""

    def __init__(self, job: Job, runner: Runner) -> None:
        self._first, self._last = job.profile or (0, 0)
        self._profiler: Profiler | None = None
        if job.profile is not None and isinstance(runner, Profilable):
            self._profiler = runner.profiler(Path(job.directory) / PROFILE)
        elif job.profile is not None:
            print(f"The steps of {type(runner).__name__} cannot be profiled: it has no method profiler.", flush=True)
        self._running = False

    def before(self, step: int) -> None:
        """The step is about to be taken."""
        if self._profiler is not None and self._first <= step <= self._last and not self._running:
            self._profiler.start()
            self._running = True

    def after(self, step: int, *, last: bool) -> None:
        """The step was taken; `last`: no other follows in this process."""
        if self._profiler is not None and self._running and (step >= self._last or last):
            self._profiler.stop()
            self._running = False
