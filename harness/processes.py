"""What processes that are started here have in common: they end with who started them, and their log says why."""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
LOG_TAIL_LINES, LOG_LONGEST = 25, 200


def end_with_parent(parent: int) -> None:
    """Has the kernel kill this process when the one that started it dies, so that nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above; a service manager may have taken this process in
            sys.exit("the process that started this one is gone")


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
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LONGEST:] if path.is_file() else []
    return lines, [number for number, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
