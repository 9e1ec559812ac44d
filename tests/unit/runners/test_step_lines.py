"""What a rank prints of a step is a line of mindformers: what reads its logs reads these."""

import datetime

from hypothesis import given
from hypothesis import strategies as st

from harness.logs.entries import Entry
from harness.logs.mindformers import parse
from harness.runners.step_lines import prints_steps, step_line
from harness.runs.trace import Step
from qwen3_model.parallel_config import ParallelConfig

NOON = datetime.datetime(2026, 11, 30, 12, 0, 0, 5000)


@given(
    number=st.integers(1, 9999),
    loss=st.floats(1e-3, 100),
    norm=st.floats(1e-3, 1e4),
    rate=st.floats(0, 1e-3),
    seconds=st.floats(0, 1e4),
)
def test_a_printed_step_is_read_as_a_step_of_mindformers(
    number: int, loss: float, norm: float, rate: float, seconds: float
) -> None:
    step = Step(step=number, loss=loss, grad_norm=norm, learning_rate=rate, tokens=1, batch="")
    found = parse(step_line(step, 9999, seconds, NOON) + "\n", "worker_15.log:1")
    assert isinstance(found, Entry) and (found.step, found.total, found.problems) == (number, 9999, ())
    assert abs(found.numbers["loss"].value - loss) <= 0.5e-6 + 1e-12
    assert abs(found.numbers["grad_norm"].value - norm) <= 1e-6 * norm
    assert found.numbers["learning_rate"].value == rate


def test_the_line_is_the_one_that_the_guide_shows() -> None:
    step = Step(step=7, loss=10.649, grad_norm=1.31049, learning_rate=1e-05, tokens=1, batch="")
    assert step_line(step, 20, 1.5, NOON) == (
        "2026-11-30 12:00:00,005 - INFO - { Epoch:[  1/  1], step:[    7/   20], loss: 10.649000, "
        "per_step_time: 1500ms, lr: 1e-05, overflow cond: False, loss_scale: 1.0, global_norm: [1.31049] }"
    )


def test_of_several_ranks_those_of_the_last_stage_print() -> None:
    layout = ParallelConfig(model_parallel=2, pipeline_stage=2, micro_batch_num=2)
    assert [prints_steps(layout, rank) for rank in range(4)] == [False, False, True, True]
    assert not prints_steps(ParallelConfig(), None), "one process has a trace, and no one to follow its log"
