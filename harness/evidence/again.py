"""The command that makes the runs of a bundle again."""

import shlex
from collections.abc import Iterator

from harness.cases.case import shipped_cases
from harness.evidence.bundle import Bundle

RUN = ("certify", "run")


def run_again(bundle: Bundle, *options: str) -> str:
    """A shipped case by its name, with these options; any other by the command that was given, which names its file."""
    name, command = bundle.case.name, bundle.occasion.command
    if name in shipped_cases() or command[:2] != RUN:
        return shlex.join((*RUN, name, *options))
    return shlex.join(without_place(command))


def without_place(words: tuple[str, ...]) -> Iterator[str]:
    """A command without the directory that it named, and without `--resume`."""
    skipped = False
    for word in words:
        if not skipped and word != "--resume" and not word.startswith("--out"):
            yield word
        skipped = word == "--out"
