"""Files that are written completely or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import InputError

OVERWRITE = "Choose another name, or replace it with --overwrite."
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_file(destination: Path, *, overwrite: bool, replace: str = "") -> Iterator[BinaryIO]:
    """A file to write to; it gets its name only when the block ends without an error.

    A kill leaves `NAME.*.partial` in the same directory, which no reader reads as the file.

    Args:
        destination: The file.
        overwrite: Whether an existing file is replaced.
        replace: The sentence about what to do where it exists, of a command that has an option for it.

    Raises:
        InputError: the destination exists and `overwrite` is not set, or it cannot be written, also because the disk
            is full.
    """
    if os.path.lexists(destination) and not overwrite:
        raise InputError(f"{destination} exists. {replace or 'Choose another name, or remove it.'}")
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
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f"{destination} cannot be written: {error.strerror}. Nothing was replaced.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The umask of this process; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
