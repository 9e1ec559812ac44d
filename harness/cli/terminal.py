"""Shared by all commands: exit codes, the consoles, and the error after Control-C."""

import sys
from typing import TextIO

from rich.console import Console

from harness.base.errors import CertifyError

MET, NOT_MET, BAD_INPUT, BROKEN, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 130


def columns(stream: TextIO) -> int | None:
    """The width of the output. None is the width of the terminal. Without a terminal, lines and table rows are not
    wrapped, so that a pipe or a file gets each of them whole."""
    return None if stream.isatty() else 100_000


# Names come from files, and a name may look like markup: nothing printed is markup, unless a call says so.
out_console = Console(highlight=False, markup=False, emoji=False, width=columns(sys.stdout))
error_console = Console(stderr=True, highlight=False, markup=False, emoji=False, width=columns(sys.stderr))


class Interrupted(CertifyError):
    """Control-C: what is kept, and how to resume."""

    exit_code = INTERRUPTED
