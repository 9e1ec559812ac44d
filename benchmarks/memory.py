"""The memory estimate of `certify plan` against the measured peak: `python benchmarks/memory.py`.

Each shape trains for some steps in a fresh process on a CPU, in GRAPH mode. The measured memory is what the trainer
always holds (parameters, moments, sums of gradients) plus the peak of MindSpore's memory pool, which holds the rest of
a step; MindSpore logs it when the process ends. The table compares it with the estimate for the same case. A plan is of
devices, whose operators broadcast by themselves, so they do here; on a CPU a step otherwise spreads its operands (see
`qwen3_model.derivatives.Spread`), and the last column is the largest resident size of a process that does.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

from harness.cases.case import Case, load_case
from harness.planning.memory import memory
from qwen3_model.sizes import SMALL

STEPS = 3
MIB = 2**20
STATISTICS = {"MS_DEV_RUNTIME_CONF": "memory_statistics:true"}
PEAK = re.compile(r"The dynamic memory pool .*actual peak used mem:(\d+)M")


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
        precision={"fused": False},  # a process that broadcasts takes itself for one on a device
    )


def train(shape: Shape, spread: bool) -> None:
    """In a process of its own: trains the shape, with operands spread or not; prints the bytes that the trainer holds
    and the largest resident."""
    import numpy as np

    from qwen3_model import derivatives

    if not spread:
        derivatives.on_cpu = lambda: False
    from harness.runners.mindspore_subject import MindSporeSubject
    from harness.runners.processes import peak_resident
    from harness.runners.protocol import Setting

    case, setting = case_of(shape), Setting(device="CPU", threads=1, learning_rate_zero=False)
    subject = MindSporeSubject.__new__(MindSporeSubject)
    subject._setting, subject._case = setting, case
    trainer = subject.build_trainer(case, setting)
    tokens = np.ones((shape.rows, shape.length + 1), np.int32)
    for _ in range(STEPS):
        trainer.train_step(tokens, np.ones((shape.rows, shape.length), np.uint8))
    sums = trainer._summed() if shape.accumulated > 1 else ()
    held = sum(tensor.nbytes for tensor in (*trainer._state(), *sums))
    print(json.dumps({"held": held, "resident": peak_resident()}), flush=True)


def measured(shape: Shape) -> float:
    """MiB at the peak of what the trainer and the pool hold, with operators that broadcast."""
    output, held, _ = _trained(shape, spread=False)
    peak = PEAK.search(output)
    if peak is None:
        sys.exit(output)
    return held + int(peak[1])


def resident(shape: Shape) -> float:
    """MiB of the largest resident size of a process that trains the shape as a run does."""
    return _trained(shape, spread=True)[2]


def _trained(shape: Shape, *, spread: bool) -> tuple[str, float, float]:
    """What a process printed, and the MiB that its trainer holds and of its largest resident size."""
    command = [sys.executable, __file__, json.dumps(dataclasses.asdict(shape)), *(["spread"] if spread else [])]
    done = subprocess.run(
        command, env=os.environ | STATISTICS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(done.stdout)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return done.stdout, found["held"] / MIB, found["resident"] / MIB


def main() -> None:
    """Prints a table of all shapes, and the largest error."""
    named = [field.name for field in dataclasses.fields(Shape)]
    print(f"| {' | '.join((*named, 'estimate', 'measured', 'error', 'resident'))} |")
    print("|" + " --- |" * (len(named) + 4))
    errors = []
    for shape in SHAPES:
        peak = measured(shape)
        (stage,) = memory(case_of(shape), ascend=False)
        estimate = stage.total / MIB
        errors.append(estimate / peak - 1)
        numbers = (f"{estimate:.0f} MiB", f"{peak:.0f} MiB", f"{errors[-1]:+.0%}", f"{resident(shape):.0f} MiB")
        print(f"| {' | '.join((*(str(getattr(shape, name)) for name in named), *numbers))} |", flush=True)
    print(f"\nlargest error {max(map(abs, errors)):.0%}")


if __name__ == "__main__":
    if sys.argv[1:]:
        train(Shape(**json.loads(sys.argv[1])), spread="spread" in sys.argv[2:])
    else:
        main()
