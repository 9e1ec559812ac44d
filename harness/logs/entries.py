"""The entries of a log, merged into the steps of one run: restarts, repetitions, gaps, several ranks.

Nothing is omitted silently: every change to the log's content becomes a note.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from harness.base.errors import InputError
from harness.base.numbers import encode_number
from harness.logs import PRINTED, LoggedStep, Printed

SHOWN = 3  # places that a note lists


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One step, from one line of a log.

    `over`: the number of steps the loss is a mean of, None for all since it was last printed. `elsewhere`: the loss is
    on another pipeline stage, so this rank does not have it.
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
    """The entries of one rank, in the order of its log, and the places that look like a step but cannot be read."""

    name: str
    entries: list[Entry] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def has_loss(self) -> bool:
        """Whether this rank computed a loss: ranks of other pipeline stages print 0."""
        return any((loss := one.numbers.get("loss")) and loss.value != 0 for one in self.entries if not one.elsewhere)


def choose(streams: Sequence[Stream], rank: str | None) -> tuple[Stream, list[str]]:
    """The first stream with a computed loss, or the requested one; and notes on the choice.

    Raises:
        InputError: no stream has a computed loss, or the requested one has none.
    """
    names = ", ".join(stream.name for stream in streams)
    if rank is not None:
        named = [stream for stream in streams if rank in (stream.name, stream.name.removeprefix("rank "))]
        if not named:
            raise InputError(f"There is no rank or file {rank!r} among {names}.")
        if not named[0].has_loss:
            raise InputError(f"{named[0].name} never shows a loss other than 0: its pipeline stage has no loss.")
        return named[0], []
    with_loss = [stream for stream in streams if stream.has_loss]
    if not with_loss:
        raise InputError(
            f"None of {names} shows a loss other than 0. With pipeline parallelism only ranks of the last stage show "
            "the loss: import the log of one of those, usually that of the last worker."
        )
    first, notes = with_loss[0], list[str]()
    if len(streams) > 1:
        without_loss = [stream.name for stream in streams if not stream.has_loss]
        notes.append(f"Used {first.name} of {len(streams)} ranks" + _other_ranks(without_loss, len(with_loss)))
    for other in with_loss[1:]:
        if differs := _first_difference(first, other):
            notes.append(f"{other.name} also shows a loss; it differs from step {differs} on.")
    return first, notes


def _other_ranks(without_loss: Sequence[str], with_loss: int) -> str:
    more = f" and {len(without_loss) - SHOWN} more" if len(without_loss) > SHOWN else ""
    also = f"; {with_loss - 1} others show a loss too" if with_loss > 1 else ""
    return (f": only loss 0 in {', '.join(without_loss[:SHOWN])}{more}" if without_loss else "") + also + "."


def _first_difference(one: Stream, other: Stream) -> int | None:
    losses = {entry.step: _encoded(entry).get("loss") for entry in one.entries}
    for entry in other.entries:
        if entry.step in losses and _encoded(entry).get("loss") != losses[entry.step]:
            return entry.step
    return None


def merge(stream: Stream) -> tuple[tuple[LoggedStep, ...], int | None, list[str]]:
    """The steps of a stream, each once and in order; the planned number of steps; and notes.

    A step number that goes back is a restart: it supersedes the earlier lines from that step on.

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
            "into this file. Import the file of a single run."
        )
    if segments - 1 > SHOWN:
        notes[SHOWN:] = [f"Steps go back {segments - 1 - SHOWN} more times."]
    if repeats:
        notes.append(f"{repeats} lines repeat the previous step with the same numbers.")
    if stream.unreadable:
        lines = "1 line looks" if len(stream.unreadable) == 1 else f"{len(stream.unreadable)} lines look"
        notes.append(f"{lines} like a step but cannot be read: {_listed(stream.unreadable)}.")
    return _steps(kept, notes), _total(kept, notes), notes + _remarks(kept)


def _same_step(first: Entry, second: Entry, name: str) -> Entry:
    """One of two lines of a step: the one with the loss.

    Raises:
        InputError: both have a loss and their numbers differ.
    """
    if not _has_loss(second) or not _has_loss(first):
        return first if _has_loss(first) else second
    if _encoded(first) != _encoded(second):
        raise InputError(
            f"{name}: step {first.step} has different numbers at {first.where} and {second.where}: several runs or "
            "ranks wrote into this file. Import the file of a single run and rank."
        )
    return first


def _encoded(entry: Entry) -> dict[str, float | str]:
    """The numbers of an entry in a form where NaN equals NaN."""
    return {name: encode_number(number.value) for name, number in entry.numbers.items()}


def _has_loss(entry: Entry) -> bool:
    loss = entry.numbers.get("loss")
    return not entry.elsewhere and loss is not None and loss.value != 0


def _restart(kept: Sequence[Entry], entry: Entry) -> str:
    superseded = [one for one in kept if one.step >= entry.step]
    if len(superseded) == len(kept):
        return (
            f"A run begins at {entry.where} with step {entry.step}; the {len(kept)} steps before it in the file, "
            f"{kept[0].step} to {kept[-1].step}, belong to an earlier run and were omitted."
        )
    return (
        f"At {entry.where} the run goes back from step {kept[-1].step} to step {entry.step}; {len(superseded)} steps "
        "were repeated, and their last values are used."
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
        notes.append(f"The log has one step in {stride}.")
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
        notes.append(f"The planned number of steps changes in the log: {_listed(list(map(str, totals)))}.")
    return kept[-1].total if kept else None


def _remarks(kept: Sequence[Entry]) -> list[str]:
    """Each remark once, with its steps."""
    at = dict[str, list[str]]()
    for entry in kept:
        for remark in entry.remarks:
            at.setdefault(remark, []).append(str(entry.step))
    return [f"{remark} at {len(steps)} of {len(kept)} steps: {_listed(steps)}." for remark, steps in at.items()]


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more
