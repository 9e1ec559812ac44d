"""Ranks that stay: processes that `msrun` starts once for a number of ranks, and that carry out job after job together.

    python harness/studies/standing_ranks.py SOCKET DEVICE THREADS

is each of them, as `msrun` starts it. It connects to the process that distributes the jobs, and ends with it.
"""

import functools
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from harness.base.errors import CertifyError
from harness.cases.case import Case, parse_case
from harness.runners.executor import Listener, no_listener
from harness.runners.job import Job
from harness.runners.processes import end_with_parent
from harness.runners.ranks import part_of, start_msrun, this_node
from harness.runners.ranks_together import print_ends
from harness.runners.worker import carry_out
from harness.runs.trace import Run
from harness.studies.reuse import factory_of, recorded

LOOK_SECONDS = 1.0
SOCKET, LOGS = "socket", "log"


class RanksBroke(CertifyError):
    """A rank ended or raised, so none of them can go on."""


class StandingRanks:
    """An executor for jobs of several ranks on this machine. The ranks of a job serve the next one of as many."""

    def __init__(self) -> None:
        self._group: _Group | None = None

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        """Carries out jobs, one after the other; see `Executor`. The listener takes each trace once."""
        runs = []
        for job in jobs:
            runs.append(run := recorded(job, functools.partial(self._carry_out, job)))
            if run.trace is not None:
                listener(job.run, run.trace)
        return runs

    def _carry_out(self, job: Job) -> None:
        group, self._group = self._group, None
        if group is not None and group.ranks != job.ranks:
            group.close()
            group = None
        group = group or _Group(job.ranks, job.device, job.threads)
        group.carry_out(job)
        self._group = group  # where they broke, the next job gets others


class _Group:
    """The ranks that `msrun` has started, to carry out jobs of that many; closed when one of them breaks."""

    def __init__(self, ranks: int, device: str, threads: int) -> None:
        self.ranks = ranks
        self._connections = list[Connection]()
        self._directory = tempfile.TemporaryDirectory(prefix="certify-ranks-", ignore_cleanup_errors=True)
        self._logs = Path(self._directory.name) / LOGS
        address = str(Path(self._directory.name) / SOCKET)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(address)
            listening.listen(ranks)
            listening.settimeout(LOOK_SECONDS)
            self._msrun = start_msrun(ranks, this_node(), self._logs, [__file__, address, device, str(threads)])
            while len(self._connections) < ranks:
                self._accept(listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            self._connections.append(Connection(listening.accept()[0].detach()))
        except TimeoutError:
            if self._msrun.poll() is not None:
                raise self._broken("they ended before all of them were there") from None

    def carry_out(self, job: Job) -> None:
        """Has every rank do its part of a job, and waits for all of them.

        Raises:
            RanksBroke: one did not; the end of what each has logged is printed.
        """
        for connection in self._connections:
            connection.send(job)
        waiting = list(self._connections)
        while waiting:
            ready = wait(waiting)
            for connection in [one for one in waiting if one in ready]:
                try:
                    raised = connection.recv()
                except (EOFError, OSError):
                    raised = "it ended"
                if raised:
                    raise self._broken(raised)
                waiting.remove(connection)

    def close(self) -> None:
        """Ends the ranks."""
        self._msrun.kill()  # they end with it
        self._msrun.wait()
        for connection in self._connections:
            connection.close()
        self._directory.cleanup()

    def _broken(self, how: str) -> RanksBroke:
        print_ends(self._logs)
        self.close()
        return RanksBroke(f"A rank of {self.ranks} broke: {how}")


def _stand(address: str, device: str, threads: int) -> None:
    """One rank, until no process distributes jobs."""
    from harness.runners.mindspore_subject import prepare_process
    from qwen3_model import collectives

    prepare_process(device, threads)
    rank, _ = collectives.start()  # the process of msrun's that leads the ranks stays in here
    with socket.socket(socket.AF_UNIX) as calling:
        calling.connect(address)
        connection = Connection(calling.detach())
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_do_part(job, rank))


def _do_part(job: Job, rank: int) -> str:
    """Does a rank's part of a job; what it raised, if it did."""
    try:
        factory = factory_of(job)
        layout = parse_case(dict(job.case), f"the job of {job.run}").parallel
        part = part_of(job, layout, rank, resume=False)
        if not carry_out(part, factory, resume=False, rank=rank):
            carry_out(part, factory, resume=True, rank=rank)
    # Whatever a run raises is how it ended; the process that distributes the jobs ends the ranks.
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    end_with_parent(os.getppid())
    _stand(sys.argv[1], sys.argv[2], int(sys.argv[3]))
