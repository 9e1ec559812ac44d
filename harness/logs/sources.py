"""What a user names as a log, as files: standard input, a pipe, an archive or files themselves.

What is no file already is copied to a directory that exists for the time of the import. Of an archive only regular
files are taken, and nothing outside that directory is written.
"""

import contextlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from harness.base.errors import InputError

STDIN = Path("-")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_BYTES = 8 << 30  # of what a pipe or an archive holds


@contextlib.contextmanager
def as_files(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Paths of files and directories in place of `-`, pipes and archives; those of the others unchanged.

    Raises:
        InputError: an archive or a pipe cannot be read, or holds more than 8 GiB.
    """
    with tempfile.TemporaryDirectory(prefix="certify-import-") as place:
        yield [_as_file(path, Path(place) / str(number)) for number, path in enumerate(paths)]


def name_of(path: Path) -> str:
    """What a source is called in messages and in the name of its import."""
    return "stdin" if path == STDIN or path.as_posix().startswith("/dev/") else path.name


def _as_file(path: Path, place: Path) -> Path:
    if path == STDIN:
        return _copied(sys.stdin.buffer, place, name_of(path))
    if path.is_fifo() or path.is_char_device():
        try:
            with path.open("rb") as pipe:
                return _copied(pipe, place, name_of(path))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if path.is_file() and path.name.endswith(ARCHIVES):
        return _unpacked(path, place / path.name)
    return path


def _copied(source: BinaryIO, place: Path, name: str) -> Path:
    place.mkdir()
    head = source.read(len(b'{"log_history'))
    # the Trainer's state is one JSON object; its reader goes by the name
    path = place / ("trainer_state.json" if head.lstrip()[:1] == b"{" and b"Epoch" not in head else name)
    with path.open("wb") as file:
        file.write(head)
        written = len(head)
        while block := source.read(1 << 20):
            written += len(block)
            if written > MOST_BYTES:
                raise InputError(f"{name} holds more than {MOST_BYTES >> 30} GiB. Import a file.")
            file.write(block)
    return path


def _unpacked(archive: Path, place: Path) -> Path:
    place.mkdir(parents=True)
    try:
        with tarfile.open(archive) as files:
            members = [one for one in files if one.isfile()]
            if sum(one.size for one in members) > MOST_BYTES:
                raise InputError(f"{archive} holds more than {MOST_BYTES >> 30} GiB. Unpack it and import its logs.")
            for member in members:
                target = (place / member.name).resolve()
                if not target.is_relative_to(place.resolve()):
                    raise InputError(f"{archive} has a file outside of itself: {member.name}.")
                content = files.extractfile(member)
                if content is not None:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{archive} cannot be unpacked: {getattr(error, 'strerror', None) or error}.") from None
    return place
