"""Imports log files as one run: finds the format, the rank and the steps, and checks the run against a case."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from harness.base.digest import digest_file
from harness.base.errors import InputError
from harness.cases.case import Case
from harness.comparison.distance import HALF_ULP
from harness.logs import Format, ImportedRun, hf_trainer, megatron, mindformers, tensorboard
from harness.logs.entries import Stream, choose, merge
from harness.logs.sources import STDIN, as_files, name_of
from harness.logs.text import lines_of

READERS: Mapping[Format, Callable[[Sequence[Path]], list[Stream]]] = {
    "mindformers": mindformers.read,
    "megatron": megatron.read,
    "hf-trainer": hf_trainer.read,
    "tensorboard": tensorboard.read,
}
FORMATS = get_args(Format)
TRAINER_STATE = "trainer_state.json"
TRAINER_LINE = re.compile(r"[{,]\s*['\"](?:train/)?loss['\"]:")
# Files of a directory that may be logs of lines; the first kind that is there is taken.
LINES = ("*.log*", "*.out*", "*.txt*")
# Some trainers compute rates in float32, with operations in another order.
RATE_TOLERANCE = 16 * HALF_ULP


def import_log(paths: Sequence[Path], source: Format | None, rank: str | None) -> ImportedRun:
    """The run in log files.

    Args:
        paths: files of one run, and directories and archives of such files; `-` is standard input.
        source: the program that wrote them; detected if None.
        rank: the rank or file to use; if None, the one with the most steps that have a loss.

    Raises:
        InputError: a file is missing or cannot be read, there is no step, or one file mixes several runs.
        MissingPrerequisite: a package that reads the format is not installed.
    """
    with as_files(paths) as local:
        try:
            return _imported(local, paths, source, rank)
        except InputError as error:
            raise InputError(_as_named(str(error), local, paths)) from None


def _as_named(message: str, paths: Sequence[Path], named: Sequence[Path]) -> str:
    """A message with the paths that the user gave in place of those of copies."""
    for local, given in zip(paths, named, strict=True):
        if local != given:
            message = message.replace(str(local), name_of(given) if given == STDIN else str(given))
    return message


def _imported(paths: Sequence[Path], named: Sequence[Path], source: Format | None, rank: str | None) -> ImportedRun:
    """`named` are the paths as the user gave them."""
    source = source or detect(paths)
    files = _files(paths, source)
    streams = [stream for stream in READERS[source](files) if stream.entries or stream.unreadable]
    if not any(stream.entries for stream in streams):
        bad = [place for stream in streams for place in stream.unreadable]
        why = (
            f"{len(bad)} lines look like one but cannot be read, the first at {bad[0]}"
            if bad
            else "no line looks like one"
        )
        raise InputError(f"There is no step of {source} in {', '.join(map(str, named))}: {why}.")
    stream, choice = choose(streams, rank)
    steps, total, notes = merge(stream)
    return ImportedRun(
        source=source,
        files={path.name if len(files) == 1 else _called(path, paths, named): digest_file(path) for path in files},
        origin=stream.name,
        steps=steps,
        total=total,
        notes=(*choice, *notes),
    )


def _called(path: Path, paths: Sequence[Path], named: Sequence[Path]) -> str:
    """A file by the path that the user gave, also one of an archive."""
    for local, given in zip(paths, named, strict=True):
        if local != given and path.is_relative_to(local):
            return str(given / path.relative_to(local))
    return str(path)


def detect(paths: Sequence[Path]) -> Format:
    """The program that wrote a log, from file names or content.

    Raises:
        InputError: neither is known.
    """
    for path in paths:
        if path.suffix == ".json":
            return "hf-trainer"
        if tensorboard.NAME in path.name or (path.is_dir() and any(path.rglob(f"*{tensorboard.NAME}*"))):
            return "tensorboard"
        if path.is_dir() and any(path.rglob(TRAINER_STATE)):
            return "hf-trainer"
    of_trainer = ""
    for path in _files(paths, None):
        for number, line in enumerate(lines_of(path), 1):
            if mindformers.STEP.search(line):
                return "mindformers"
            if megatron.STEP.search(line):
                return "megatron"
            if not of_trainer and TRAINER_LINE.search(line):
                of_trainer = f"{path.name}, line {number}"
    where = ", ".join(map(str, paths))
    if of_trainer:
        raise InputError(
            f"{where} is what Hugging Face's Trainer prints, or a file made from it ({of_trainer}). Its numbers are "
            f"read from {TRAINER_STATE} in the output directory of the run: give that file."
        )
    raise InputError(
        f"No line of {where} looks like a training step of mindformers or Megatron-LM. "
        f"Name the program that wrote it with --format: {', '.join(FORMATS)}."
    )


def _files(paths: Sequence[Path], source: Format | None) -> list[Path]:
    """The files of a format, in the given order; those of a directory by name. Without a format, those with lines.

    Raises:
        InputError: one is missing, or a directory holds none.
    """
    patterns = {"hf-trainer": (TRAINER_STATE,), "tensorboard": (f"*{tensorboard.NAME}*",)}.get(source or "", LINES)
    files = list[Path]()
    for path in paths:
        if path.is_dir():
            kinds = (sorted(one for one in path.rglob(pattern) if one.is_file()) for pattern in patterns)
            found = next(filter(None, kinds), [])
            if not found:
                raise InputError(f"{path} holds no file {' or '.join(patterns)}. Give the file of the log.")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"There is no file {path}.")
    return list(dict.fromkeys(files))


def contradictions(run: ImportedRun, case: Case) -> list[str]:
    """Where a log contradicts a case, as sentences; numbers that the log does not have are not checked."""
    found, steps = list[str](), case.training.steps
    if run.total is not None and run.total != steps:
        found.append(f"The log belongs to a run of {run.total} steps; {case.name} has {steps}.")
    if (last := run.steps[-1].step) > steps:
        found.append(f"The log holds step {last}; {case.name} has {steps}.")
    schedule, wrong = case.lr_schedule.over(steps), list[str]()
    for step in run.steps:
        if step.learning_rate is None or step.step > steps:
            continue
        expected = schedule.learning_rate(step.step)
        allowed = step.learning_rate.resolution + RATE_TOLERANCE * case.lr_schedule.learning_rate
        if not abs(step.learning_rate.value - expected) <= allowed:
            wrong.append(f"{step.learning_rate.value:.7g} at step {step.step}, expected {expected:.7g}")
    if wrong:
        found.append(f"The learning rate differs from {case.name} at {len(wrong)} steps: {wrong[0]}.")
    return found
