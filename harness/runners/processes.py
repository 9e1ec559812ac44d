"""What all processes of runs have in common: they end with the process that started them, and their log states why."""

import atexit
import contextlib
import ctypes
import functools
import os
import random
import re
import resource
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from pathlib import Path

from harness.base.code import ROOMS, ROOT

PR_SET_PDEATHSIG = 1
KIB = 1 << 10
STATUS = Path("/proc/self/status")
HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
LOG_TAIL_LINES, LOG_LONGEST = 25, 200
LOG_BYTES = 1 << 20  # of the end of a log: no one knows how much a run printed


def own_code() -> dict[str, str]:
    """The variables by which a process of Python imports the code that this one has, not what lies in the directory
    that it is started in. What else `PYTHONPATH` names comes after it.
    """
    there = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    first = [] if str(ROOT) in installed and not there else [str(ROOT)]
    paths = dict.fromkeys([*first, *there])
    return {"PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


@functools.cache
def code_alone() -> str:
    """A directory with this program's packages and nothing else, for as long as this process lives."""
    directory = tempfile.mkdtemp(prefix="certify-code-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    for room in ROOMS:
        (Path(directory) / room).symlink_to(ROOT / room, target_is_directory=True)
    return directory


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the one that started it dies, so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above; a service manager may have taken this process in
            sys.exit("the process that started this one is gone")


def peak_resident() -> int:
    """Bytes of the most memory that this process has had. Where the system tells no better it is at least what the
    process that started this one had when it forked: `getrusage` counts that too."""
    if STATUS.exists():
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


def free_port() -> int:
    """A free port; the port after it is free too.

    It is none of those that the system assigns by itself: seconds pass before a process listens, and meanwhile any
    connection on this machine could get it.
    """
    end = int(HANDED_OUT.read_text().split()[0]) if HANDED_OUT.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(end - 12_000, end - 1)
        if _is_free(port) and _is_free(port + 1):
            return port


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def log_tail(path: Path) -> str:
    """The last lines. A compiler explains an error at length after naming it, so they begin no later than its name."""
    lines, named = _end(path)
    begin = max(0, len(lines) - LOG_TAIL_LINES)
    return "\n".join(lines[min([begin, *named[-1:]]) :])


def log_error(path: Path) -> str:
    """The last error that a log names and what follows it, without the calls that led there; else its last lines."""
    lines, named = _end(path)
    return "\n".join(lines[named[-1] :][:LOG_TAIL_LINES]) if named else log_tail(path)


def _end(path: Path) -> tuple[list[str], list[int]]:
    """The end of a log, and which of its lines name an error."""
    lines = _last(path).decode("utf-8", errors="replace").splitlines()[-LOG_LONGEST:] if path.is_file() else []
    return lines, [number for number, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]


def _last(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read(LOG_BYTES)
