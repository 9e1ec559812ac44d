"""One forward, one backward: no stage waits for ever, and none keeps more than it has to."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_model.pipeline_schedule import one_forward_one_backward

Transfer = tuple[int, str, int]  # the stage before the transfer, and the micro batch whose output or gradient it is


def transfers(stage: int, stages: int, parts: int) -> Iterator[Transfer]:
    """What a rank of a stage sends and receives, in order."""
    for action, number in one_forward_one_backward(stage, stages, parts):
        if action == "forward" and stage > 0:
            yield stage - 1, "output", number
        if action == "send":
            yield stage, "output", number
        if action == "receive":
            yield stage, "gradient", number
        if action == "backward" and stage > 0:
            yield stage - 1, "gradient", number


@given(st.integers(1, 9), st.integers(1, 20))
def test_every_transfer_meets_the_other_side_although_each_side_waits_for_it(stages: int, parts: int) -> None:
    left = [list(transfers(stage, stages, parts)) for stage in range(stages)]
    met = 0
    while any(left):
        ready = [one for one in range(stages - 1) if left[one] and left[one + 1] and left[one][0] == left[one + 1][0]]
        assert ready, f"all wait: {[rest[:1] for rest in left]}"
        for stage in ready:
            if left[stage][:1] == left[stage + 1][:1]:
                del left[stage][0], left[stage + 1][0]
                met += 1
    assert met == 2 * (stages - 1) * parts


@given(st.integers(1, 9), st.integers(1, 20), st.data())
def test_each_micro_batch_runs_forward_and_then_backward_in_order(stages: int, parts: int, data: st.DataObject) -> None:
    stage = data.draw(st.integers(0, stages - 1))
    done = list(one_forward_one_backward(stage, stages, parts))
    for action in ("forward", "backward"):
        assert [number for kind, number in done if kind == action] == list(range(parts))
    kept = most = 0
    for kind, _ in done:
        kept += {"forward": 1, "backward": -1}.get(kind, 0)
        most = max(most, kept)
    assert kept == 0 and most == min(parts, stages - stage)


@pytest.mark.parametrize("parts", [1, 4])
def test_the_last_stage_neither_sends_nor_receives(parts: int) -> None:
    assert {action for action, _ in one_forward_one_backward(2, 3, parts)} == {"forward", "backward"}


def test_the_stage_before_the_last_has_one_forward_between_two_backward() -> None:
    done = [f"{action} {number}" for action, number in one_forward_one_backward(0, 2, 3)]
    assert done == [
        "forward 0", "send 0", "forward 1", "receive 0", "send 1", "backward 0",
        "forward 2", "receive 1", "send 2", "backward 1", "receive 2", "backward 2",
    ]  # fmt: skip
