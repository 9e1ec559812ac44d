"""One rank's dry run in its process: `python -m harness.planning.compile_rank JOB.json PARENT`.

mindformers' own trainer runs with a configuration: context, communication, model, wrappers, optimizer. Where it would
start to train, the network is compiled instead, and nothing is executed. The data set is replaced by zeros of its
shape, passed as arguments, so the data pipeline is not compiled.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import mindformers
import mindspore
import numpy as np
from mindformers import MindFormerConfig, Trainer, build_context
from mindspore import Model
from mindspore.communication import GlobalComm, management
from mindspore.dataset import GeneratorDataset

from harness.planning.dry_run import CONFIGURATION, DONE
from harness.runners.processes import end_with_parent


class Zeros:
    """A data set of zeros with a given number of rows."""

    def __init__(self, rows: int, columns: int, length: int) -> None:
        self.rows = rows
        self.row = (np.zeros(length, np.int32),) * columns  # the loader casts every column to int32

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.row


def compile_network(model: Any, epochs: int, rows: Any, **_: Any) -> None:
    """Replaces `Model.train`: compiles the network instead of training it."""
    model.train_network.set_train()
    model.train_network.compile(*next(rows.create_tuple_iterator(num_epochs=1)))


def zeros(config: Any) -> Any:
    """The replacement of the data set: one rank's rows of a step as one batch."""
    layout, data = config.parallel_config, config.train_dataset
    parts = layout.micro_batch_num if layout.pipeline_stage > 1 else config.runner_config.gradient_accumulation_steps
    columns = list(data.input_columns)
    rows = Zeros(data.data_loader.sizes[0], len(columns), data.data_loader.config.seq_length)
    return GeneratorDataset(rows, columns, shuffle=False).batch(config.runner_config.batch_size * parts)


def record_groups() -> dict[str, list[int]]:
    """The ranks of the groups that are made in Python from now on: in a dry run MindSpore does not keep them."""
    groups: dict[str, list[int]] = {}
    make = management._create_group_helper

    def recorded(group: str, ranks: list[int], *others: Any) -> None:
        groups[group] = list(ranks)
        make(group, ranks, *others)

    management._create_group_helper = recorded
    return groups


def peak_memory() -> int:
    """The largest number of bytes that this process held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def main(job: Path, parent: int) -> None:
    """Compiles, and writes a file next to the job with the memory used and the groups that were made in Python."""
    end_with_parent(parent)
    # MindSpore checks for CANN's Python package, which the stub libraries do not replace.
    GlobalComm.CHECK_ENVS = json.loads(job.read_text(encoding="utf-8"))["cann"]
    Model.train = compile_network
    groups = record_groups()
    config = MindFormerConfig(str(job.parent / CONFIGURATION))
    build_context(config)
    Trainer(config, train_dataset=zeros(config)).train()
    done = {
        "groups": groups,
        "peak_memory": peak_memory(),
        "mindspore": mindspore.__version__,
        "mindformers": mindformers.__version__,
    }
    (job.parent / DONE).write_text(json.dumps(done), encoding="utf-8")


if __name__ == "__main__":
    code = 1
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a regular exit would release a device that does not exist
