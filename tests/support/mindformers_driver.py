"""`python -m tests.support.mindformers_driver FILE DIRECTORY INITIAL [no]`: mindformers' Trainer, with the collector.

mindformers compiles its helpers for Megatron data on first use; megatron-core's, the same functions, stand in.
With a fourth argument there is no collector.
"""

import sys

import mindspore  # noqa: F401  # before megatron-core: it states how protobuf is to work in this process
from megatron.core.datasets import helpers

from harness.certify import train_mindformers


def main(file: str, directory: str, initial: str, without: str = "") -> None:
    sys.modules["mindformers.dataset.blended_datasets.helpers"] = helpers
    from mindformers.dataset.dataloader import blended_megatron_dataloader

    blended_megatron_dataloader.compile_helpers = lambda: None
    if without:
        train_mindformers.with_collector = lambda callbacks, directory: callbacks
    train_mindformers.main(file, directory, initial, "CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])
