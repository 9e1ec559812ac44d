"""What a user names as a log, as files: standard input, a pipe, an archive or files themselves.

What is no file already is copied to a directory that exists for the time of the import. Of an archive only regular
files are taken, and nothing outside that directory is written. Archives and compressed files are known by their
content, whatever their name.
"""

import contextlib
import lzma
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from harness.base.errors import InputError
from harness.logs.text import MOST_BYTES, decompressed

STDIN = Path("-")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MOST_FILES = 100_000  # of an archive
MOST_AT_ONCE = 64 << 20  # bytes that reading an archive takes at a time: a name or an attribute of a file is shorter
BEGINS_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\s*\"")  # and no line of mindformers
BEGINS_ZIP = b"PK\x03\x04"
HEAD_BYTES = 64
Member = TypeVar("Member")


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
        return _opened(_copied(sys.stdin.buffer, place, name_of(path)), place / "unpacked")
    if path.is_fifo() or path.is_char_device():
        try:
            with path.open("rb") as pipe:
                return _opened(_copied(pipe, place, name_of(path)), place / "unpacked")
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    return _opened(path, place / path.name) if path.is_file() else path


def _opened(path: Path, place: Path) -> Path:
    """The directory of what an archive holds, or the file if it is none."""
    try:
        if zipfile.is_zipfile(path):
            return _unzipped(path, place)
        with path.open("rb") as file:
            if file.read(len(BEGINS_ZIP)) == BEGINS_ZIP:
                raise InputError(f"{path} is a ZIP archive that is cut or damaged: it has no list of files at its end.")
        is_tar = path.name.endswith(ARCHIVES) or _is_tar(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return _unpacked(path, place) if is_tar else path


def _is_tar(path: Path) -> bool:
    """Whether a file is an archive with something in it. One that begins with zeros is read as an empty archive, and
    may be a log that was emptied while it was written."""
    try:
        with _tar(path) as files:
            return files.next() is not None
    except tarfile.TarError:
        return False


class _Bounded:
    """A file that is read in pieces. What a header of an archive states is read at once, however long it states to be,
    and a small compressed file can hold as much.

    Raises:
        InputError: more is read at once than any header has.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_AT_ONCE:
            raise InputError(f"{self._path} is no archive of logs: a header in it would have {size:,} bytes.")
        return self._file.read(size)


@contextlib.contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    """An archive, compressed or not; what is compressed otherwise is none."""
    with contextlib.closing(decompressed(path)) as file:
        bounded: Any = _Bounded(file, path)
        with tarfile.open(fileobj=bounded, mode="r:") as files:
            yield files


def _counted(members: Iterable[Member], archive: Path, size: Callable[[Member], int]) -> Iterator[Member]:
    """The files of an archive as far as it holds no more than is unpacked.

    Raises:
        InputError: it holds too many, or too much.
    """
    total = 0
    for number, member in enumerate(members, 1):
        total += size(member)
        if total > MOST_BYTES:
            raise InputError(f"{archive} holds more than {MOST_BYTES >> 30} GiB. Unpack it and import its logs.")
        if number > MOST_FILES:
            raise InputError(f"{archive} holds more than {MOST_FILES:,} files. Unpack it and import its logs.")
        yield member


def _copied(source: BinaryIO, place: Path, name: str) -> Path:
    place.mkdir()
    head = source.read(HEAD_BYTES)
    # the Trainer's state is one JSON object; its reader goes by the name
    path = place / ("trainer_state.json" if BEGINS_JSON.match(head) else name)
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
        with _tar(archive) as files:
            for member in _counted(files, archive, lambda one: one.size):
                if not member.isfile():
                    continue
                content = files.extractfile(member)
                if content is not None:
                    _write(content, place, member.name, archive)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise InputError(f"{archive} cannot be unpacked: {getattr(error, 'strerror', None) or error}.") from None
    return place


def _unzipped(archive: Path, place: Path) -> Path:
    place.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as files:
            for member in list(_counted(files.infolist(), archive, lambda one: one.file_size)):
                if member.is_dir():
                    continue
                with files.open(member) as content:
                    _write(content, place, member.filename, archive)
    # RuntimeError: it has a password. NotImplementedError: it is packed in a way that this Python does not read.
    except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{archive} cannot be unpacked: {getattr(error, 'strerror', None) or error}.") from None
    return place


def _write(content: IO[bytes], place: Path, name: str, archive: Path) -> None:
    """Writes a file of an archive below a directory.

    Raises:
        InputError: its name leads elsewhere.
    """
    if "\0" in name:
        raise InputError(f"{archive} has a file whose name holds a zero byte.")
    target = (place / name).resolve()
    if not target.is_relative_to(place.resolve()):
        raise InputError(f"{archive} has a file outside of itself: {name}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)
