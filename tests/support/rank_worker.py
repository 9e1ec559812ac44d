"""One rank of a small training, for `msrun`: leaves gradients, parameters, losses and norms of its own in a file."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from harness.runners.processes import end_with_parent
from harness.runners.starting import variables

STEPS = 3
LENGTH = 16  # of a row; several ranks may share its positions
SUMMED = 3000  # numbers in one sum of `whole`: several for these models
TORN = "model.norm.weight"
LATE_SECONDS = 33  # longer than MCCL waits for a rank, which is 30 s


def main(size: str, layout_json: str, out: str, late: str) -> None:
    end_with_parent(os.getppid())
    os.environ.update({**variables(1), "MS_RECEIVE_MSG_TIMEOUT": "300"})  # before the framework is imported
    import mindspore as ms
    import numpy as np
    from mindspore import nn

    from qwen3_model import collectives, gathered
    from qwen3_model.modeling_qwen3_parallel_train import ParallelTrainer
    from qwen3_model.parallel_config import ParallelConfig
    from tests.model.qwen3_cases import random_batch, shaped_as, trainer

    class LateTrainer(ParallelTrainer):
        """One that takes long to compile what it runs first."""

        def _compile(self, cell: Any, *arguments: Any) -> None:
            if not self._begun:
                time.sleep(LATE_SECONDS)
            super()._compile(cell, *arguments)

    ms.set_device("CPU")
    ms.set_deterministic(True)
    layout = ParallelConfig(**json.loads(layout_json))
    rank, ranks = collectives.start()
    assert ranks == layout.world_size
    config = shaped_as(size)
    kind = LateTrainer if late == str(rank) else ParallelTrainer
    subject = trainer(config, kind=kind, layout=layout, rank=rank)
    gradients = subject.gradients(*random_batch(config, length=LENGTH))
    steps, compiled = [], []
    for step in range(1, STEPS + 1):
        steps.append(subject.train_step(*random_batch(config, length=LENGTH, seed=step)))
        compiled.append(sum(len(cell.compile_cache) for cell in vars(subject).values() if isinstance(cell, nn.Cell)))
    left = {f"gradient.{name}": tensor for name, tensor in gradients.items()}
    left |= {f"parameter.{name}": tensor for name, tensor in subject.parameters().items()}
    left |= {name: np.array([getattr(step, name) for step in steps]) for name in ("loss", "grad_norm", "tokens")}
    left["compiled"] = np.array(compiled)
    gathered.PIECE = SUMMED
    own = subject.parameters()
    left |= {f"whole.{name}": tensor for name, tensor in subject.whole(own).items()}
    if rank == ranks - 1:
        own[TORN] = np.nextafter(own[TORN], np.float32(np.inf))
    left["torn"] = np.array([name for name, tensor in subject.whole(own).items() if np.isnan(tensor).any()])
    subject.save_checkpoint(out)
    unfinished = Path(out) / f"unfinished-{rank}.npz"
    np.savez(unfinished, **left)
    unfinished.rename(Path(out) / f"{rank}.npz")  # the last thing that is done, and what it is known by


if __name__ == "__main__":
    main(*sys.argv[1:])
