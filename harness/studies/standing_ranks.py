"""Ranks that stay: processes that `msrun` starts once for a number of ranks, and that carry out job after job together.

    python harness/power/standing.py SOCKET DEVICE THREADS

is each of them, as `msrun` starts it. It connects to the process that hands out the jobs, and ends with it.
"""

import os
import socket
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path

from harness.base.errors import CertifyError
from harness.cases.case import parse_case
from harness.runners.job import Job
from harness.runners.processes import end_with_parent
from harness.runners.ranks import part_of, print_ends, start_msrun, this_node
from harness.runners.worker import carry_out
from harness.studies.reuse import factory_of

LOOK_SECONDS = 1.0
SOCKET, LOGS = "socket", "log"


class RanksBroke(CertifyError):
    """A rank ended or raised, so none of them can go on."""


class StandingRanks:
    """So many ranks on this machine, to carry out jobs of that many; closed when one of them breaks."""

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


_standing: list[StandingRanks] = []


def carry_out_together(job: Job) -> None:
    """Carries out a job of several ranks by those that stand, or where they are not so many, by others.

    Raises:
        RanksBroke: one did not do its part.
    """
    if _standing and _standing[0].ranks != job.ranks:
        _standing.pop().close()
    # Where they break, the next job has others.
    ranks = _standing.pop() if _standing else StandingRanks(job.ranks, job.device, job.threads)
    ranks.carry_out(job)
    _standing.append(ranks)


def _stand(address: str, device: str, threads: int) -> None:
    """One rank, until there is nobody to hand out jobs."""
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
    # Whatever a run raises is how it ended; the process that handed it out ends the ranks.
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    end_with_parent(os.getppid())
    _stand(sys.argv[1], sys.argv[2], int(sys.argv[3]))
