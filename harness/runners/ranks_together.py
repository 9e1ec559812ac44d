"""What a run of several processes does, whichever program starts these: two halves, a directory for each rank, logs."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from harness.runners import cores
from harness.runners.job import PORTS_OF_A_START, Job
from harness.runners.processes import end_with_parent, log_tail
from harness.runners.worker import read_job
from harness.runs.files import RANKS

LOGS = "log"
HALF_WAY = "half-way"  # a file: the first half is done, and the rest is for processes that have nothing but checkpoints
RANK = "rank"  # the last argument of a process that is one of them

Start = Callable[[str, Job], int]


def main(start: Start, carry_out_rank: Callable[[str], None]) -> None:
    """The main function of a module that has several processes carry out a job: `JOB.json PARENT [rank]`.

    Args:
        start: Has this machine's ranks carry out a job, of which it gets the file too; their exit code.
        carry_out_rank: One rank's part of the job of a file.
    """
    if sys.argv[3:] == [RANK]:
        end_with_parent(os.getppid())
        carry_out_rank(sys.argv[1])
    else:
        sys.exit(carry_out_halves(sys.argv[1], int(sys.argv[2]), start))


def carry_out_halves(job_file: str, parent: int, start: Start) -> int:
    """Starts the ranks of a job, and once more where it has two halves; the exit code of the last."""
    end_with_parent(parent)
    job = read_job(job_file)
    cores.hold(job.cores)
    half_way = Path(job.directory) / HALF_WAY
    half_way.unlink(missing_ok=True)
    code = start(job_file, job)
    if code == 0 and half_way.exists():
        # On another node the first half may still be ending.
        nodes = job.nodes and dataclasses.replace(job.nodes, port=job.nodes.port + PORTS_OF_A_START)
        code = start(job_file, dataclasses.replace(job, nodes=nodes))
        half_way.unlink()
    if code:
        print_ends(log_directory(job))
    return code


def own_part(job: Job, rank: int, resume: bool) -> Job:
    """The job of a rank that does not write the output: it writes into a directory of its own."""
    own = Path(job.directory) / RANKS / str(rank)
    if not resume:
        shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(job, directory=str(own), keep_tensors=None)


def log_directory(job: Job) -> Path:
    """Where the logs of this node's ranks are."""
    return Path(job.logs or Path(job.directory) / RANKS / LOGS)


def print_ends(logs: Path) -> None:
    """Repeats the end of each rank's log, so that the run's own log has it: the first rank to end comes last."""
    for log in sorted(logs.glob("worker_*.log"), key=lambda path: path.stat().st_mtime, reverse=True):
        print(f"--- {log.name}", log_tail(log), sep="\n", flush=True)
