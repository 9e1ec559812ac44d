"""The lines of log files: rotated and packed ones in order, without colours, apart by the rank that printed them."""

import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.base.errors import InputError
from harness.logs.entries import Entry, Stream

COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# What a launcher puts before a line that one of several processes has printed: [default3]:, [rank3]:, [3]: or 3:
LABEL = re.compile(r"^\s*(?:\[(?:default|rank ?)?(?P<bracketed>\d+)\]:|(?P<plain>\d+): )")
ROTATED = re.compile(r"(?P<name>.+?)(?:\.(?P<number>\d{1,3})|[.-](?P<day>\d{4}-?\d{2}-?\d{2}\S*?))(?P<packed>\.gz)?")
LONGEST = 1 << 16  # of a line; what is longer is no line of a training log

# A line to what it says of a step: None if it says nothing of one, itself if it looks like one and cannot be read.
Parse = Callable[[str, str], Entry | str | None]


def read_streams(paths: Sequence[Path], parse: Parse) -> list[Stream]:
    """What each rank printed, in the order of the ranks' first lines; the parts of a rotated file are one.

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
                said = parse(line, where)
                if said is None:
                    continue
                stream = labelled.setdefault(label, Stream(name=f"rank {label}" if label else name))
                if isinstance(said, str):
                    stream.unreadable.append(where)
                else:
                    stream.entries.append(said)
        streams += [labelled[label] for label in sorted(labelled, key=lambda text: int(text or -1))]
    return streams


def _logs(paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Files that are parts of one log, the oldest first: NAME.2.gz, NAME.1, NAME, or by day."""
    logs = dict[Path, list[tuple[tuple[int, int, str], Path]]]()
    for path in paths:
        found = ROTATED.fullmatch(path.name)
        name = path.name.removesuffix(".gz")
        age = (1, 0, "")  # the file that is still written to is the newest
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
        InputError: it cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for raw in file:
                # a progress bar returns to the beginning of its line
                for line in raw[:LONGEST].decode("utf-8", errors="replace").split("\r"):
                    yield COLOURS.sub("", line).strip("\n")
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _labelled(line: str) -> tuple[str, str]:
    found = LABEL.match(line)
    return (found["bracketed"] or found["plain"], line[found.end() :]) if found else ("", line)
