"""Scalars in TensorBoard's event files, which hold float32. Needs the package `tensorboard`.

All event files below a directory are read; several files in one directory are one resumed run. Directories with other
scalars only, such as the parameters that some writers store next to a run, are not a run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import InputError, MissingPrerequisite
from harness.logs import Printed
from harness.logs.entries import Entry, Stream
from harness.logs.hf_trainer import ROUNDED, ROUNDED_DECIMALS
from harness.logs.printed import float32
from harness.logs.text import distinct_names

NAME = "tfevents"
# Each writer's names of the three numbers; the Trainer writes means, the others the number of each step.
TAGS: Mapping[str, Mapping[str, str]] = {
    "mindformers": {"loss": "loss", "grad-norm": "grad_norm", "learning-rate": "learning_rate"},
    "Megatron-LM": {"lm loss": "loss", "grad-norm": "grad_norm", "learning-rate": "learning_rate"},
    "the Trainer": {"train/loss": "loss", "train/grad_norm": "grad_norm", "train/learning_rate": "learning_rate"},
}


def read(paths: Sequence[Path]) -> list[Stream]:
    """The steps of each directory.

    Raises:
        MissingPrerequisite: `tensorboard` is not installed.
        InputError: a file is not an event file, or has no number under a known name.
    """
    directories = dict[Path, list[Path]]()
    for path in paths:
        directories.setdefault(path.parent, []).append(path)
    names = distinct_names(list(directories))
    found = [
        _stream(directory, sorted(directories[directory]), name)
        for directory, name in zip(directories, names, strict=True)
    ]
    streams, tags = [stream for stream, _ in found], set[str]().union(*(tags for _, tags in found))
    if tags and not any(stream.entries for stream in streams):
        known = "; ".join(f"{writer}: {', '.join(names)}" for writer, names in TAGS.items())
        where = ", ".join(map(str, directories))
        raise InputError(f"{where} has no loss under a known name, but {', '.join(sorted(tags))}. Known: {known}.")
    return streams


def _stream(directory: Path, files: Sequence[Path], name: str) -> tuple[Stream, set[str]]:
    """The steps of a directory, and the tags of all of its scalars."""
    stream, tags = Stream(name=name or str(directory)), set[str]()
    for path in files:
        scalars = list(_scalars(path))
        tags |= {tag for tag, _, _ in scalars}
        stream.entries += _entries(scalars, path)
    return stream, tags


def _entries(scalars: Sequence[tuple[str, int, float]], path: Path) -> Iterator[Entry]:
    """The steps in the order in which their first number was written; a repeated step is a new entry."""
    found = {tag for tag, _, _ in scalars}
    writer = next((one for one, names in TAGS.items() if next(iter(names)) in found), None)
    if writer is None:
        return
    names = TAGS[writer]
    averaged = writer == "the Trainer"
    losses = [value for tag, _, value in scalars if names.get(tag) == "loss" and math.isfinite(value)]
    rounded = averaged and all(abs(round(value, ROUNDED_DECIMALS) - value) <= abs(value) * 2.0**-24 for value in losses)
    first = 1 if any(step == 0 for _, step, _ in scalars) else 0
    remarks = ("The file counts steps from 0: one was added",) if first else ()
    open_step, numbers = None, dict[str, Printed]()

    def entry() -> Iterator[Entry]:
        if open_step is not None and "loss" in numbers:
            over = None if averaged else 1
            where = f"{path.name}, step {open_step}"
            yield Entry(step=open_step + first, where=where, numbers=dict(numbers), over=over, remarks=remarks)

    for tag, step, value in scalars:
        if tag not in names:
            continue
        if step != open_step or names[tag] in numbers:
            yield from entry()
            open_step, numbers = step, {}
        kept = float32(value)
        coarse = rounded and names[tag] == "loss"
        numbers[names[tag]] = Printed(value, max(ROUNDED, kept.resolution)) if coarse else kept
    yield from entry()


def _scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each scalar of a file, in the order in which they were written."""
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise MissingPrerequisite("Event files are read by the package tensorboard: pip install tensorboard") from None
    try:
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = _scalar(value, make_ndarray)
                if number is not None:
                    yield value.tag, int(event.step), number
    except Exception as error:  # the package does not document what it raises for other files
        raise InputError(f"{path} is not an event file that tensorboard {_version()} reads: {error}") from None


def _scalar(value: Any, make_ndarray: Any) -> float | None:
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if value.HasField("tensor"):
        array = make_ndarray(value.tensor)
        return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None
    return None


def _version() -> str:
    from tensorboard import version

    return str(version.VERSION)
