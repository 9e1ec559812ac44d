"""What is kept of an error that no one foresaw, and how to report it."""

import os
import platform
import shlex
import sys
import tempfile
import traceback

PREFIX = "certify-defect-"


def describe(error: Exception) -> str:
    """The message about an error. Its traceback is written to a new file, which the message names."""
    (found,) = traceback.format_exception_only(error)[-1:]
    kept = _keep(error)
    where = f"Its traceback is in {kept}." if kept else "Its traceback could not be written."
    return (
        f"{found.strip()[:1000]}. This is a defect of this program and no verdict. {where} Report it to the "
        "maintainers of your copy, with that file and the smallest input that shows it; see SECURITY.md if the input "
        "was made to do this."
    )


def _keep(error: Exception) -> str | None:
    """The file with the traceback; None where it cannot be written."""
    text = "\n".join(
        (
            f"command: {shlex.join(['certify', *sys.argv[1:]])}",
            f"Python {platform.python_version()} on {platform.platform()}",
            "".join(traceback.format_exception(error)),
        )
    )
    try:
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=".txt")
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode(errors="backslashreplace"))
    except OSError:
        return None
    return name
