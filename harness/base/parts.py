"""Shares of a list that several machines divide among them: part K of N has the items K, K + N, K + 2 N and so on."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.base.errors import InputError
from harness.base.text import listed

WRITTEN = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of `of` shares, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Its items, in their order; there may be none."""
        return items[self.number - 1 :: self.of]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part a record is of, `K/N`, and of what: the digest of the plan of the whole."""

    part: str
    plan: str


def read_part(text: str) -> Part:
    """The part that is written as `K/N`.

    Raises:
        InputError: it is not written so, or K is more than N.
    """
    found = WRITTEN.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise InputError(f"--part {text!r} is no part: write K/N, such as 2/8, with K from 1 to N.")
    return Part(number=int(found[1]), of=int(found[2]))


def whole(shares: Mapping[str, Share | None], again: Callable[[Part], str]) -> list[str]:
    """The names of the records of all parts of one plan, in the order of their parts.

    Args:
        shares: what each record is a share of, by a name such as its file.
        again: the command that makes a part.

    Raises:
        InputError: one is no part, is given twice or is missing, or they are of several plans or numbers of parts.
    """
    found, plans = dict[int, str](), set[str]()
    counts = set[int]()
    for name, share in shares.items():
        if share is None:
            raise InputError(f"{name} is no part: it was recorded without --part.")
        part = read_part(share.part)
        if part.number in found:
            raise InputError(f"{found[part.number]} and {name} are both part {part}.")
        found[part.number] = name
        plans.add(share.plan)
        counts.add(part.of)
    if len(plans) > 1 or len(counts) > 1:
        raise InputError(
            f"{listed(list(shares))} are parts of different wholes: other options, or another number of parts."
        )
    (count,) = counts
    missing = [Part(number=number, of=count) for number in range(1, count + 1) if number not in found]
    if missing:
        commands = "".join(f"\n  {again(part)}" for part in missing)
        raise InputError(f"Not run: {listed([f'part {part}' for part in missing])}. Run:{commands}")
    return [found[number] for number in range(1, count + 1)]


def check_alike(found: Mapping[str, Collection[str]]) -> None:
    """Checks that parts were made alike.

    Args:
        found: of what must be the same in all, the different values that they have.

    Raises:
        InputError: something differs.
    """
    if differing := [what for what, values in found.items() if len(values) > 1]:
        raise InputError(f"The parts do not belong together: their {listed(differing)} differ.")


def interleaved(parts: Sequence[Sequence[T]]) -> tuple[T, ...]:
    """The items of the whole from those of its parts, in their order."""
    most = max(map(len, parts), default=0)
    return tuple(part[at] for at in range(most) for part in parts if at < len(part))
