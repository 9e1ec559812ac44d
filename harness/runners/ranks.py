"""A run that several processes make together: `python -m harness.runners.ranks JOB.json PARENT`.

`msrun` starts a process for each rank of this node. All of them carry out the same job with the same global batches.
The rank that holds the true loss, on the last stage, writes the output of the job; each of the others writes into a
directory of its own under `ranks/`, next to the logs. A process that ends with an error ends the others.
"""

import functools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.base.errors import InputError
from harness.cases.case import parse_case
from harness.runners.job import Job, Nodes
from harness.runners.processes import end_with_parent, free_port
from harness.runners.ranks_together import HALF_WAY, RANK, log_directory, main, own_part
from harness.runners.registry import load_runner
from harness.runners.worker import carry_out, read_job
from harness.runs.files import RANKS
from qwen3_model.parallel_config import BARRIER_PORT, Coordinates, ParallelConfig

# How long a process waits for the others to start, and for an answer of the scheduler.
CLUSTER_SECONDS, MESSAGE_SECONDS = 600, 600
LOOK_SECONDS = 0.2
# How long the scheduler may stay alive when no rank of this node is: after one died; and after all were done, because
# the ranks of other nodes may not be.
ALONE_SECONDS, OTHERS_SECONDS = 5.0, 60.0
DONE = "done"  # holds a file for each rank of this node that has done its part


def reporting_rank(layout: ParallelConfig) -> int:
    """The rank that holds the true loss: the first of the last stage."""
    return layout.rank(Coordinates(stage=layout.pipeline_stage - 1, replica=0, shard=0))


def node_of(rank: int, ranks: int, nodes: int) -> int:
    """The node on which a rank is: each has as many, in order."""
    return rank // (ranks // nodes)


def start_ranks(job_file: str, job: Job) -> int:
    """Has `msrun` carry out a job; its exit code."""
    done = Path(job.directory) / RANKS / DONE
    shutil.rmtree(done, ignore_errors=True)
    done.mkdir(parents=True)
    nodes = job.nodes or this_node()
    with start_msrun(job.ranks, nodes, log_directory(job), [__file__, job_file, str(os.getpid()), RANK]) as started:
        code = end_of(started, nodes, lambda: len(list(done.iterdir())) == job.ranks // nodes.count)
    shutil.rmtree(done)
    return code


def this_node() -> Nodes:
    """This machine alone, at a port of its own."""
    return Nodes(count=1, rank=0, master="127.0.0.1", port=free_port())


def start_msrun(ranks: int, nodes: Nodes, logs: Path, script: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Has `msrun` start this node's part of so many processes, each with a script and its arguments. It ends with this
    process; the script sees to it that the others end with `msrun`."""
    logs.mkdir(parents=True, exist_ok=True)
    # The logs of ranks are files; without this it would copy all of them here. There is no rank of that number.
    arguments = [*msrun_arguments(ranks, nodes, str(logs)), f"--tail_worker_log={ranks}", *script]
    # It starts the `python` that it finds.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {
        **os.environ,
        "PATH": path,
        "MS_RECEIVE_MSG_TIMEOUT": str(MESSAGE_SECONDS),
        BARRIER_PORT: str(nodes.port + 1),
    }
    # `msrun` does not end with this process by itself, and its ranks end with it.
    with_this_one = functools.partial(end_with_parent, os.getpid())
    command = [sys.executable, "-m", "mindspore.parallel.cluster.run", *arguments]
    return subprocess.Popen(command, env=environment, preexec_fn=with_this_one)


def end_of(msrun: "subprocess.Popen[bytes]", nodes: Nodes, all_done: Callable[[], bool]) -> int:
    """Waits for `msrun`; its exit code, or 0 where the ranks of this node were done, whatever became of it then.

    When a rank dies it ends the others at once, and then waits for the scheduler, which takes more than a minute to
    notice, and five seconds where all ranks came to their end. A scheduler that is alone has nothing left to do, unless
    the ranks of another node still need it.
    """
    scheduler, alone_since = None, math.inf
    while (code := msrun.poll()) is None:
        time.sleep(LOOK_SECONDS)
        living = children_of(msrun.pid)
        if scheduler is None and len(living) > 1:
            scheduler = living[0]
        alone_since = min(alone_since, time.monotonic()) if living == [scheduler] else math.inf
        after_all = OTHERS_SECONDS if nodes.count > 1 else 0.0
        patience = after_all if all_done() else ALONE_SECONDS
        if nodes.rank == 0 and scheduler and time.monotonic() - alone_since > patience:
            os.kill(scheduler, signal.SIGKILL)
    # MindSpore may crash while it shuts down, after all output was written.
    return 0 if all_done() else code


def children_of(pid: int) -> list[int]:
    """The living processes that a process has started, in that order; none where the system does not list them."""
    try:
        started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        states = {int(child): _state(int(child)) for child in started}
    except OSError:  # the process, or one of them, has ended in between
        return []
    return [child for child, state in states.items() if state != "Z"]


def _state(pid: int) -> str:
    """The letter of the kernel for what a process does: Z is one that has ended and was not waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def msrun_arguments(ranks: int, nodes: Nodes, logs: str) -> list[str]:
    """The arguments of `msrun` on one node, up to the script that each rank runs."""
    return [
        f"--worker_num={ranks}",
        f"--local_worker_num={ranks // nodes.count}",
        f"--master_addr={nodes.master}",
        f"--master_port={nodes.port}",
        f"--node_rank={nodes.rank}",
        f"--log_dir={logs}",
        "--join=True",
        f"--cluster_time_out={CLUSTER_SECONDS}",
    ]


def carry_out_rank(job_file: str) -> None:
    """One rank's part of a job.

    Raises:
        InputError: `msrun` started another number of ranks than the layout has.
    """
    job = read_job(job_file)
    # On a second node `msrun` starts no scheduler, unless both are one machine: then there is one already.
    if os.environ.get("MS_ROLE") == "MS_SCHED" and job.nodes and job.nodes.rank:
        return
    from harness.runners.mindspore_subject import prepare_process
    from qwen3_model import collectives

    prepare_process(job.device, job.threads)  # before the ranks meet
    half_way, done = Path(job.directory) / HALF_WAY, Path(job.directory) / RANKS / DONE
    resume = half_way.exists()
    layout = parse_case(dict(job.case), f"the job of {job.run}").parallel
    factory = load_runner(job.runner)
    rank, started = collectives.start()
    if started != layout.world_size:
        raise InputError(f"The layout {layout} has {layout.world_size} ranks, and {started} were started.")
    part = part_of(job, layout, rank, resume)
    if not carry_out(part, factory, resume, rank) and part is job:
        half_way.touch()
    (done / str(rank)).touch()


def part_of(job: Job, layout: ParallelConfig, rank: int, resume: bool) -> Job:
    """The job of one rank. A rank that does not report the loss writes into a directory of its own."""
    if rank == _reporting_here(layout, job):
        return job
    return own_part(job, rank, resume)


def _reporting_here(layout: ParallelConfig, job: Job) -> int:
    """The rank of this node that writes the output of the job: the one with the true loss, or if that is on another
    node, the first. Every rank receives the loss of the global batch, so nothing is lost with the other node."""
    reporting, nodes = reporting_rank(layout), job.nodes
    if nodes is None or node_of(reporting, job.ranks, nodes.count) == nodes.rank:
        return reporting
    return nodes.rank * (job.ranks // nodes.count)


if __name__ == "__main__":
    main(start_ranks, carry_out_rank)
