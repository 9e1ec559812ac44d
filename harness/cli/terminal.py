"""What every command shares: exit codes, the consoles, and what Control-C leaves."""

import sys
from typing import TextIO

from rich.console import Console

from harness.base.errors import CertifyError

MET, NOT_MET, BAD_INPUT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130


def columns(stream: TextIO) -> int | None:
    """How wide what is printed may be. None is as wide as the terminal; where there is none, the reader of a pipe or a
    file gets each line and each row of a table whole."""
    return None if stream.isatty() else 100_000


out_console = Console(highlight=False, width=columns(sys.stdout))
error_console = Console(stderr=True, highlight=False, width=columns(sys.stderr))


class Interrupted(CertifyError):
    """Control-C: what is left, and how to go on."""

    exit_code = INTERRUPTED
