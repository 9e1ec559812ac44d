"""The entries of a log, merged into the steps of one run: restarts, repetitions, gaps, several ranks.

Nothing is omitted silently: every change to the log's content becomes a note.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePath

from harness.base.errors import InputError
from harness.base.numbers import encode_number
from harness.logs import PRINTED, LoggedStep, Printed

NORM = "grad_norm"
SHOWN = 3  # places that a note lists
RANK_WORDS = "rank|worker|default|device|node"  # before the number of a rank, in names of files and directories


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One step, from one line of a log.

    `over`: the number of steps the loss is a mean of, None for all since it was last printed. `elsewhere`: the loss is
    on another pipeline stage, so this rank does not have it. `remarks` are reported once each with their steps, and so
    are `events`, which happened to the step and not to this line alone; `problems` name a number of this line that
    cannot be read.
    """

    step: int
    where: str
    numbers: Mapping[str, Printed]
    over: int | None = 1
    total: int | None = None
    elsewhere: bool = False
    remarks: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def has_loss(self) -> bool:
        """Whether this line has the loss of its step."""
        return "loss" in self.numbers and not self.elsewhere

    @property
    def is_zero(self) -> bool:
        """Whether the loss is 0: of most programs a number like any other."""
        return self.has_loss and self.numbers["loss"].value == 0


@dataclass(frozen=True)
class Aside:
    """What a line of its own reports about the step before it."""

    event: str


@dataclass(kw_only=True)
class Stream:
    """The entries of one rank, in the order of its log, and the places that look like a step but cannot be read.

    `damage`: sentences about parts of its files that were not read.
    """

    name: str
    entries: list[Entry] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    @property
    def has_loss(self) -> bool:
        """Whether this rank computed a loss: ranks of other pipeline stages print 0."""
        return any(one.has_loss for one in self.entries)

    @property
    def steps_with_loss(self) -> tuple[int, int]:
        """The number of steps with a loss other than 0, and with any."""
        with_loss = [one for one in self.entries if one.has_loss]
        return len({one.step for one in with_loss if not one.is_zero}), len({one.step for one in with_loss})

    def is_called(self, rank: str) -> bool:
        """Whether `--rank` may name this stream so: by its name, or by the number of its rank in its path."""
        if rank in (self.name, self.name.removeprefix("rank "), PurePath(self.name).name):
            return True
        return (
            rank.isdigit()
            and re.search(rf"(?:^|[^a-z])(?:{RANK_WORDS})[_ -]?0*{rank}(?!\d)|(?:^|/)0*{rank}/", self.name) is not None
        )


def choose(streams: Sequence[Stream], rank: str | None) -> tuple[Stream, list[str]]:
    """The stream with the most steps that have a loss, the first of several, or the requested one; and notes.

    Raises:
        InputError: no stream has a computed loss, or the requested one has none, or several are called so.
    """
    names = _listed([stream.name for stream in streams])
    if rank is not None:
        named = [stream for stream in streams if stream.is_called(rank)]
        named = [stream for stream in named if stream.name == rank] or named
        if not named:
            raise InputError(f"There is no rank or file {rank!r} among {names}.")
        if len(named) > 1:
            raise InputError(
                f"{rank!r} may be {', '.join(one.name for one in named)}: give one of these names to --rank."
            )
        if not named[0].has_loss:
            raise InputError(f"{named[0].name} {_why_no_loss(named)}")
        return named[0], []
    with_loss = [stream for stream in streams if stream.has_loss]
    if not with_loss:
        raise InputError(f"{f'None of {names}' if len(streams) > 1 else names} {_why_no_loss(streams)}")
    first, notes = max(with_loss, key=lambda one: one.steps_with_loss), list[str]()
    if len(streams) > 1:
        without_loss = [stream.name for stream in streams if not stream.has_loss]
        kind = "ranks" if any(stream.name.startswith("rank ") for stream in streams) else "logs"
        notes.append(f"Used {first.name} of {len(streams)} {kind}" + _other_ranks(without_loss, len(with_loss)))
    for other in (one for one in with_loss if one is not first):
        if differs := _first_difference(first, other):
            notes.append(f"{other.name} also shows a loss; it differs from step {differs} on.")
    return first, notes


