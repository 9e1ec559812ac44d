"""What carries out the jobs of a case. The executors differ in the processes that they use, not in what they leave.

runners.launcher.Launcher            a fresh process a run; every certificate is made by it
studies.forks.Forks                  a process a run, forked from one that has imported the framework
studies.pool.Pool                    one process for many runs, where what was compiled is kept
studies.standing_ranks.StandingRanks the same for runs of several ranks
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from harness.cases.case import Case
from harness.evidence.bundle import read_run
from harness.runners.job import Job
from harness.runs.trace import Run, Trace

Listener = Callable[[str, Trace], None]


def no_listener(run: str, trace: Trace) -> None:
    """Ignores the progress of a run."""


class Executor(Protocol):
    """Carries out jobs."""

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out jobs, all of one case, and waits for them. Inference jobs start after the job that trains their
        weights.

        Each job's directory then holds the run: its trace, and how it ended. A run that breaks is an outcome.

        Args:
            jobs: what is carried out.
            case: their case, whose time limits hold.
            listener: takes the name and the trace of a run whenever more of it was recorded.

        Returns:
            The run of each job, in the order of the jobs.

        Raises:
            CertifyError: the executor itself cannot go on.
        """


def runs_of(jobs: Sequence[Job]) -> list[Run]:
    """The runs of jobs that were carried out, as their directories hold them."""
    return [read_run(Path(job.directory)) for job in jobs]
