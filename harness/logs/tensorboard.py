"""Scalars in TensorBoard's event files, which hold float32. Needs the package `tensorboard`.

All event files below a directory are read; several files in one directory are one resumed run. What follows damage is
reported as not read. Directories with other
scalars only, such as the parameters that some writers store next to a run, are not a run.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import InputError, MissingPrerequisite
from harness.logs import Printed
from harness.logs.entries import Entry, Stream
from harness.logs.hf_trainer import ROUNDED, ROUNDED_DECIMALS
from harness.logs.megatron import NO_LOSS
from harness.logs.printed import float32
from harness.logs.text import distinct_names

NAME = "tfevents"
# bytes: an event has its length and a checksum before it, and another one after it (TensorFlow, lib/io/record_writer.h)
AROUND_EVENT = 8 + 4 + 4
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
    if tags and not any(stream.entries or stream.unreadable for stream in streams):
        known = "; ".join(f"{writer}: {', '.join(names)}" for writer, names in TAGS.items())
        where = ", ".join(map(str, directories))
        raise InputError(f"{where} has no loss under a known name, but {', '.join(sorted(tags))}. Known: {known}.")
    return streams


def _stream(directory: Path, files: Sequence[Path], name: str) -> tuple[Stream, set[str]]:
    """The steps of a directory, and the tags of all of its scalars."""
    stream = Stream(name=name or str(directory))
    read = {path: list(_scalars(path, stream.damage)) for path in files}
    # a resumed run goes on counting in a file that has no step 0
    first = (
        1 if any(step == 0 and tag in _names(scalars) for scalars in read.values() for tag, step, _ in scalars) else 0
    )
    for path, scalars in read.items():
        for entry in _entries(scalars, path, first):
            if entry.step < 1:
                stream.unreadable.append(entry.where)
            else:
                stream.entries.append(entry)
        known = {tag for tag, _, _ in scalars if any(tag in names for names in TAGS.values())}
        if known and not _names(scalars):
            stream.damage.append(f"{path.name} has no loss, so its {', '.join(sorted(known))} were not used.")
    return stream, {tag for scalars in read.values() for tag, _, _ in scalars}


def _names(scalars: Sequence[tuple[str, int, float]]) -> Mapping[str, str]:
    """The names of the program that wrote a file, which is known by its loss; none without one."""
    found = {tag for tag, _, _ in scalars}
    return next((names for names in TAGS.values() if next(iter(names)) in found), {})


def _entries(scalars: Sequence[tuple[str, int, float]], path: Path, first: int) -> Iterator[Entry]:
    """The steps of each run in a file. `first`: what is added to a step; 1 where steps are counted from 0."""
    names = _names(scalars)
    averaged, of_mindformers = names is TAGS["the Trainer"], names is TAGS["mindformers"]
    losses = [value for tag, _, value in scalars if names.get(tag) == "loss" and math.isfinite(value)]
    rounded = averaged and all(abs(round(value, ROUNDED_DECIMALS) - value) <= abs(value) * 2.0**-24 for value in losses)
    remarks = ("The file counts steps from 0: one was added",) if first else ()
    for numbers_of in _runs([(names[tag], step, value) for tag, step, value in scalars if tag in names]):
        for step, values in numbers_of.items():
            if "loss" not in values and "grad_norm" not in values:
                continue  # a learning rate alone is not of a step that was made
            numbers = {name: float32(value) for name, value in values.items()}
            if rounded and "loss" in numbers:
                loss = numbers["loss"]
                numbers["loss"] = Printed(loss.value, max(ROUNDED, loss.resolution))
            yield Entry(
                step=step + first,
                where=f"{path.name}, step {step}",
                numbers=numbers,
                over=None if averaged else 1,
                # mindformers writes 0 where a stage does not have the loss
                elsewhere=of_mindformers and values.get("loss") == 0,
                remarks=remarks if "loss" in numbers else (*remarks, NO_LOSS),
            )


def _runs(scalars: Iterable[tuple[str, int, float]]) -> Iterator[dict[int, dict[str, float]]]:
    """The numbers by step of each run in a file: name, step and value, as written. Where the step of a name does not
    rise, the run was resumed."""
    steps, last = dict[int, dict[str, float]](), dict[str, int]()
    for name, step, value in scalars:
        if name in last and step <= last[name]:
            yield dict(sorted(steps.items()))
            steps, last = {}, {}
        last[name] = step
        steps.setdefault(step, {})[name] = value
    yield dict(sorted(steps.items()))


def _scalars(path: Path, damage: list[str]) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each scalar of a file, in the order in which they were written.

    The package ends without an error at the first event that is damaged or cut; then `damage` gets a sentence.
    """
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader, RawEventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise MissingPrerequisite("Event files are read by the package tensorboard: pip install tensorboard") from None
    try:
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = _scalar(value, make_ndarray)
                if number is not None:
                    yield value.tag, int(event.step), number
        read = [len(event) for event in RawEventFileLoader(str(path)).Load()]
    except Exception as error:  # the package does not document what it raises for other files
        raise InputError(f"{path} is not an event file that tensorboard {_version()} reads: {error}") from None
    size, end = path.stat().st_size, sum(read) + len(read) * AROUND_EVENT
    if end < size and not read:
        raise InputError(f"{path} is not an event file, or is damaged from its beginning on.")
    if end < size:
        damage.append(
            f"{path.name} is damaged or cut after {len(read)} events: {size - end} of {size} bytes were not read."
        )


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