def _why_no_loss(streams: Sequence[Stream]) -> str:
    """The rest of a sentence that begins with the name of a log."""
    entries = [entry for stream in streams for entry in stream.entries]
    if any(entry.elsewhere for entry in entries):
        shows = "shows a loss other than 0." if len(streams) > 1 else "never shows a loss other than 0."
        return (
            f"{shows} With pipeline parallelism only ranks of the last stage show the loss: import the log of "
            "one of those, usually that of the last worker."
        )
    shows = "shows" if len(streams) > 1 else "never shows"
    first = f", first at {entries[0].where}" if entries else ""
    problems = [problem for entry in entries for problem in entry.problems if problem.startswith("loss: ")]
    why = f" ({problems[0].removeprefix('loss: ')})" if problems else ""
    return f"{shows} a loss: its steps have other numbers only{first}{why}."


def _other_ranks(without_loss: Sequence[str], with_loss: int) -> str:
    more = f" and {len(without_loss) - SHOWN} more" if len(without_loss) > SHOWN else ""
    others = "1 other shows" if with_loss == 2 else f"{with_loss - 1} others show"
    also = f"; {others} a loss too" if with_loss > 1 else ""
    return (f": only loss 0 in {', '.join(without_loss[:SHOWN])}{more}" if without_loss else "") + also + "."


def _first_difference(one: Stream, other: Stream) -> int | None:
    losses = {entry.step: _encoded(entry).get("loss") for entry in one.entries if not entry.elsewhere}
    for entry in (entry for entry in other.entries if not entry.elsewhere):
        if entry.step in losses and _encoded(entry).get("loss") != losses[entry.step]:
            return entry.step
    return None


def merge(stream: Stream) -> tuple[tuple[LoggedStep, ...], int | None, list[str]]:
    """The steps of a stream, each once and in order; the planned number of steps; and notes.

    A step number that goes back is a restart: it supersedes the earlier lines from that step on. A line of a stage
    without a loss supersedes nothing.

    Raises:
        InputError: the lines of several runs are mixed.
    """
    kept, notes, repeats = list[Entry](), list(stream.damage), 0
    segments = 1
    entries, omitted = _with_loss(stream)
    for entry in entries:
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
    if segments > 3 and segments * 3 > len(entries):
        raise InputError(
            f"{stream.name}: steps go back {segments - 1} times in {len(entries)} lines: several runs wrote "
            "into this file. Import the file of a single run."
        )
    if segments - 1 > SHOWN:
        notes[SHOWN:] = [f"Steps go back {segments - 1 - SHOWN} more times."]
    with_loss = {entry.step for entry in entries}
    alone = sorted({entry.step for entry in omitted} - with_loss)
    notes += _of_other_stages(omitted, alone)
    if repeats:
        notes.append(f"{repeats} lines repeat the previous step with the same numbers.")
    if stream.unreadable:
        lines = "1 line looks" if len(stream.unreadable) == 1 else f"{len(stream.unreadable)} lines look"
        notes.append(f"{lines} like a step but cannot be read: {_listed(stream.unreadable)}.")
    notes += [*_problems(kept), *_not_finite(kept), *_negative(kept)]
    return _steps(kept, alone, notes), _total(kept, notes), notes + _remarks(kept, omitted)


def _with_loss(stream: Stream) -> tuple[list[Entry], list[Entry]]:
    """The entries without those of stages that have no loss, and the omitted ones.

    A 0 that is the only loss of its step is a number; next to another loss it is of a stage.
    """
    with_another = {one.step for one in stream.entries if one.has_loss and not one.is_zero}
    kept, omitted = list[Entry](), list[Entry]()
    for one in stream.entries:
        of_stage = one.elsewhere or (one.is_zero and one.step in with_another)
        (omitted if of_stage else kept).append(one)
    return kept, omitted


