"""What every command shares: exit codes, the consoles, and the options that several have."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.base.errors import InputError

MET, NOT_MET, BAD_INPUT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130

out_console, error_console = Console(highlight=False), Console(stderr=True, highlight=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines, nothing else.")]
CASE_HELP = "A shipped case by name (see 'certify cases') or the path of a YAML file, also one of mindformers."
BaselinesOption = Annotated[Path, typer.Option("--baselines", help="Directory of the recorded baselines.")]
BundleArgument = Annotated[Path, typer.Argument(help="Directory of a finished bundle.")]
TrustOption = Annotated[
    Path | None, typer.Option("--trust", help="Trust file: whose signatures count, in which role, and when.")
]
AtOption = Annotated[
    str | None, typer.Option("--at", help="The day or UTC time to ask for, such as 2026-01-31; now without it.")
]


def moment(at: str | None) -> datetime:
    """The moment that is asked for: now, a time, or the end of a day.

    Raises:
        InputError: it is neither a day nor a time in UTC.
    """
    if at is None:
        return datetime.now(UTC)
    try:
        asked = datetime.fromisoformat(at)
    except ValueError:
        raise InputError(f"--at {at!r} is no day or time such as 2026-01-31 or 2026-01-31T12:00:00+00:00.") from None
    if len(at) == len("2026-01-31"):
        return asked.replace(tzinfo=UTC) + timedelta(days=1) - timedelta(seconds=1)
    if asked.utcoffset() != timedelta(0):
        raise InputError(f"--at {at!r} is not in UTC: write it as 2026-01-31T12:00:00+00:00.")
    return asked
