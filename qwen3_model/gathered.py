"""The whole tensors of a model that several ranks hold in parts, without a rank that ever holds the whole model."""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sharding import counts, parts_of

PIECE = 1 << 22  # numbers in one sum over ranks
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


class AllRanks:
    """What the ranks of a layout hold together, of which `rank` holds its parts. All ranks call the same methods in the
    same order. `total` is the sum over all ranks of an array of float32.
    """

    def __init__(self, config: Qwen3Config, layout: ParallelConfig, rank: int, total: Callable[[Array], Array]) -> None:
        self._shapes = dict(parameter_shapes(config))
        self._parts_of = functools.partial(parts_of, config=config, layout=layout, rank=rank)
        self._counts = functools.partial(counts, config=config, layout=layout, rank=rank)
        self._rank, self._replica, self._total = rank, layout.coordinates(rank).replica, total

    def gathered(self, parts: Mapping[str, Array]) -> Gathered:
        """The whole tensors of every rank's parts, on every rank, bit for bit. A part of which each replica keeps some
        rows, as of the moments of a shared optimizer, is given by these.

        Bit patterns are summed in halves and in pieces of one size: nothing is rounded, and one sum is compiled. A
        tensor with different copies on two ranks becomes NaN throughout, and the log names it.
        """
        sizes = {name: math.prod(shape) for name, shape in self._shapes.items()}
        piece = min(sum(sizes.values()), PIECE)
        return Gathered(groups_within(sizes, piece), functools.partial(self._gather, parts, piece))

    def on_any_rank(self, names: Collection[str]) -> frozenset[str]:
        """The parameters that at least one rank names."""
        counted = self._total(np.array([name in names for name in self._shapes], np.float32))
        return frozenset(name for name, count in zip(self._shapes, counted, strict=True) if count)

    def _gather(self, parts: Mapping[str, Array], piece: int, names: Sequence[str]) -> dict[str, Array]:
        """Whole tensors of some names, by sums over ranks of so many numbers each."""
        own = {name: (part, parts[name]) for name, part in self._parts_of(names)}
        sizes = [math.prod(self._shapes[name]) for name in names]
        bits = np.zeros(-(-sum(sizes) // piece) * piece, np.uint32)
        begins = itertools.accumulate(sizes, initial=0)
        places = {
            name: bits[begin : begin + size].reshape(self._shapes[name])
            for name, begin, size in zip(names, begins, sizes, strict=False)
        }
        for name, (part, kept) in own.items():
            held = self._rows_of(part.of_whole(places[name]), kept)
            alone = len(kept) < len(part.of_whole(places[name]))
            if (alone or self._replica == 0) and self._counts(name):  # one of its holders contributes it
                held[...] = np.ascontiguousarray(kept, np.float32).view(np.uint32)
        for begin in range(0, len(bits), piece):
            bits[begin : begin + piece] = self._sum_of_bits(bits[begin : begin + piece])
        found = {name: place.view(np.float32) for name, place in places.items()}
        differing = {
            name
            for name, (part, kept) in own.items()
            if self._rows_of(part.take(found[name]), kept).tobytes() != kept.tobytes()
        }
        for name in sorted(differing):
            print(f"rank {self._rank}: {name}: differs from its copy on another rank", flush=True)
        for name in self.on_any_rank(differing):
            found[name][...] = np.nan
        return found

    def _rows_of(self, held: Array, kept: Array) -> Array:
        """What this replica keeps of a part that this rank holds: its rows, or all of them."""
        begin = self._replica * len(kept) if len(kept) < len(held) else 0
        return held[begin : begin + len(kept)]

    def _sum_of_bits(self, bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """The sum over all ranks of bit patterns that are zero on all ranks but one. MCCL has no sum of integers."""
        halves = np.stack([bits >> 16, bits & 0xFFFF]).astype(np.float32)
        high, low = self._total(halves).astype(np.uint32)
        whole: npt.NDArray[np.uint32] = (high << np.uint32(16)) | low
        return whole
