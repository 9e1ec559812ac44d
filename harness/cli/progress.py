"""Live progress of the runs on a terminal; plain lines without one."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console

from harness.runs.trace import Scored, Trace

PLAIN_SECONDS = 10.0


class Progress:
    """One bar per run: step, loss, grad norm, time left. Call `update` with a run's trace whenever it has grown."""

    def __init__(self, console: Console, runs: Sequence[str], quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._bars = progress.Progress(
            progress.TextColumn("{task.description:<13}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[numbers]}", markup=False),
            progress.TimeRemainingColumn(compact=True),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._tasks = {run: self._bars.add_task(run, start=False, total=None, numbers="") for run in runs}
        self._last_line: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, run: str, trace: Trace) -> None:
        """Shows the last step of a trace."""
        if not trace.lines or self._quiet:
            return
        last, total = trace.lines[-1], trace.header.steps
        numbers = (
            f"task {last.task}" if isinstance(last, Scored) else f"loss {last.loss:.4f}  norm {last.grad_norm:.4f}"
        )
        task = self._tasks[run]
        if not self._bars.tasks[task].started:
            self._bars.start_task(task)
        self._bars.update(task, total=total, completed=last.step, numbers=numbers)
        if not self._console.is_terminal:
            self._line(run, f"{run}: step {last.step} of {total}, {numbers}", done=last.step == total)

    def _line(self, run: str, text: str, done: bool) -> None:
        now = time.monotonic()
        if done or now - self._last_line.get(run, 0.0) >= PLAIN_SECONDS:
            self._last_line[run] = now
            self._console.print(text, markup=False)
