"""One rank of a small training, for `msrun`: leaves gradients, parameters, losses and norms of its own in a file."""

import json
import os
import sys
from pathlib import Path

from harness.runners.launcher import variables

STEPS = 3
LENGTH = 16  # of a row; several ranks may share its positions


def main(size: str, layout_json: str, out: str) -> None:
    # Before the framework is imported. A rank waits for another while that one compiles.
    os.environ.update({**variables(1), "MS_RECEIVE_MSG_TIMEOUT": "300"})
    import mindspore as ms
    import numpy as np

    from qwen3_model import collectives
    from qwen3_model.modeling_qwen3_parallel_train import ParallelTrainer
    from qwen3_model.parallel_config import ParallelConfig
    from tests.model.qwen3_cases import random_batch, shaped, trainer

    ms.set_device("CPU")
    ms.set_deterministic(True)
    layout = ParallelConfig(**json.loads(layout_json))
    rank, ranks = collectives.start()
    assert ranks == layout.world_size
    config = shaped(size)
    subject = trainer(config, kind=ParallelTrainer, layout=layout, rank=rank)
    gradients = subject.gradients(*random_batch(config, length=LENGTH))
    steps = [subject.train_step(*random_batch(config, length=LENGTH, seed=step)) for step in range(1, STEPS + 1)]
    left = {f"gradient.{name}": tensor for name, tensor in gradients.items()}
    left |= {f"parameter.{name}": tensor for name, tensor in subject.parameters().items()}
    left |= {name: np.array([getattr(step, name) for step in steps]) for name in ("loss", "grad_norm", "tokens")}
    subject.save_checkpoint(out)
    np.savez(Path(out) / f"{rank}.npz", **left)


if __name__ == "__main__":
    main(*sys.argv[1:])
