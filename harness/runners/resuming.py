"""The checkpoints from which a run is resumed: each is complete, or is not named the newest."""

import os
import shutil
from pathlib import Path

from harness.base.errors import CertifyError
from harness.base.records import check_list, encode_json, list_files, plain_files, read_json
from harness.runners.protocol import Runner
from harness.runners.watching import Watch

CHECKPOINT = "checkpoint"
CHECKPOINT_STEP = "step.json"


def save_checkpoint(runner: Runner, watch: Watch | None, directory: Path, step: int) -> None:
    """Writes a checkpoint next to the last one, names it the newest, and only then removes the others: nothing resumes
    from them, and each has the size of weights and moments."""
    runner.save(directory / str(step))
    if watch is not None:
        watch.save(directory / str(step))
    files = plain_files(directory / str(step))
    for name in files:
        with (directory / str(step) / name).open("rb") as file:
            os.fsync(file.fileno())
    unfinished = directory / f"{CHECKPOINT_STEP}.part"
    with unfinished.open("wb") as file:
        file.write(encode_json({"step": step, "files": list_files(directory / str(step), files)}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, directory / CHECKPOINT_STEP)
    for other in directory.iterdir():
        if other.is_dir() and other.name != str(step):
            shutil.rmtree(other, ignore_errors=True)


def resume_step(directory: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none, or where it is not as it was written: then the run
    begins again."""
    try:
        newest = read_json(directory / CHECKPOINT_STEP)
        step, files = int(newest["step"]), dict(newest["files"])
        check_list(directory / str(step), files, plain_files(directory / str(step)))
    except (CertifyError, OSError, LookupError, TypeError, ValueError):
        return 0
    return step