def _of_other_stages(omitted: Sequence[Entry], alone: Sequence[int]) -> list[str]:
    """Notes about the lines of stages without a loss; `alone` are the steps that have no other line."""
    if not omitted:
        return []
    one = len(omitted) == 1
    lines, were = ("1 line shows", "was") if one else (f"{len(omitted)} lines show", "were")
    notes = [f"{lines} a loss of 0 or N/A, as of a pipeline stage without a loss, and {were} not used."]
    if alone:
        have, their = ("1 step has", "its") if len(alone) == 1 else (f"{len(alone)} steps have", "their")
        notes.append(f"{have} no other line, so {their} numbers are not used: {_listed(list(map(str, alone)))}.")
    return notes


def _problems(kept: Sequence[Entry]) -> list[str]:
    """The numbers that cannot be read, by name: the first few, and how many more."""
    found = dict[str, list[str]]()
    for entry in kept:
        for problem in entry.problems:
            name, _, place = problem.partition(": ")
            found.setdefault(name, []).append(place)
    return [f"{name}: {_listed(places)}." for name, places in found.items()]


def _not_finite(kept: Sequence[Entry]) -> list[str]:
    """Numbers that were printed and are not finite, by name with their steps."""
    at = {
        name: [str(one.step) for one in kept if name in one.numbers and not math.isfinite(one.numbers[name].value)]
        for name in PRINTED
    }
    return [
        f"{name}: not finite at {len(steps)} of {len(kept)} steps: {_listed(steps)}."
        for name, steps in at.items()
        if steps
    ]


def _is_norm(number: Printed | None) -> bool:
    return number is None or not number.value < 0


def _negative(kept: Sequence[Entry]) -> list[str]:
    """The steps whose grad norm is below zero, which no norm is."""
    steps = [str(one.step) for one in kept if not _is_norm(one.numbers.get(NORM))]
    return [f"{NORM}: negative at {len(steps)} of {len(kept)} steps, so no norm: {_listed(steps)}."] if steps else []


def _same_step(first: Entry, second: Entry, name: str) -> Entry:
    """One of two lines of a step: the one with the loss.

    Raises:
        InputError: both have a loss and their numbers differ.
    """
    if "loss" not in first.numbers or "loss" not in second.numbers:
        return first if "loss" in first.numbers else second
    if _encoded(first) != _encoded(second):
        raise InputError(
            f"{name}: step {first.step} has different numbers at {first.where} and {second.where}: several runs or "
            "ranks wrote into this file. Import the file of a single run and rank."
        )
    return first


def _encoded(entry: Entry) -> dict[str, float | str]:
    """The numbers of an entry in a form where NaN equals NaN."""
    return {name: encode_number(number.value) for name, number in entry.numbers.items()}


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


def _steps(kept: Sequence[Entry], alone: Sequence[int], notes: list[str]) -> tuple[LoggedStep, ...]:
    """`alone` are steps that the log has and that have no loss."""
    last = kept[-1].step if kept else 0
    numbers = sorted({entry.step for entry in kept} | {step for step in alone if step <= last})
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
    steps, before = list[LoggedStep](), dict(zip(numbers[1:], numbers, strict=False))
    for entry in kept:
        since = min(stride, entry.step - before.get(entry.step, 0))
        known = {name: entry.numbers.get(name) for name in PRINTED}
        if not _is_norm(known[NORM]):
            known[NORM] = None
        steps.append(LoggedStep(step=entry.step, over=since if entry.over is None else entry.over, **known))
    return tuple(steps)


def _total(kept: Sequence[Entry], notes: list[str]) -> int | None:
    totals = sorted({entry.total for entry in kept if entry.total is not None})
    if len(totals) > 1:
        notes.append(f"The planned number of steps changes in the log: {_listed(list(map(str, totals)))}.")
    return kept[-1].total if kept else None


def _remarks(kept: Sequence[Entry], omitted: Sequence[Entry]) -> list[str]:
    """Each remark once, with its steps; of omitted lines only what happened to their step on all stages."""
    said = [(remark, one.step) for one in kept for remark in (*one.remarks, *one.events)]
    said += [(event, one.step) for one in omitted for event in one.events]
    at = dict[str, set[int]]()
    for remark, step in said:
        at.setdefault(remark, set()).add(step)
    steps = len({one.step for one in (*kept, *omitted)})
    return [
        f"{remark} at {len(found)} of {steps} steps: {_listed(list(map(str, sorted(found))))}."
        for remark, found in at.items()
    ]


def _listed(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more
