"""Processes of this machine, waiting for them, and ports for them to meet at."""

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path


def processes_of(directory: Path) -> list[int]:
    """The living processes whose command line names a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command, status = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
        except OSError:
            continue
        if str(directory).encode() in command and status.rpartition(")")[2].split()[0] != "Z":
            found.append(int(entry.name))
    return found


def until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Waits no longer than it has to; the limit is for what never happens, on a machine that may be busy."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens at.

    None of those that the system hands out by itself: seconds go by before somebody listens, and in these every
    connection on this machine could get it.
    """
    handed_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(handed_out - 12_000, handed_out)
        with contextlib.closing(socket.socket()) as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
