"""How the process of a run starts: its module, interpreter, variables and protection."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from harness.runners import devices
from harness.runners.environment_of_a_run import environment_of
from harness.runners.job import Job, Starter
from harness.runners.profile import ASCEND, CPU, profile_variables
from harness.runners.protection import Guard, confined_variables, seen_by
from harness.runners.protection import start as start_confined
from harness.runs.files import PLOG

# What has several processes carry out a job together.
RANKS_BY: Mapping[Starter, str] = {"msrun": "harness.runners.ranks", "torchrun": "harness.runners.torch_ranks"}
PROCESS_LOG = "ASCEND_PROCESS_LOG_PATH"  # of CANN: where its processes log
FIRST_INSIDE = "1"  # the process that starts a run in a namespace of processes

OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class Process(Protocol):
    """A started process, as `subprocess.Popen` is one; it leads a group of its own."""

    @property
    def pid(self) -> int:
        """Also the group's."""

    @property
    def returncode(self) -> int | None:
        """Negative for a signal, None while it runs."""

    def poll(self) -> int | None:
        """`returncode`, as it is now."""

    def wait(self, timeout: float | None = None) -> int:
        """Until its end, or `subprocess.TimeoutExpired` after so many seconds."""


Start = Callable[[Job, Path, BinaryIO], Process]


def variables(threads: int, device: str = CPU, *, blocking: bool = False) -> dict[str, str]:
    """The environment variables that every run on a device gets, besides those of this process."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # 3: errors only; the log of a run that broke should end with what broke it
    own = profile_variables(device, blocking=blocking)
    return {**own, **OFFLINE, "GLOG_v": "3", **{pool: str(threads) for pool in pools}}


def _plog(job: Job) -> dict[str, str]:
    """Has CANN log into the run's directory, which is all that a confined run can write to; by itself it logs into the
    home of the user, where runs are not told apart."""
    if job.device != ASCEND:
        return {}
    place = Path(job.directory) / PLOG
    place.mkdir(parents=True, exist_ok=True)
    return {PROCESS_LOG: str(place)}


def start_fresh(job: Job, job_file: Path, log: BinaryIO, guard: Guard | None = None) -> "subprocess.Popen[bytes]":
    """A fresh interpreter that carries out a job, or that has several carry it out together; of the subject it has the
    namespaces of a guard, if that gives any."""
    module = "harness.runners.worker" if job.ranks == 1 else RANKS_BY[job.starter]
    command = [job.python or sys.executable, "-m", module, str(job_file)]
    own = {**variables(job.threads, job.device, blocking=job.blocking), **devices.visible(job.devices), **_plog(job)}
    environment = {**environment_of(job.runner, job.python), **own}
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
    given = {"env": environment, "start_new_session": True, **streams}
    if guard is not None and guard.kind == "namespaces" and job.side == "subject":
        given["env"] = confined_variables(environment)
        return start_confined([*command, FIRST_INSIDE], seen_by(job, guard, given["env"]), **given)
    return subprocess.Popen([*command, str(os.getpid())], **given)
