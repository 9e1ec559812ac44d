"""What every command shares: exit codes, the consoles, and the --json option."""

from typing import Annotated

import typer
from rich.console import Console

MET, NOT_MET, BAD_INPUT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130

out_console, error_console = Console(highlight=False), Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines, nothing else.")]
CASE_HELP = "A shipped case by name (see 'certify cases') or the path of a case's YAML file."
