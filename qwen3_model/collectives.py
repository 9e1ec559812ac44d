"""Collective operations behind one interface: HCCL on Ascend, MCCL on a CPU.

On Ascend each operation is HCCL's own: AllReduce, AllGather, ReduceScatter, Send, Receive. MCCL has only sums in both
modes and for any group, so on a CPU everything is built from them: a maximum is that of a summed table with one column
per rank, gathering is a sum with zeros at the places of other ranks, and a transfer is a sum to which the other rank
adds zero. A sum of one number and zeros is exact, so nothing is rounded.

MCCL fails when a rank sends nothing for 30 seconds, and this limit cannot be changed. Compiling may take longer. So
ranks wait for each other at a barrier without a limit before they run a newly compiled cell.
"""

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import mindspore.communication as comm
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.mint.distributed import TCPStore

from qwen3_model.derivatives import on_cpu
from qwen3_model.parallel_config import BARRIER_PORT

POLL_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True)
class Group:
    """A communication group, and this rank's index in it."""

    ranks: tuple[int, ...]
    index: int

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self.ranks)

    @property
    def name(self) -> str:
        """The group's name, the same on each of its ranks."""
        return "ranks-" + "-".join(map(str, self.ranks))


_made: set[str] = set()
_stores: list[TCPStore] = []
_barriers = itertools.count(1)


def start() -> tuple[int, int]:
    """Initialises communication; the rank of this process and the world size. Called once, before any group is made.

    Without a port in `BARRIER_PORT`, `barrier` does nothing.
    """
    comm.init()
    rank, size = comm.get_rank(), comm.get_group_size()
    if port := os.environ.get(BARRIER_PORT):
        _stores.append(TCPStore(os.environ["MS_SCHED_HOST"], int(port), is_master=rank == 0))
    return rank, size


def barrier(size: int) -> None:
    """Waits until all `size` ranks have called this; every rank calls it equally often."""
    for store in _stores:
        name = f"barrier-{next(_barriers)}"
        arrived = store.add(name, 1)
        while arrived < size:
            time.sleep(POLL_SECONDS)
            arrived = store.add(name, 0)


def group(ranks: Sequence[int], rank: int) -> Group:
    """A group of ranks with this one among them. Every rank of the world makes the same groups in the same order."""
    made = Group(ranks=tuple(ranks), index=list(ranks).index(rank))
    if made.size > 1 and made.name not in _made:
        comm.create_group(made.name, list(ranks))
        _made.add(made.name)
    return made


class Sum(nn.Cell):
    """x -> the sum of x over a group. It has no derivative of its own: the cells that use it define theirs."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.alone = over.size == 1
        if not self.alone:
            self.reduce = ops.AllReduce(ops.ReduceOp.SUM, over.name)

    def construct(self, x: Tensor) -> Tensor:
        if self.alone:
            return x
        return self.reduce(x)


def after(before: Tensor, x: Tensor) -> Tensor:
    """Within a compiled step: x, not before `before` was computed."""
    return ops.depend(x, before)


class InOrder(nn.Cell):
    """Applies cell i to item i, one after the other: (items, before) -> (results, the last `before`).

    Each cell takes (item, before) and returns (result, before). A graph does not order its sums over ranks, and two
    ranks that start different sums deadlock. So each sum depends on the one before, in one order on all ranks.
    The cells form a binary tree: in a loop the calls of the compiled graph would nest once per item, and MindSpore
    limits that depth.
    """

    def __init__(self, cells: Sequence[nn.Cell]) -> None:
        super().__init__(auto_prefix=False)
        self.count = len(cells)
        self.middle = self.count // 2
        if self.count == 1:
            self.cell = cells[0]
        else:
            self.left, self.right = InOrder(cells[: self.middle]), InOrder(cells[self.middle :])

    def construct(self, items: tuple[Any, ...], before: Tensor) -> tuple[tuple[Any, ...], Tensor]:
        if self.count == 1:
            result, before = self.cell(items[0], before)
            return (result,), before
        first, before = self.left(items[: self.middle], before)
        second, before = self.right(items[self.middle :], before)
        return first + second, before


class NextSum(nn.Cell):
    """The sum of an item over a group, after the sum before."""

    def __init__(self, total: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.sum = total

    def construct(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        total = self.sum(ops.depend(x, before))
        return total, total


class Unchanged(nn.Cell):
    """An item that is not summed."""

    def construct(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return x, before


def sums_in_order(selected: Sequence[bool], total: nn.Cell) -> InOrder:
    """The cell that sums the selected items by `total`, one after the other."""
    return InOrder([NextSum(total) if sums else Unchanged() for sums in selected])


class Enter(nn.Cell):
    """Enters a model-parallel region: x is the same on every rank, and its gradient is the sum over the ranks."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum = Sum(over)

    def construct(self, x: Tensor) -> Tensor:
        return x

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.sum(dout),)


