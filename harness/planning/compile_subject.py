"""One rank's dry run of this model in its process: `python -m harness.planning.compile_subject JOB.json PARENT`.

The trainer of the subject is built for Ascend as in a run, and its cells are compiled; nothing is executed. Parameters
are not allocated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore.nn.utils import no_init_parameters

from harness.cases.case import parse_case
from harness.planning.compiling import compile_in_this_process
from harness.runners.mindspore_subject import MindSporeSubject, prepare_process
from harness.runners.protocol import Setting
from qwen3_model import collectives


def compile_job(job: Path, content: Mapping[str, Any]) -> Mapping[str, str]:
    """Compiles the cells of a rank of a case."""
    case = parse_case(content["case"], str(job))
    prepare_process("Ascend", 1)
    alone = case.parallel.world_size == 1
    if not alone:
        collectives.start()
    rank = None if alone else content["rank"]
    setting = Setting(device="Ascend", threads=1, learning_rate_zero=False, rank=rank)
    with no_init_parameters():
        trainer = MindSporeSubject.build_trainer(case, setting)
    rows, length = case.data.global_batch_size, case.data.seq_length
    trainer.compile(np.zeros((rows, length + 1), np.int32), np.ones((rows, length), np.uint8))
    return {}


if __name__ == "__main__":
    compile_in_this_process(compile_job)
