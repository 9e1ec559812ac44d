"""Runs of other programs, imported from their logs: the printed numbers, their resolution, and notes on the import.

An imported run is not a trace. It has no digests of weights and batches, and its numbers have only the printed digits.
So it is not evidence for a level: `certify compare` accepts it, the judge does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.base.errors import EvidenceError
from harness.base.records import Float, read_bytes, read_record

FORM = "certify-import/1"
PRINTED = ("loss", "grad_norm", "learning_rate")  # the numbers that logs have

Format = Literal["mindformers", "megatron", "hf-trainer", "tensorboard"]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Printed:
    """A printed number: the computed one lies within `resolution` of `value`; 0 if every bit was written."""

    value: Float
    resolution: Annotated[Float, Field(ge=0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """One step of a log. `loss` is the mean over the last `over` steps; None where the log has no number."""

    step: Positive
    over: Positive = 1
    loss: Printed | None = None
    grad_norm: Printed | None = None
    learning_rate: Printed | None = None

    def __post_init__(self) -> None:
        if self.over > self.step:
            raise ValueError(f"step {self.step} cannot be a mean over {self.over} steps")


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """A run of another program.

    `files` are the digests of the files that were read; `origin` is the file or the rank that the numbers come from;
    `notes` are sentences about everything that was omitted, repeated or could not be read.
    """

    source: Format
    files: Mapping[str, str]
    origin: str
    steps: tuple[LoggedStep, ...]
    total: Positive | None = None
    case: Mapping[str, str] | None = None  # name and digest of the case that it was checked against
    notes: tuple[str, ...] = ()
    format: str = field(default=FORM)

    def __post_init__(self) -> None:
        numbers = [step.step for step in self.steps]
        if not numbers or numbers != sorted(set(numbers)):
            raise ValueError("there must be steps, each once and in order")

    @property
    def ends(self) -> bool:
        """Whether the log holds the last planned step; true also where it does not state their number."""
        return self.total is None or self.steps[-1].step >= self.total


def is_import(path: Path) -> bool:
    """Whether a file states the format of an imported run."""
    try:
        return FORM.encode() in read_bytes(path)
    except (OSError, EvidenceError):  # what is larger is none
        return False


def read_import(path: Path) -> ImportedRun:
    """An imported run from its file.

    Raises:
        EvidenceError: it is missing, was edited, or does not hold what it should.
    """
    run: ImportedRun = read_record(ImportedRun, path, FORM)
    return run
