"""The order of work of a pipeline stage: one forward, one backward (1F1B).

A stage first runs as many micro batches forward as there are stages after it. Then each further one forward is followed
by one backward, so a stage keeps at most one input more than there are stages after it, however many micro batches a
step has. Gradients come in the order of the micro batches, as they would if all ran forward first: the sums have the
same bits.

Source: D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", SC 2021,
the default schedule.
"""

from collections.abc import Iterator
from typing import Literal

Action = Literal["forward", "send", "receive", "backward"]


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> Iterator[tuple[Action, int]]:
    """What a stage does, each with the micro batch: `forward` receives its input and computes, `send` sends the output
    to the next stage, `receive` receives the gradient of that output, `backward` computes and sends the gradient of the
    input to the stage before. The last stage only runs forward and backward.

    A rank that waits for another while that one waits for it would wait for ever. So for each pair of stages the order
    of transfers is the same on both: where a gradient and an output cross, the gradient comes first.
    """
    ahead, last = min(stages - 1 - stage, micro_batches), stage == stages - 1
    for number in range(ahead):
        yield "forward", number
        yield "send", number
    for number in range(ahead, micro_batches):
        yield "forward", number
        if not last:
            yield "receive", number - ahead
            yield "send", number
        yield "backward", number - ahead
    for number in range(micro_batches - ahead, micro_batches):
        yield "receive", number
        yield "backward", number
