"""Processes of this machine, and waiting for them."""

import os
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
