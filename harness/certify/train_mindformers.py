"""Trains a configuration of mindformers by its own Trainer with the collector in it.

`python -m harness.certify.train_mindformers FILE.yaml DIRECTORY INITIAL DEVICE`; `certify launch` starts it, by `msrun`
where the configuration has several ranks. What run_mindformer.py does, it does: configuration, context, Trainer. The
run begins with the weights of INITIAL, a checkpoint in Hugging Face's form. On a CPU the operators that exist for
Ascend alone are replaced first, and the trace states which.
"""

import os
import sys
import tempfile
from typing import Any

CALLBACK = "CertifyCollector"


def main(file: str, directory: str, initial: str, device: str) -> None:
    """Trains and collects; see the module."""
    os.environ.setdefault("LOG_MF_PATH", f"{tempfile.gettempdir()}/mindformers-log-{os.getuid()}")
    import mindformers
    from mindformers import MindFormerConfig, Trainer
    from mindformers.core.context import build_context

    import harness.collect.mindformers  # noqa: F401  (registers the callback)

    config = MindFormerConfig(file)
    config.context.device_target = device
    config.load_checkpoint, config.load_ckpt_format = initial, "safetensors"
    if device == "CPU":
        from harness.runners.mindformers_on_cpu import replace_for_the_trainer

        mindformers.certify_replaced = replace_for_the_trainer()
        config.runner_config.sink_mode = False
    config.callbacks = with_collector(config.get("callbacks") or [], directory)
    build_context(config)
    Trainer(config).train()


def with_collector(callbacks: list[dict[str, Any]], directory: str) -> list[dict[str, Any]]:
    """The callbacks of a configuration, with the collector in this directory in place of one that it has."""
    others = [one for one in callbacks if one.get("type") != CALLBACK]
    named = next((one for one in callbacks if one.get("type") == CALLBACK), {})
    return [*others, {**named, "type": CALLBACK, "directory": directory}]


if __name__ == "__main__":
    main(*sys.argv[1:])
