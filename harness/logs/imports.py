"""Log files to one imported run: which format, which rank, which steps, and how it fits a case."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from harness.base.digest import digest_file
from harness.base.errors import InputError
from harness.cases.case import Case
from harness.comparison.distance import HALF_ULP
from harness.logs import Format, ImportedRun, hf_trainer, megatron, mindformers, tensorboard
from harness.logs.entries import Stream, choose, merge
from harness.logs.text import lines_of

READERS: Mapping[Format, Callable[[Sequence[Path]], list[Stream]]] = {
    "mindformers": mindformers.read,
    "megatron": megatron.read,
    "hf-trainer": hf_trainer.read,
    "tensorboard": tensorboard.read,
}
FORMATS = get_args(Format)
# Rates are made in float32 by some trainers, from a formula that may be ordered otherwise.
RATE_TOLERANCE = 16 * HALF_ULP


def import_log(paths: Sequence[Path], source: Format | None, rank: str | None) -> ImportedRun:
    """What log files say of a run.

    Args:
        paths: files of one run, and directories that hold such.
        source: which program wrote them; looked for without it.
        rank: which rank or file to take; without it the first that shows a true loss.

    Raises:
        InputError: a file is missing or cannot be read, or no step is in them, or several runs are mixed in one.
        MissingPrerequisite: a package that reads the format is not installed.
    """
    source = source or detect(paths)
    files = _files(paths, source)
    streams = [stream for stream in READERS[source](files) if stream.entries or stream.unreadable]
    if not any(stream.entries for stream in streams):
        bad = [place for stream in streams for place in stream.unreadable]
        why = (
            f"{len(bad)} look like one and could not be read, the first at {bad[0]}"
            if bad
            else "no line looks like one"
        )
        raise InputError(f"There is no step of {source} in {', '.join(map(str, paths))}: {why}.")
    told, chosen = choose(streams, rank)
    steps, total, notes = merge(told)
    return ImportedRun(
        source=source,
        files={path.name if len(files) == 1 else str(path): digest_file(path) for path in files},
        told=told.name,
        steps=steps,
        total=total,
        notes=(*chosen, *notes),
    )


def detect(paths: Sequence[Path]) -> Format:
    """Which program wrote a log, from the names of files or from what is in them.

    Raises:
        InputError: nothing in it is known.
    """
    for path in paths:
        if path.suffix == ".json":
            return "hf-trainer"
        if tensorboard.NAME in path.name or (path.is_dir() and any(path.rglob(f"*{tensorboard.NAME}*"))):
            return "tensorboard"
    for path in _files(paths, "mindformers"):
        for line in lines_of(path):
            if mindformers.STEP.search(line):
                return "mindformers"
            if megatron.STEP.search(line):
                return "megatron"
    raise InputError(
        f"No line of {', '.join(map(str, paths))} looks like a training step of mindformers or Megatron-LM. "
        f"Say which program wrote it with --format: {', '.join(FORMATS)}."
    )


def _files(paths: Sequence[Path], source: Format) -> list[Path]:
    """The files of a format in the order in which they were given; those of a directory by name.

    Raises:
        InputError: one is missing, or a directory holds none.
    """
    pattern = {"hf-trainer": "trainer_state.json", "tensorboard": f"*{tensorboard.NAME}*"}.get(source, "*.log*")
    files = list[Path]()
    for path in paths:
        if path.is_dir():
            found = sorted(one for one in path.rglob(pattern) if one.is_file())
            if not found:
                raise InputError(f"{path} holds no file {pattern}, as {source} writes.")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"There is no file {path}.")
    return list(dict.fromkeys(files))


def contradictions(run: ImportedRun, case: Case) -> list[str]:
    """In what a log is not of a run of a case, as sentences; what a log does not say cannot contradict it."""
    found, steps = list[str](), case.training.steps
    if run.total is not None and run.total != steps:
        found.append(f"The log is of a run of {run.total} steps; {case.name} has {steps}.")
    if (last := run.steps[-1].step) > steps:
        found.append(f"The log holds step {last}; {case.name} has {steps}.")
    schedule, wrong = case.lr_schedule.over(steps), list[str]()
    for step in run.steps:
        if step.learning_rate is None or step.step > steps:
            continue
        asked = schedule.learning_rate(step.step)
        allowed = step.learning_rate.resolution + RATE_TOLERANCE * case.lr_schedule.learning_rate
        if not abs(step.learning_rate.value - asked) <= allowed:
            wrong.append(f"{step.learning_rate.value:.7g} at step {step.step}, where it gives {asked:.7g}")
    if wrong:
        found.append(f"The learning rate is not that of {case.name} at {len(wrong)} steps: {wrong[0]}.")
    return found
