"""Shared by all commands: exit codes, the consoles, and the error after Control-C."""

import sys
import unicodedata
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from harness.base.errors import CertifyError

UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # escapes, what turns the direction of writing, half of a character, line ends
MET, NOT_MET, BAD_INPUT, BROKEN, DEFECT, INTERRUPTED = 0, 1, 2, 3, 4, 130


def columns(stream: TextIO) -> int | None:
    """The width of the output. None is the width of the terminal. Without a terminal, lines and table rows are not
    wrapped, so that a pipe or a file gets each of them whole."""
    return None if stream.isatty() else 100_000


class _Plain(Console):
    """A console to which only this program gives colours: what comes from a file, a log or a runner shows as it is, and
    moves no cursor, hides no line and turns no direction of writing."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Text without what does not print, line ends and tabulators aside."""
        return super().render_str("".join(map(_visible, text)), **options)


def _visible(sign: str) -> str:
    return sign if unicodedata.category(sign) not in UNSEEN or sign in "\n\t" else "?"


# Names come from files, and a name may look like markup: nothing printed is markup, unless a call says so.
out_console = _Plain(highlight=False, markup=False, emoji=False, width=columns(sys.stdout))
error_console = _Plain(stderr=True, highlight=False, markup=False, emoji=False, width=columns(sys.stderr))


class Interrupted(CertifyError):
    """Control-C: what is kept, and how to resume."""

    exit_code = INTERRUPTED
