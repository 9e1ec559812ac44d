"""A run of PyTorch that several processes make together: `python -m harness.runners.torch_ranks JOB.json PARENT`.

`torchrun` starts the processes on this machine, and ends all of them when one ends with an error. All carry out the
same job with the same global batches. The first writes the output of the job; each of the others writes into a
directory of its own under `ranks/`, next to the logs.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

from harness.runners.job import Job
from harness.runners.processes import end_with_parent
from harness.runners.ranks_together import HALF_WAY, RANK, log_directory, main, own_part
from harness.runners.registry import load_runner
from harness.runners.worker import carry_out, read_job

LOOK_SECONDS = 0.2
LOOPBACK = "lo"


def start(job_file: str, job: Job) -> int:
    """Has `torchrun` carry out a job; its exit code. It ends with this process, and the processes with it."""
    log_directory(job).mkdir(parents=True, exist_ok=True)
    options = {
        "--nproc-per-node": job.ranks,
        "--local-addr": "127.0.0.1",
        "--max-restarts": 0,
        "--monitor-interval": LOOK_SECONDS,
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *(f"{k}={v}" for k, v in options.items())]
    script = ["--module", "harness.runners.torch_ranks", job_file, str(os.getpid()), RANK]
    environment = dict(os.environ)
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)  # all processes are on this machine
    with_this_one = functools.partial(end_with_parent, os.getpid())
    return subprocess.Popen([*command, *script], env=environment, preexec_fn=with_this_one).wait()


def carry_out_rank(job_file: str) -> None:
    """One process's part of a job."""
    job, rank = read_job(job_file), int(os.environ["RANK"])
    _log_to(log_directory(job) / f"worker_{rank}.log")
    half_way = Path(job.directory) / HALF_WAY
    resume = half_way.exists()
    part = own_part(job, rank, resume) if rank else job
    import torch  # here, as whoever starts the processes does not need it

    whole = carry_out(part, load_runner(job.runner), resume, rank)
    torch.distributed.barrier()  # none is gone while another still needs it
    torch.distributed.destroy_process_group()
    if not whole and rank == 0:
        half_way.touch()


def _log_to(path: Path) -> None:
    """What this process prints from now on goes into a file."""
    with path.open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


if __name__ == "__main__":
    main(start, carry_out_rank)
