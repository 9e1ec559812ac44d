"""What ranks do together, behind one interface: HCCL on Ascend, MCCL on a CPU.

Everything is made of sums over a group, which both have, in both modes and for parts of the world. What MCCL lacks is
built from them: a maximum from the sum of a table with one column a rank, a transfer to another rank from a sum to
which all others add zero. A sum of one number and zeros is exact, so these move bits and round nothing.

MCCL gives up on a rank that sends nothing for 30 seconds, and nothing lengthens that. A rank that still compiles may
well be longer. So ranks meet before they begin what each of them had to compile, and wait there as long as it takes.
"""

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import mindspore.communication as comm
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.mint.distributed import TCPStore

from qwen3_model.parallel_config import MEETING_PORT

LOOK_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True)
class Group:
    """Ranks that add up, and which of them this one is."""

    ranks: tuple[int, ...]
    index: int

    @property
    def size(self) -> int:
        """How many."""
        return len(self.ranks)

    @property
    def name(self) -> str:
        """The same on every rank of it."""
        return "ranks-" + "-".join(map(str, self.ranks))


_made: set[str] = set()
_stores: list[TCPStore] = []
_meetings = itertools.count(1)


def start() -> tuple[int, int]:
    """Joins the world; the rank of this process, and how many there are. Called once, before any group is made.

    Without a port for it in `MEETING_PORT` ranks do not meet.
    """
    comm.init()
    rank, size = comm.get_rank(), comm.get_group_size()
    if port := os.environ.get(MEETING_PORT):
        _stores.append(TCPStore(os.environ["MS_SCHED_HOST"], int(port), is_master=rank == 0))
    return rank, size


def meet(size: int) -> None:
    """Waits until all ranks, of which there are so many, are here: each of them calls this as often as the others."""
    for store in _stores:
        name = f"meeting-{next(_meetings)}"
        came = store.add(name, 1)
        while came < size:
            time.sleep(LOOK_SECONDS)
            came = store.add(name, 0)


def group(ranks: Sequence[int], rank: int) -> Group:
    """A group of ranks, of which this is one. Every rank of the world has to make the same groups in the same order."""
    made = Group(ranks=tuple(ranks), index=list(ranks).index(rank))
    if made.size > 1 and made.name not in _made:
        comm.create_group(made.name, list(ranks))
        _made.add(made.name)
    return made


class Sum(nn.Cell):
    """x -> the sum of x over a group. It has no derivative of its own: cells that use it say what theirs is."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.alone = over.size == 1
        if not self.alone:
            self.reduce = ops.AllReduce(ops.ReduceOp.SUM, over.name)

    def construct(self, x: Tensor) -> Tensor:
        if self.alone:
            return x
        return self.reduce(x)


class Enter(nn.Cell):
    """Into what is shared: every rank takes the same x, and its gradient is the sum of what each of them hands back."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum = Sum(over)

    def construct(self, x: Tensor) -> Tensor:
        return x

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.sum(dout),)


class Leave(nn.Cell):
    """Out of what is shared: x is the sum of each rank's, and each takes the whole gradient of it."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum = Sum(over)

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (dout,)


class Positions(nn.Cell):
    """Which positions a rank keeps of x [B, S, D] where a group shares them: equal parts, in order."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.size = over.size
        self.index = Tensor(over.index, ms.int32)
        # Within a written-out derivative MindSpore 2.9.0 fails on `zeros_like` and on a list of tensors.
        self.own_is_one = Tensor(np.eye(over.size, dtype=np.float32)[over.index].reshape(1, -1, 1, 1))

    def own(self, x: Tensor) -> Tensor:
        """All of them -> this rank's."""
        return ops.gather(ops.reshape(x, (x.shape[0], self.size, -1, x.shape[2])), self.index, 1)

    def among_zeros(self, x: Tensor) -> Tensor:
        """This rank's -> all of them, with zeros where they are another's."""
        parts = ops.reshape(x, (x.shape[0], 1, x.shape[1], x.shape[2])) * self.own_is_one
        return ops.reshape(parts, (x.shape[0], -1, x.shape[2]))

    def construct(self, x: Tensor) -> Tensor:
        return self.own(x)


class EnterFromPositions(nn.Cell):
    """Into what is shared, where each rank comes with its own positions: every rank takes all of them, and the gradient
    of its own is the sum of what each of them hands back."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.positions = Sum(over), Positions(over)

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(self.positions.among_zeros(x))

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.positions.own(self.sum(dout)),)


class LeaveToPositions(nn.Cell):
    """Out of what is shared, where each rank goes on with its own positions of the sum; it takes the whole gradient."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.positions = Sum(over), Positions(over)

    def construct(self, x: Tensor) -> Tensor:
        return self.positions.own(self.sum(x))

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.sum(self.positions.among_zeros(dout)),)


class Largest(nn.Cell):
    """x [R, 1] -> the largest over a group, of each row. Without a derivative."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.index, self.size = Sum(over), over.index, over.size
        self.largest = ops.ArgMaxWithValue(1, True)

    def construct(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        zeros = ops.zeros_like(x)
        columns = [x if i == self.index else zeros for i in range(self.size)]
        _, largest = self.largest(self.sum(ops.cat(columns, 1)))
        return largest
