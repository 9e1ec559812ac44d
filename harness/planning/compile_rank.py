"""One rank's dry run of mindformers in its process: `python -m harness.planning.compile_rank JOB.json PARENT`.

mindformers' own trainer runs with a configuration: context, communication, model, wrappers, optimizer. Where it would
start to train, the network is compiled instead, and nothing is executed. The data set is replaced by zeros of its
shape, passed as arguments, so the data pipeline is not compiled.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindformers
import numpy as np
from mindformers import MindFormerConfig, Trainer, build_context
from mindspore import Model
from mindspore.dataset import GeneratorDataset

from harness.collect.mindformers import CertifyCollector
from harness.planning.compiling import compile_in_this_process
from harness.planning.dry_run import COLLECTED, CONFIGURATION, MINDFORMERS

NAME_OF_COLLECTOR = CertifyCollector.__name__


class Zeros:
    """A data set of zeros with a given number of rows."""

    def __init__(self, rows: int, columns: int, length: int) -> None:
        self.rows = rows
        self.row = (np.zeros(length, np.int32),) * columns  # the loader casts every column to int32

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.row


def compile_network(model: Any, epochs: int, rows: Any, callbacks: Any = (), **_: Any) -> None:
    """Replaces `Model.train`: compiles the network instead of training it. A collector begins, as before a training."""
    model.train_network.set_train()
    model.train_network.compile(*next(rows.create_tuple_iterator(num_epochs=1)))
    about = {"train_network": model.train_network, "optimizer": None, "dataset_sink_mode": False}
    counts = {"batch_num": rows.get_dataset_size(), "epoch_num": epochs}
    for one in callbacks or ():
        if isinstance(one, CertifyCollector):
            one.on_train_begin(Beginning(about | counts))


class Beginning(dict[str, Any]):
    """What a callback is given when a training begins: the context and its content."""

    def original_args(self) -> "Beginning":
        """The content."""
        return self

    def __getattr__(self, name: str) -> Any:
        return self[name]


def zeros(config: Any) -> Any:
    """The replacement of the data set: one rank's rows of a step as one batch."""
    layout, data = config.parallel_config, config.train_dataset
    parts = layout.micro_batch_num if layout.pipeline_stage > 1 else config.runner_config.gradient_accumulation_steps
    columns = list(data.input_columns)
    rows = Zeros(data.data_loader.sizes[0], len(columns), data.data_loader.config.seq_length)
    return GeneratorDataset(rows, columns, shuffle=False).batch(config.runner_config.batch_size * parts)


def compile_job(job: Path, content: Mapping[str, Any]) -> Mapping[str, str]:
    """Compiles the configuration next to a job."""
    Model.train = compile_network
    config = MindFormerConfig(str(job.parent / CONFIGURATION))
    for one in config.callbacks or ():
        if one["type"] == NAME_OF_COLLECTOR:
            one["directory"] = str(job.parent / COLLECTED)  # and not where the training is collected
    build_context(config)
    Trainer(config, train_dataset=zeros(config)).train()
    return {MINDFORMERS: mindformers.__version__}


if __name__ == "__main__":
    compile_in_this_process(compile_job)
