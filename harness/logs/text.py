"""The lines of log files: rotated and compressed files in order, without colours, separated by rank."""

import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.base.errors import InputError
from harness.logs.entries import Entry, Stream

COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# The prefix of a launcher for the rank that printed a line: [default3]:, [rank3]:, [3]: or 3:
LABEL = re.compile(r"^\s*(?:\[(?:default|rank ?)?(?P<bracketed>\d+)\]:|(?P<plain>\d+): )")
ROTATED = re.compile(r"(?P<name>.+?)(?:\.(?P<number>\d{1,3})|[.-](?P<day>\d{4}-?\d{2}-?\d{2}\S*?))(?:\.gz)?")
LONGEST = 1 << 16  # bytes of a line; lines of training logs are shorter

# From a line and its place to its step; None: no step in it; the line itself: it looks like a step but cannot be read.
Parse = Callable[[str, str], Entry | str | None]


def read_streams(paths: Sequence[Path], parse: Parse) -> list[Stream]:
    """The stream of each rank; the parts of a rotated file are one log.

    Raises:
        InputError: a file cannot be read.
    """
    streams = list[Stream]()
    for name, parts in _logs(paths):
        labelled = dict[str, Stream]()
        for path in parts:
            for number, line in enumerate(lines_of(path), 1):
                label, line = _labelled(line)
                where = f"line {number}" if len(paths) == 1 else f"{path.name}, line {number}"
                found = parse(line, where)
                if found is None:
                    continue
                stream = labelled.setdefault(label, Stream(name=f"rank {label}" if label else name))
                if isinstance(found, str):
                    stream.unreadable.append(where)
                else:
                    stream.entries.append(found)
        streams += [labelled[label] for label in sorted(labelled, key=lambda text: int(text or -1))]
    return streams


def _logs(paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Files that are parts of one log, the oldest first: NAME.2.gz, NAME.1, NAME, or by day."""
    logs = dict[Path, list[tuple[tuple[int, int, str], Path]]]()
    for path in paths:
        found = ROTATED.fullmatch(path.name)
        name = path.name.removesuffix(".gz")
        age = (1, 0, "")  # the file without a number is the newest
        if found:
            name = found["name"]
            age = (0, -int(found["number"] or 0), found["day"] or "")
        logs.setdefault(path.with_name(name), []).append((age, path))
    for log, parts in sorted(logs.items(), key=lambda item: _by_number(item[0].name)):
        yield log.name, [path for _, path in sorted(parts)]


def _by_number(name: str) -> list[tuple[int, str]]:
    """worker_2 before worker_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file, without colours.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for raw in file:
                # a progress bar rewrites its line after a carriage return
                for line in raw[:LONGEST].decode("utf-8", errors="replace").split("\r"):
                    yield COLOURS.sub("", line).strip("\n")
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _labelled(line: str) -> tuple[str, str]:
    found = LABEL.match(line)
    return (found["bracketed"] or found["plain"], line[found.end() :]) if found else ("", line)
