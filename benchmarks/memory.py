"""The memory estimate of `certify plan` against the measured peak: `python benchmarks/memory.py`.

Each shape trains for some steps in a fresh process on a CPU, in GRAPH mode. Measured is the largest resident size of
the process while it trains, less what it is after the same trainer in its smallest shape has run: framework, graphs
and kernels are not what a plan counts. Beside it stands the estimate for the same case.
"""

import dataclasses
import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from harness.case import Case, load_case
from harness.planning.memory import memory
from qwen3_model.configuration_qwen3 import SMALL

STEPS = 3
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What differs from the default case."""

    layers: int
    width: int
    rows: int
    length: int
    recompute: bool = False
    accumulated: int = 1
    vocabulary: int = 32_000


SHAPES = (
    Shape(layers=4, width=1024, rows=1, length=128),
    Shape(layers=8, width=512, rows=4, length=512),
    Shape(layers=8, width=512, rows=4, length=512, recompute=True),
    Shape(layers=2, width=1024, rows=8, length=512),
    Shape(layers=2, width=1024, rows=8, length=512, accumulated=4),
    Shape(layers=4, width=512, rows=2, length=1024),
    Shape(layers=4, width=512, rows=8, length=256, vocabulary=64_000),
    Shape(layers=16, width=256, rows=4, length=512, vocabulary=8_000),
)


def case_of(shape: Shape) -> Case:
    base = load_case("qwen3-tiny-fp32")
    config = dataclasses.replace(
        SMALL["tiny"],
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_attention_heads=shape.width // 64,
        num_key_value_heads=shape.width // 128,
        head_dim=64,
        vocab_size=shape.vocabulary,
        max_position_embeddings=max(1024, shape.length),
    )
    training = {"recompute": shape.recompute, "gradient_accumulation_steps": shape.accumulated}
    return base.with_changes(
        model=config.to_hf(),
        data={**base.data.model_dump(), "seq_length": shape.length, "global_batch_size": shape.rows},
        training={**base.training.model_dump(), **training},
    )


def train(shape: Shape) -> None:
    """In a process of its own: trains the shape and prints the peak, in bytes, above what is there without it."""
    import numpy as np

    from harness.runners import Setting
    from harness.runners.mindspore_subject import MindSporeSubject

    def steps(one: Shape) -> Any:
        case = case_of(one)
        setting = Setting(device="CPU", threads=1, learning_rate_zero=False)
        subject = MindSporeSubject.__new__(MindSporeSubject)
        subject._setting, subject._case = setting, case
        trainer = subject.build_trainer(case, setting)
        tokens = np.ones((one.rows, one.length + 1), np.int32)
        for _ in range(STEPS):
            trainer.train_step(tokens, np.ones((one.rows, one.length), np.uint8))
        return trainer

    smallest = dataclasses.replace(shape, width=128, rows=shape.accumulated, length=16, vocabulary=512)
    kept = steps(smallest)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    steps(shape)
    del kept
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before))


def main() -> None:
    print("| layers | width | rows | length | vocabulary | recompute | accumulated | estimate | measured | error |")
    print("|" + " --- |" * 10)
    errors = []
    for shape in SHAPES:
        command = [sys.executable, __file__, json.dumps(dataclasses.asdict(shape))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        measured = json.loads(done.stdout.splitlines()[-1])
        (stage,) = memory(case_of(shape), fused=False)
        errors.append(stage.total / measured - 1)
        cells = (shape.layers, shape.width, shape.rows, shape.length, shape.vocabulary, shape.recompute)
        numbers = (f"{stage.total / MIB:.0f} MiB", f"{measured / MIB:.0f} MiB", f"{errors[-1]:+.0%}")
        print(f"| {' | '.join(map(str, (*cells, shape.accumulated, *numbers)))} |", flush=True)
    print(f"\nlargest error {max(map(abs, errors)):.0%}")


if __name__ == "__main__":
    if sys.argv[1:]:
        train(Shape(**json.loads(sys.argv[1])))
    else:
        main()
