"""From what a log says, line after line, to the steps of one run: restarts, repetitions, gaps, several ranks.

Nothing is left out in silence: all that is not taken as it stands there becomes a sentence.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.base.errors import InputError
from harness.logs import PRINTED, LoggedStep, Printed
from harness.runs.trace import encode_number

SHOWN = 3  # places that a sentence lists


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one line says of a step.

    `over`: how many steps the loss is a mean of, None for all since it was last printed. `elsewhere`: this rank does
    not know the loss, which is on another stage of the pipeline.
    """

    step: int
    where: str
    numbers: Mapping[str, Printed]
    over: int | None = 1
    total: int | None = None
    elsewhere: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Stream:
    """What one rank printed, in that order, and the places that look like a step and could not be read."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def tells(self) -> bool:
        """Whether a loss is in it that was computed there: other stages print 0."""
        return any((loss := one.numbers.get("loss")) and loss.value != 0 for one in self.entries if not one.elsewhere)


def choose(streams: Sequence[Stream], rank: str | None) -> tuple[Stream, list[str]]:
    """The stream with the true loss, the first of them where several have it; and how it was chosen.

    Raises:
        InputError: none has it, or the one that is asked for has not.
    """
    names = ", ".join(stream.name for stream in streams)
    if rank is not None:
        asked = [stream for stream in streams if rank in (stream.name, stream.name.removeprefix("rank "))]
        if not asked:
            raise InputError(f"There is no rank or file {rank!r} among {names}.")
        if not asked[0].tells:
            raise InputError(f"{asked[0].name} never shows a loss other than 0: its stage of the pipeline has none.")
        return asked[0], []
    telling = [stream for stream in streams if stream.tells]
    if not telling:
        raise InputError(
            f"None of {names} shows a loss other than 0. With pipeline parallelism only ranks of the last stage show "
            "it: import the log of one of those, usually the last worker's."
        )
    first, notes = telling[0], list[str]()
    if len(streams) > 1:
        silent = [stream.name for stream in streams if not stream.tells]
        notes.append(f"Of {len(streams)} ranks, {first.name} was taken" + _silent(silent, len(telling)))
    for other in telling[1:]:
        if differs := _first_difference(first, other):
            notes.append(f"{other.name} also shows a loss, from step {differs} on another one.")
    return first, notes


def _silent(silent: Sequence[str], telling: int) -> str:
    shown = ", ".join(silent[:SHOWN]) + (f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else "")
    also = f"; {telling - 1} others show a loss too" if telling > 1 else ""
    return (f": no loss but 0 is shown by {shown}" if silent else "") + also + "."


def _first_difference(one: Stream, other: Stream) -> int | None:
    losses = {entry.step: _encoded(entry).get("loss") for entry in one.entries}
    for entry in other.entries:
        if entry.step in losses and _encoded(entry).get("loss") != losses[entry.step]:
            return entry.step
    return None


def merge(stream: Stream) -> tuple[tuple[LoggedStep, ...], int | None, list[str]]:
    """The steps of a stream, each once and in order; how many the run was to take; and what was made of it.

    A step that goes back is a restart: what came later before is superseded.

    Raises:
        InputError: the lines of several runs are mixed.
    """
    kept, notes, repeats = list[Entry](), list[str](), 0
    segments = 1
    for entry in stream.entries:
        if kept and entry.step == kept[-1].step:
            one = _same_step(kept[-1], entry, stream.name)
            repeats, kept[-1] = repeats + 1, one
            continue
        if kept and entry.step < kept[-1].step:
            segments += 1
            notes.append(_restart(kept, entry))
            while kept and kept[-1].step >= entry.step:
                kept.pop()
        kept.append(entry)
    if segments > 3 and segments * 3 > len(stream.entries):
        raise InputError(
            f"{stream.name}: steps go back {segments - 1} times in {len(stream.entries)} lines: several runs wrote "
            "into this file. Import the file of one of them."
        )
    if segments - 1 > SHOWN:
        notes[SHOWN:] = [f"Steps go back {segments - 1 - SHOWN} more times."]
    if repeats:
        notes.append(f"{repeats} lines repeat the step before with the same numbers.")
    if stream.unreadable:
        lines = "1 line looks" if len(stream.unreadable) == 1 else f"{len(stream.unreadable)} lines look"
        notes.append(f"{lines} like a step and could not be read: {_listed(stream.unreadable)}.")
    return _steps(kept, notes), _total(kept, notes), notes + _remarks(kept)


def _same_step(first: Entry, second: Entry, name: str) -> Entry:
    """One of two lines about a step: the one that knows the loss.

    Raises:
        InputError: both know it, and other numbers.
    """
    if not _knows(second) or not _knows(first):
        return first if _knows(first) else second
    if _encoded(first) != _encoded(second):
        raise InputError(
            f"{name}: step {first.step} is at {first.where} and at {second.where} with other numbers: several runs or "
            "ranks wrote into this file. Import the file of one of them."
        )
    return first


def _encoded(entry: Entry) -> dict[str, float | str]:
    """The numbers of an entry, comparable also where they are not finite."""
    return {name: encode_number(number.value) for name, number in entry.numbers.items()}


def _knows(entry: Entry) -> bool:
    loss = entry.numbers.get("loss")
    return not entry.elsewhere and loss is not None and loss.value != 0


def _restart(kept: Sequence[Entry], entry: Entry) -> str:
    superseded = [one for one in kept if one.step >= entry.step]
    if len(superseded) == len(kept):
        return (
            f"A run begins at {entry.where} with step {entry.step}; the {len(kept)} steps before it in the file, "
            f"{kept[0].step} to {kept[-1].step}, are of an earlier one and were left out."
        )
    return (
        f"At {entry.where} the run goes back from step {kept[-1].step} to step {entry.step}; the {len(superseded)} "
        "steps that were taken again count as they were taken last."
    )


def _steps(kept: Sequence[Entry], notes: list[str]) -> tuple[LoggedStep, ...]:
    numbers = [entry.step for entry in kept]
    strides = Counter(after - before for before, after in pairwise(numbers))
    stride = min(strides, key=lambda one: (-strides[one], one), default=numbers[0] if numbers else 1)
    gaps = [(before + 1, after - 1) for before, after in pairwise(numbers) if after - before > stride]
    if gaps:
        listed = [f"{first} to {last}" if last > first else str(first) for first, last in gaps]
        notes.append(f"Not in the log: steps {_listed(listed)}.")
    if stride > 1:
        notes.append(f"One step in {stride} is in the log.")
    if numbers and numbers[0] > stride:
        notes.append(f"The log begins with step {numbers[0]}.")
    steps, before = list[LoggedStep](), None
    for entry in kept:
        since = min(stride, entry.step if before is None else entry.step - before)
        before = entry.step
        known = {name: entry.numbers.get(name) for name in PRINTED}
        steps.append(LoggedStep(step=entry.step, over=since if entry.over is None else entry.over, **known))
    return tuple(steps)


def _total(kept: Sequence[Entry], notes: list[str]) -> int | None:
    totals = sorted({entry.total for entry in kept if entry.total is not None})
    if len(totals) > 1:
        notes.append(f"The number of steps of the whole run changes in the log: {_listed(list(map(str, totals)))}.")
    return kept[-1].total if kept else None


def _remarks(kept: Sequence[Entry]) -> list[str]:
    """Each remark once, with the steps that it was made at."""
    at = dict[str, list[str]]()
    for entry in kept:
        for remark in entry.remarks:
            at.setdefault(remark, []).append(str(entry.step))
    return [f"{remark} at {len(steps)} of {len(kept)} steps: {_listed(steps)}." for remark, steps in at.items()]


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more
