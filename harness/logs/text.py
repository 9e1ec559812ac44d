"""The lines of log files: rotated and compressed files in order, without colours, separated by rank.

A line without an end, the last one of a file that was cut, has no newline here either: its last number may be cut too.
"""

import bz2
import dataclasses
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from harness.base.errors import InputError
from harness.logs.entries import Aside, Entry, Stream

COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# The prefix of a launcher for the rank that printed a line: [default3]:, [rank3]:, [3]: or 3:; or that of grep for the
# file that a line is in
LABEL = re.compile(
    r"^\s*(?:\[(?:default|rank ?)?(?P<bracketed>\d{1,9})\]:|(?P<plain>\d{1,9}): |"
    r"(?P<file>[^\s:\[\]{}]+\.(?:log|out|txt)(?:\.\d+)?)[:-](?:\d+[:-])?)"
)
ROTATED = re.compile(r"(?P<name>.+?)(?:\.(?P<number>\d{1,3})|[.-](?P<day>\d{4}-?\d{2}-?\d{2}\S*?))(?:\.(?:gz|bz2|xz))?")
# How a compressed file begins, whatever its name, and what reads it
COMPRESSED: Mapping[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
ZSTANDARD = b"\x28\xb5\x2f\xfd"
MOST_BYTES = 8 << 30  # of a log, of an archive and of what a pipe holds
LONGEST = 1 << 16  # bytes of a line that are held at once
LONGEST_STEP = 1 << 13  # characters of a step; no program prints a longer one, and it would take minutes to parse
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# how a logger begins a line
PREFIX = re.compile(r"\s*\[?\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}\S*(?: -[^{}|]*)?\s*$")

# From a line and its place to its step; None: no step in it; the line itself: it looks like a step but cannot be read.
Parse = Callable[[str, str], Entry | Aside | str | None]


def read_streams(paths: Sequence[Path], parse: Parse, begins: re.Pattern[str]) -> list[Stream]:
    """The stream of each rank; the parts of a rotated file are one log.

    `begins`: how a step begins in a line. Processes that write into one file may put several on one line.

    Raises:
        InputError: a file cannot be read.
    """
    streams, logs = list[Stream](), list(_logs(paths))
    names = distinct_names([log for log, _ in logs])
    of_parts = dict(zip(paths, distinct_names(paths), strict=True))
    for (_, parts), name in zip(logs, names, strict=True):
        labelled = dict[str, Stream]()
        for path in parts:
            for number, line in enumerate(lines_of(path), 1):
                label, line = _labelled(line)
                where = f"{of_parts[path]}, line {number}"
                for piece in _pieces(line, begins):
                    found = parse(piece[:LONGEST_STEP], where)
                    if found is None:
                        continue
                    stream = labelled.setdefault(label, Stream(name=_stream_name(label, name)))
                    if isinstance(found, Entry) and len(piece) <= LONGEST_STEP:
                        stream.entries.append(found)
                    elif isinstance(found, Aside):
                        _add(stream, found)
                    else:
                        cut = " (cut: the file ends there)" if line.endswith(piece) and not line.endswith("\n") else ""
                        stream.unreadable.append(where + cut)
        streams += [labelled[label] for label in sorted(labelled, key=_by_number)]
    return streams


def _stream_name(label: str, name: str) -> str:
    return f"rank {label}" if label.isdigit() else label or name


def _pieces(line: str, begins: re.Pattern[str]) -> list[str]:
    """The steps of a line, each by itself, or the line. Only the last has the newline, so one that another cut off is
    seen to be."""
    starts = [one.start() for one in begins.finditer(line)] or [0]
    pieces = [line[begin:end] for begin, end in pairwise([*starts, len(line)])]
    return [*(PREFIX.sub("", piece) if len(piece) <= LONGEST_STEP else piece for piece in pieces[:-1]), pieces[-1]]


def _add(stream: Stream, aside: Aside) -> None:
    """The event of a line of its own belongs to the step before it."""
    if stream.entries:
        last = stream.entries[-1]
        stream.entries[-1] = dataclasses.replace(last, events=(*last.events, aside.event))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A short name of each file: its own, or where several have one, its path from their common directory."""
    own = [path.name for path in paths]
    if len(set(own)) == len(own):
        return own
    common = os.path.commonpath([path.absolute().parent for path in paths])
    return [os.path.relpath(path.absolute(), common) for path in paths]


def _logs(paths: Sequence[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Files that are parts of one log, the oldest first: NAME.2.gz, NAME.1, NAME, or by day."""
    logs = dict[Path, list[tuple[tuple[int, int, str], Path]]]()
    for path in paths:
        found = ROTATED.fullmatch(path.name)
        name = re.sub(r"\.(?:gz|bz2|xz)$", "", path.name)
        age = (1, 0, "")  # the file without a number is the newest
        if found:
            name = found["name"]
            age = (0, -int(found["number"] or 0), found["day"] or "")
        logs.setdefault(path.with_name(name), []).append((age, path))
    for log, parts in sorted(logs.items(), key=lambda item: _by_number(str(item[0]))):
        yield log, [path for _, path in sorted(parts)]


def _by_number(name: str) -> list[tuple[int, str]]:
    """worker_2 before worker_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file, without colours; each ends with a newline, but not a line that was cut.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with decompressed(path) as file:
            for raw in _raw_lines(file, path):
                yield COLOURS.sub("", raw.decode("utf-8", errors="replace"))
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _raw_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Each line. One that is longer than what is held at once comes in parts without a newline, since a small
    compressed file can hold one of any length. A progress bar rewrites its line after a carriage return, which ends a
    line too."""
    read, kept = 0, b""
    while raw := file.readline(LONGEST):
        if not read and raw.startswith(UTF_16):
            raise InputError(f"{path} is text in UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path}")
        read, end = read + len(raw), raw.endswith(b"\n")
        if read > MOST_BYTES and not end:
            raise InputError(f"{path} holds more than {MOST_BYTES >> 30} GiB. Decompress it and import a part.")
        *before, last = raw.removesuffix(b"\n").split(b"\r")
        for one in before:
            yield (kept + one).lstrip(b"\0") + b"\n"
            kept = b""
        kept = (kept + last).lstrip(b"\0")  # of a log that was emptied while it was written
        if end and (kept or not before):
            yield kept + b"\n"
        elif len(kept) >= LONGEST:
            yield kept
        kept = b"" if end or len(kept) >= LONGEST else kept
    if kept:
        yield kept


def decompressed(path: Path) -> IO[bytes]:
    """A file as what it holds, whether it is compressed or not.

    Raises:
        InputError: it is compressed in a way that is not read.
    """
    with path.open("rb") as file:
        head = file.read(max(map(len, COMPRESSED)))
    if head.startswith(ZSTANDARD):
        raise InputError(f"{path} is compressed by zstd, which is not read. Decompress it: zstd -d {path}")
    opened = next((reader for begin, reader in COMPRESSED.items() if head.startswith(begin)), None)
    found: IO[bytes] = opened(str(path)) if opened else path.open("rb")
    return found


def _labelled(line: str) -> tuple[str, str]:
    found = LABEL.match(line)
    return (found["bracketed"] or found["plain"] or found["file"], line[found.end() :]) if found else ("", line)
