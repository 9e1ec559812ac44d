"""What the processes of a dry run share: the groups that a program makes, its memory, and how it ends."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore
from mindspore.communication import GlobalComm, management

from harness.planning.dry_run import DONE
from harness.runners.processes import end_with_parent


def compile_in_this_process(compile_: Callable[[Path, Mapping[str, Any]], Mapping[str, str]]) -> None:
    """Compiles the job of the command line, and writes a file next to it with the memory used and the groups made.

    `compile_` takes the path and the content of the job and returns further versions. The process ends here.
    """
    code = 1
    try:
        path = Path(sys.argv[1])
        end_with_parent(int(sys.argv[2]))
        job = json.loads(path.read_text(encoding="utf-8"))
        # MindSpore checks for CANN's Python package, which the stub libraries do not replace.
        GlobalComm.CHECK_ENVS = job["cann"]
        groups = _record_groups()
        versions = compile_(path, job)
        done = {"groups": groups, "peak_memory": _peak_memory(), "mindspore": mindspore.__version__, **versions}
        (path.parent / DONE).write_text(json.dumps(done), encoding="utf-8")
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a regular exit would release a device that does not exist


def _record_groups() -> dict[str, list[int]]:
    """The ranks of the groups that are made in Python from now on: in a dry run MindSpore does not keep them."""
    groups: dict[str, list[int]] = {}
    make = management._create_group_helper

    def recorded(group: str, ranks: list[int], *others: Any) -> None:
        groups[group] = list(ranks)
        make(group, ranks, *others)

    management._create_group_helper = recorded
    return groups


def _peak_memory() -> int:
    """The largest number of bytes that this process held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
