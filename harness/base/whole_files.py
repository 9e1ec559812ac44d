"""Files that are written completely or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import InputError


@contextlib.contextmanager
def whole_file(destination: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A file to write to; it gets its name only when the block ends without an error.

    A kill leaves `NAME.*.partial` in the same directory, which no reader reads as the file.

    Raises:
        InputError: the destination exists and `overwrite` is not set, or it cannot be written.
    """
    if os.path.lexists(destination) and not overwrite:
        raise InputError(f"{destination} exists. Choose another name, or replace it with --overwrite.")
    if destination.is_dir():
        raise InputError(f"{destination} is a directory.")
    try:
        handle, name = tempfile.mkstemp(prefix=f"{destination.name}.", suffix=".partial", dir=destination.parent)
    except OSError as error:
        raise InputError(f"{destination} cannot be written: {error.strerror}.") from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The umask of this process; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
