"""The whole tensors of a model that several ranks hold in parts, without a rank that ever holds the whole model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


class Gathered(Mapping[str, Array]):
    """Whole tensors by name, gathered when they are looked up, a group of them at a time; the group before is freed.

    Gathering is collective: all ranks look up the same names in the same order.
    """

    def __init__(self, groups: Sequence[Sequence[str]], gather: Callable[[Sequence[str]], dict[str, Array]]) -> None:
        self._group_of = {name: group for group in groups for name in group}
        self._gather = gather
        self._held: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        group = self._group_of[name]
        if name not in self._held:
            self._held = {}  # before the next ones are there
            self._held = self._gather(group)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._group_of)

    def __len__(self) -> int:
        return len(self._group_of)


def groups_within(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in their order, in groups whose sizes add up to at most so many; one that is larger is alone."""
    groups, total = list[list[str]](), 0
    for name, size in sizes.items():
        if not groups or total + size > most:
            groups.append([])
            total = 0
        groups[-1].append(name)
        total += size
    return groups