class Leave(nn.Cell):
    """Leaves a model-parallel region: x is summed over the ranks, and each rank takes the whole gradient."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum = Sum(over)

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (dout,)


class Sends(nn.Cell):
    """x -> sent to the other rank of a pair. The other rank runs `Receives` at the same time."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.send = ops.Send(0, 1 - over.index, over.name)

    def construct(self, x: Tensor) -> Tensor:
        return ops.depend(x, self.send(x))


class Receives(nn.Cell):
    """Anything of a shape and dtype -> what the other rank of a pair sends, in that shape and dtype."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.other, self.group = 1 - over.index, over.name

    def construct(self, like: Tensor) -> Tensor:
        return ops.Receive(0, self.other, like.shape, like.dtype, self.group)(like)


def transfers(over: Group) -> tuple[nn.Cell, nn.Cell]:
    """The cells that send to the other rank of a pair, and that receive from it: for zeros, what it sends."""
    if on_cpu():
        both = Sum(over)
        return both, both
    return Sends(over), Receives(over)


class Rows(nn.Cell):
    """[n R, ...] <-> parts of R rows, one on each rank of a group, by HCCL's own operators."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.gather_rows = ops.AllGather(over.name)
        self.scatter_rows = ops.ReduceScatter(ops.ReduceOp.SUM, over.name)
        self.size = over.size

    def gather(self, x: Tensor) -> Tensor:
        """This rank's positions [B, S/n, D] -> those of all ranks, in order [B, S, D]."""
        B, s, D = x.shape
        parts = ops.reshape(self.gather_rows(x), (self.size, B, s, D))
        return ops.reshape(ops.transpose(parts, (1, 0, 2, 3)), (B, -1, D))

    def scatter(self, x: Tensor) -> Tensor:
        """[B, S, D] -> this rank's positions of the sum over the group [B, S/n, D]."""
        B, S, D = x.shape
        parts = ops.transpose(ops.reshape(x, (B, self.size, S // self.size, D)), (1, 0, 2, 3))
        return self.scatter_rows(ops.reshape(parts, (self.size * B, S // self.size, D)))


class RowsBySums(nn.Cell):
    """The same by sums over the group."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.positions = Sum(over), Positions(over)

    def gather(self, x: Tensor) -> Tensor:
        """As `Rows.gather`."""
        return self.sum(self.positions.among_zeros(x))

    def scatter(self, x: Tensor) -> Tensor:
        """As `Rows.scatter`."""
        return self.positions.own(self.sum(x))


def rows_of(over: Group) -> nn.Cell:
    """The cell that gathers and scatters positions on this device."""
    return RowsBySums(over) if on_cpu() or over.size == 1 else Rows(over)


class Positions(nn.Cell):
    """The positions of x [B, S, D] that a rank keeps where a group splits them: equal parts, in order."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.size = over.size
        self.index = Tensor(over.index, ms.int32)
        # Within a written-out derivative MindSpore 2.9.0 fails on `zeros_like` and on a list of tensors.
        self.own_is_one = Tensor(np.eye(over.size, dtype=np.float32)[over.index].reshape(1, -1, 1, 1))

    def own(self, x: Tensor) -> Tensor:
        """All positions -> this rank's."""
        return ops.gather(ops.reshape(x, (x.shape[0], self.size, -1, x.shape[2])), self.index, 1)

    def among_zeros(self, x: Tensor) -> Tensor:
        """This rank's positions -> all positions, with zeros at those of other ranks."""
        parts = ops.reshape(x, (x.shape[0], 1, x.shape[1], x.shape[2])) * self.own_is_one
        return ops.reshape(parts, (x.shape[0], -1, x.shape[2]))

    def construct(self, x: Tensor) -> Tensor:
        return self.own(x)


class EnterFromPositions(nn.Cell):
    """Enters a model-parallel region under sequence parallelism: gathers the positions of all ranks; the gradient of
    this rank's positions is the sum over the ranks."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.rows = rows_of(over)

    def construct(self, x: Tensor) -> Tensor:
        return self.rows.gather(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.rows.scatter(dout),)


class LeaveToPositions(nn.Cell):
    """Leaves a model-parallel region under sequence parallelism: each rank keeps its positions of the sum, and takes
    the whole gradient."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.rows = rows_of(over)

    def construct(self, x: Tensor) -> Tensor:
        return self.rows.scatter(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.rows.gather(dout),)


class Largest(nn.Cell):
    """x [R, 1] -> the maximum of each row over a group. Without a derivative."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.index, self.size = Sum(over), over.index, over.size
        self.largest = ops.ArgMaxWithValue(1, True)
        self.by_sums = on_cpu()
        if not self.by_sums and self.size > 1:
            self.reduce = ops.AllReduce(ops.ReduceOp.MAX, over.name)

    def construct(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        if not self.by_sums:
            return self.reduce(x)
        zeros = ops.zeros_like(x)
        columns = [x if i == self.index else zeros for i in range(self.size)]
        _, largest = self.largest(self.sum(ops.cat(columns, 1)))
        return largest
