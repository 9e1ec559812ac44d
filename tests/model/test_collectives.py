"""HCCL's own operators behind the collective cells, checked by stand-ins that do what their manuals say."""

from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from qwen3_model import collectives
from qwen3_model.collectives import EnterFromPositions, Group, LeaveToPositions, Receives, Rows, Sends, transfers
from tests.model.qwen3_cases import Array

RANKS, ROWS, POSITIONS, WIDTH = 3, 2, 12, 4


class OfAllRanks:
    """One operator as every rank of a group runs it: each hands in its tensor, then each gets its result.

    Source: MindSpore 2.9 manual: AllGather puts the tensors of all ranks together along the first axis, in order;
    ReduceScatter sums them and gives each rank its part of the first axis, in order.
    """

    def __init__(self) -> None:
        self.given: list[Array] = []
        self.results: list[Array] = []

    def operator(self, rank: int, combined: Callable[[Sequence[Array]], Sequence[Array]]) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            self.given.append(x.asnumpy())
            if len(self.given) < RANKS:
                return Tensor(combined([x.asnumpy()] * RANKS)[rank])  # of the right shape; not all have come
            self.results = list(combined(self.given))
            return Tensor(self.results[rank])

        return run


def gathered(parts: Sequence[Array]) -> list[Array]:
    return [np.concatenate(parts, 0)] * RANKS


def scattered(whole: Sequence[Array]) -> list[Array]:
    return list(np.split(np.sum(whole, 0), RANKS, 0))


@pytest.fixture
def on_ascend(monkeypatch: pytest.MonkeyPatch) -> list[OfAllRanks]:
    """Cells are built with HCCL's operators, which the test replaces; the calls of each are in the list."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    calls: list[OfAllRanks] = [OfAllRanks(), OfAllRanks()]
    last = RANKS - 1  # every rank before it only hands in
    monkeypatch.setattr(collectives, "on_cpu", lambda: False)
    monkeypatch.setattr(ops, "AllGather", lambda name: calls[0].operator(last, gathered))
    monkeypatch.setattr(ops, "ReduceScatter", lambda op, name: calls[1].operator(last, scattered))
    return calls


def groups() -> list[Group]:
    return [Group(ranks=(4, 5, 6), index=index) for index in range(RANKS)]


def drawn(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def last_of(cells: Sequence[Any], tensors: Sequence[Array]) -> Array:
    """What the last rank gets where each rank runs its cell."""
    results: list[Array] = [cell(Tensor(x)).asnumpy() for cell, x in zip(cells, tensors, strict=True)]
    return results[-1]


@pytest.mark.usefixtures("on_ascend")
def test_positions_are_gathered_in_order_and_scattered_as_sums() -> None:
    whole = drawn(ROWS, POSITIONS, WIDTH)
    found = last_of([EnterFromPositions(one) for one in groups()], np.split(whole, RANKS, 1))
    assert np.array_equal(found, whole)
    each = drawn(RANKS, ROWS, POSITIONS, WIDTH)
    own = last_of([LeaveToPositions(one) for one in groups()], list(each))
    assert np.array_equal(own, np.split(np.sum(list(each), 0), RANKS, 1)[-1])


@pytest.mark.usefixtures("on_ascend")
def test_the_gradient_of_gathering_is_scattered_and_that_of_scattering_gathered() -> None:
    x, each = drawn(ROWS, POSITIONS // RANKS, WIDTH), drawn(RANKS, ROWS, POSITIONS, WIDTH)
    cells = [EnterFromPositions(one) for one in groups()]
    backward = [cell.bprop(Tensor(x), None, Tensor(dout))[0].asnumpy() for cell, dout in zip(cells, each, strict=True)]
    assert np.array_equal(backward[-1], np.split(np.sum(list(each), 0), RANKS, 1)[-1])
    parts = np.split(each[0], RANKS, 1)
    leaving = [LeaveToPositions(one) for one in groups()]
    back = [cell.bprop(Tensor(x), None, Tensor(part))[0].asnumpy() for cell, part in zip(leaving, parts, strict=True)]
    assert np.array_equal(back[-1], each[0])


class NoOtherRank(nn.Cell):
    """A sum over a group in which every other rank adds zero."""

    def construct(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_sums_gather_and_scatter_positions_and_their_gradients_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setattr(ops, "AllReduce", lambda op, name: NoOtherRank())
    ms.set_context(mode=mode)
    second = Group(ranks=(0, 1), index=1)
    own, whole = drawn(ROWS, POSITIONS // 2, WIDTH), drawn(ROWS, POSITIONS, WIDTH)
    entered, of_own = _with_gradient(EnterFromPositions(second), own, whole)
    assert np.array_equal(entered[:, POSITIONS // 2 :], own) and not entered[:, : POSITIONS // 2].any()
    assert np.array_equal(of_own, whole[:, POSITIONS // 2 :])
    left, of_whole = _with_gradient(LeaveToPositions(second), whole, own)
    assert np.array_equal(left, whole[:, POSITIONS // 2 :])
    assert np.array_equal(of_whole[:, POSITIONS // 2 :], own) and not of_whole[:, : POSITIONS // 2].any()


def _with_gradient(cell: nn.Cell, x: Array, gradient: Array) -> tuple[Array, Array]:
    """What a cell gives, and the gradient of its input for a gradient of that."""
    given = cell(Tensor(x)).asnumpy()
    back = ops.GradOperation(sens_param=True)(cell)(Tensor(x), Tensor(gradient))
    return given, back.asnumpy()


def test_a_cpu_has_sums_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "AllReduce", lambda op, name: ops.ReLU())
    pair = Group(ranks=(2, 6), index=1)
    send, receive = transfers(pair)
    assert send is receive and type(send) is collectives.Sum
    assert {type(cell) for _, cell in EnterFromPositions(pair).cells_and_names()}.isdisjoint({Rows, Sends, Receives})
