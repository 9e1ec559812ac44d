"""The gradients of the first batch of a case, computed by a shipped runner while msprobe dumps them.

    python -m tests.support.msprobe_dump FRAMEWORK TASK LEVEL CASE INPUTS OUT

FRAMEWORK is `torch` or `mindspore`; INPUTS has the weights and batches of the case. msprobe has to be installed.
"""

import json
import sys
from pathlib import Path
from typing import Any

from harness.cases.case import load_case
from harness.runners.protocol import Setting
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors, read_weights


def debugger_of(framework: str, task: str, level: str, out: Path) -> Any:
    """msprobe's debugger, which wants its configuration as a file."""
    every: dict[str, list[str]] = {"scope": [], "list": [], "data_mode": ["all"]}
    kind = {"statistics": {**every, "summary_mode": "statistics"}, "tensor": every}
    configuration = {"task": task, "level": level, "dump_path": str(out), "rank": [], "step": [], **kind}
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(configuration), encoding="utf-8")
    if framework == "torch":
        from msprobe.pytorch import PrecisionDebugger
    else:
        # before msprobe, which brings another implementation of protobuf
        from mindspore import mint, ops

        mint.norm = lambda x: ops.sqrt(ops.reduce_sum(x * x))  # MindSpore has no kernel of its norm on a CPU
        from msprobe.mindspore import PrecisionDebugger
    return PrecisionDebugger(config_path=str(out / "config.json"))


def dump(framework: str, task: str, level: str, case: str, inputs: Path, out: Path) -> None:
    """Writes the dump."""
    debugger = debugger_of(framework, task, level, out)
    chosen = load_case(case)
    weights, batches = read_weights(inputs / WEIGHTS), read_tensors(inputs / BATCHES)
    setting = Setting(device="CPU", threads=1, learning_rate_zero=False)
    runner: Any
    if framework == "torch":
        from harness.runners.torch_reference import TorchReference

        runner = TorchReference(chosen, weights, setting)
        model = runner.model
    else:
        from harness.runners.mindspore_subject import MindSporeSubject

        runner = MindSporeSubject(chosen, weights, setting)
        model = runner._trainer.model
    debugger.start(model)
    runner.gradients(batches["tokens"][0], batches["loss_mask"][0])
    debugger.stop()
    debugger.step()


if __name__ == "__main__":
    framework, task, level, case = sys.argv[1:5]
    dump(framework, task, level, case, Path(sys.argv[5]), Path(sys.argv[6]))
