"""The trace: the record of one run, in a file that survives when the run is killed.

A trace file is JSON lines: a header, one line per step, written when the step ends, and a footer with the last step,
the digests of the final parameters and the digest of all lines before it. A file without a footer belongs to a run that
was killed; it can be read, and is never complete. Numbers that are not finite are written by name. Nothing in a trace
depends on time or host, so the same run gives the same bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from harness.base.digest import canonical_json
from harness.base.errors import EvidenceError
from harness.base.numbers import decode_number
from harness.base.records import LATER, encode_json, field_names, read_bytes
from harness.runs.collected import omitted
from harness.runs.files import TRACE_FORMAT

NUMBERS = ("loss", "grad_norm", "learning_rate")
OPTIONAL = frozenset({"kept", "watched"})  # fields that are written only where there is something
EXACT = 2**53  # every whole number below is one float64

Line = TypeVar("Line", "TraceHeader", "TraceFooter", "Step", "Scored")
Arm = Literal["train", "lr_zero", "floor", "resumed", "probe", "taps", "alone", "alone_probe", "infer"]
EvaluationTask = Literal["text", "last_word", "ending"]
Side = Literal["reference", "subject", "oracle"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimizer step, in full precision; `grad_norm` is taken before clipping.

    `tokens` counts the target tokens of this step's loss, `batch` is the digest of the tokens and loss mask passed to
    the runner, `learning_rate` is the schedule's rate for the optimizer.
    """

    step: Annotated[int, Field(ge=1, lt=EXACT)]
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: Annotated[int, Field(ge=0, lt=EXACT)]
    batch: str

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm) and math.isfinite(self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One document of an evaluation, in full precision; `step` counts them over all tasks.

    `log_likelihoods` are natural logarithms: of a text; of a last word; of each ending of a passage. `score` is the
    log-likelihood of a text; for a word or an ending it is 1 if right, else 0. `words` counts the words of a text, and
    is 1 otherwise. `document` is the digest of the document.
    """

    step: Annotated[int, Field(ge=1, lt=EXACT)]
    task: EvaluationTask
    log_likelihoods: tuple[float, ...]
    score: float
    words: Annotated[int, Field(ge=1, lt=EXACT)]
    document: str

    @property
    def finite(self) -> bool:
        return all(math.isfinite(value) for value in (self.score, *self.log_likelihoods))


@dataclass(frozen=True, kw_only=True)
class TraceHeader:
    """The run that was requested, and its runner.

    `weights` and `batches` are digests of what the run itself read, `initial` those of the parameters that the model
    held after loading, `alignment` its configuration and optimizer as built.
    """

    run: str
    side: Side
    arm: Arm
    case: str
    weights: str
    batches: str
    steps: Annotated[int, Field(ge=1, lt=EXACT)]
    runner: str
    initial: Mapping[str, str] = field(default_factory=dict)
    alignment: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    format: str = TRACE_FORMAT


@dataclass(frozen=True, kw_only=True)
class TraceFooter:
    """The end of a finished run: last step, digest of each final parameter (for a probe: of each of its tensors), and
    digest of all lines before. `kept` is the digest of the sketches that were kept in place of tensors, if any,
    `watched` that of what was left of the steps (`harness.runs.watched`)."""

    last_step: int
    parameters: Mapping[str, str]
    lines: str
    kept: str | None = None
    watched: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A run's record as read from its file: `steps` of training, `scored` documents of inference. `footer` is None if
    the run did not finish."""

    header: TraceHeader
    steps: tuple[Step, ...]
    footer: TraceFooter | None
    scored: tuple[Scored, ...] = ()

    @property
    def lines(self) -> Sequence[Step | Scored]:
        """The steps or the scored documents, in order."""
        return self.scored if self.header.arm == "infer" else self.steps

    @property
    def complete(self) -> bool:
        """Whether all requested steps are there, each once and in order, and a footer."""
        requested = list(range(1, self.header.steps + 1))
        return self.footer is not None and [line.step for line in self.lines] == requested

    @property
    def first_non_finite(self) -> Step | Scored | None:
        """The first line with a number that is not finite, apart from what was not collected."""
        absent = omitted(self.header.provenance)
        return next((line for line in self.lines if not _finite(line, absent)), None)


def _finite(line: Step | Scored, absent: frozenset[str]) -> bool:
    if not absent or isinstance(line, Scored):
        return line.finite
    return all(math.isfinite(getattr(line, name)) for name in NUMBERS if name not in absent)


Status = Literal["completed", "non_finite", "crashed", "hung", "interrupted", "missing"]
ENDED: tuple[Status, ...] = ("completed", "non_finite")  # the run ended by itself
# What kept a run of the subject from the runs of the other sides, weakest first. `none`: it could read them. `order`:
# they did not exist yet, but recorded ones could be read. `namespaces`: it could see neither.
Protection = Literal["none", "order", "namespaces"]
PROTECTIONS: tuple[Protection, ...] = ("none", "order", "namespaces")


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended, as recorded by the launcher. `detail` is a sentence, `log_tail` the end of the run's output;
    `resumed_after` lists the steps after which the run was resumed from a checkpoint. `protection` is that of a run of
    the subject, the weakest of its attempts; None where none was sought. `apart`: no later run could find anything that
    this one left outside of its directory; None where an older version made the run."""

    status: Status
    last_step: int
    detail: str
    log_tail: str = ""
    resumed_after: tuple[int, ...] = ()
    protection: Protection | None = field(default=None, metadata=LATER)
    apart: bool | None = field(default=None, metadata=LATER)

    @property
    def ended(self) -> bool:
        """Whether the run ended by itself; otherwise it failed, was interrupted, or never started."""
        return self.status in ENDED


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: its outcome and, if it can be read, its trace."""

    name: str
    outcome: RunOutcome
    trace: Trace | None


class TraceWriter:
    """Appends a run's record line by line; every line is on disk before the next step starts.

    Use `TraceWriter.create` for a new run and `TraceWriter.resume` to resume one after its last checkpoint.
    """

    def __init__(self, path: Path, written: bytes, last_step: int) -> None:
        self._file = path.open("wb")
        self._sha = hashlib.sha256()
        self._last_step = last_step
        self._write(written)

    @classmethod
    def create(cls, path: Path, header: TraceHeader) -> Self:
        return cls(path, encode_json(header), 0)

    @classmethod
    def resume(cls, path: Path, header: TraceHeader, after_step: int) -> Self:
        """Keeps the steps up to `after_step` and drops later ones, which will run again.

        Raises:
            EvidenceError: the file belongs to another run or lacks one of those steps.
        """
        trace = read_trace(path)
        kept = tuple(step for step in trace.steps if step.step <= after_step)
        if trace.header != header or [step.step for step in kept] != list(range(1, after_step + 1)):
            raise EvidenceError(
                f"{path} is not the beginning of this run up to step {after_step}. Run again without --resume."
            )
        temporary = path.with_suffix(".resume")
        writer = cls(temporary, encode_json(header) + b"".join(map(encode_json, kept)), after_step)
        os.replace(temporary, path)
        return writer

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        self._sha.update(data)

    def append(self, step: Step | Scored) -> None:
        self._write(encode_json(step))
        self._last_step = step.step

    def finish(self, parameters: Mapping[str, str], kept: str | None = None, watched: str | None = None) -> None:
        """Writes the footer: the run is finished."""
        footer = TraceFooter(
            last_step=self._last_step,
            parameters=dict(parameters),
            lines=self._sha.hexdigest(),
            kept=kept,
            watched=watched,
        )
        without = {name: value for name, value in vars(footer).items() if name not in OPTIONAL or value is not None}
        self._file.write(encode_json(without))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def _strict(kind: Any) -> type[BaseModel]:
    hints: dict[str, Any] = {
        name: (hint, None if name in OPTIONAL else ...)
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }
    return create_model(f"Strict{kind.__name__}", __config__=ConfigDict(strict=True), **hints)


# The same fields with strict types: no run writes a number in quotes, a float for a whole number, or true for 1.
STRICT: Mapping[Any, type[BaseModel]] = {kind: _strict(kind) for kind in (TraceHeader, TraceFooter, Step, Scored)}
# The names of the fields that a line must have, and of those that it may have.
NAMES: Mapping[Any, tuple[frozenset[str], frozenset[str]]] = {
    kind: (frozenset(field_names(kind)) - OPTIONAL, frozenset(field_names(kind))) for kind in STRICT
}


def _record(kind: type[Line], raw: Any, where: str) -> Line:
    required, names = NAMES[kind]
    if not isinstance(raw, dict) or not required <= raw.keys() <= names:
        found = sorted(raw) if isinstance(raw, dict) else repr(raw)
        raise EvidenceError(f"{where}: expected the keys {sorted(names)}, found {found}.")
    try:
        if kind is Step:
            raw = {**raw, **{name: decode_number(raw[name]) for name in NUMBERS}}
        if kind is Scored:
            raw = {**raw, "score": decode_number(raw["score"]), "log_likelihoods": _decoded(raw["log_likelihoods"])}
        STRICT[kind].model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise EvidenceError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    except ValueError as error:
        raise EvidenceError(f"{where}: {error}.") from None
    return kind(**raw)


def _decoded(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list):
        raise ValueError(f"not a list of numbers: {values!r}")
    return tuple(map(decode_number, values))


def read_trace(path: Path) -> Trace:
    """Reads a trace file, also one whose run was killed while it wrote a line.

    Raises:
        EvidenceError: the file is not a trace, a line cannot be read, a step is out of order, repeated, missing or
            beyond the requested ones, or the footer does not match the lines before it.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise EvidenceError(f"The trace {path} cannot be read: {error.strerror}.") from None
    lines = data.split(b"\n")
    whole = lines[:-1]  # text after the last line end was cut off when the run was killed
    if not whole:
        raise EvidenceError(f"The trace {path} is empty.")
    records = [_parse(line, f"{path}, line {number}") for number, line in enumerate(whole, 1)]
    header = _record(TraceHeader, records[0], f"{path}, line 1")
    if header.format != TRACE_FORMAT:
        raise EvidenceError(f"{path} has the format {header.format!r}; this version reads {TRACE_FORMAT!r}.")
    footer = None
    body = records[1:]
    if body and isinstance(body[-1], dict) and "last_step" in body[-1]:
        footer = _record(TraceFooter, body.pop(), f"{path}, line {len(whole)}")
        covered = hashlib.sha256(b"".join(line + b"\n" for line in whole[:-1])).hexdigest()
        if footer.lines != covered or lines[-1]:
            raise EvidenceError(f"{path} was changed after its run ended: its lines do not match its footer's digest.")
    if header.arm == "infer":
        scored = tuple(_record(Scored, raw, f"{path}, line {number}") for number, raw in enumerate(body, 2))
        trace = Trace(header=header, steps=(), scored=scored, footer=footer)
    else:
        steps = tuple(_record(Step, raw, f"{path}, line {number}") for number, raw in enumerate(body, 2))
        trace = Trace(header=header, steps=steps, footer=footer)
    _check_order(trace, path)
    return trace


def _parse(line: bytes, where: str) -> Any:
    try:
        value = json.loads(line)
        same = canonical_json(value).encode() == line
    except (ValueError, RecursionError):
        raise EvidenceError(f"{where}: not JSON. The trace was truncated or edited.") from None
    if not same:  # a key that is given twice is read as one of both, and not by every reader as the same
        raise EvidenceError(f"{where}: not in canonical form. The trace was edited.")
    return value


def _check_order(trace: Trace, path: Path) -> None:
    header, lines, footer = trace.header, trace.lines, trace.footer
    for expected, line in enumerate(lines, 1):
        if line.step != expected:
            raise EvidenceError(
                f"{path} holds step {line.step}, expected step {expected}: a step is missing, repeated or out of order."
            )
    if len(lines) > header.steps:
        raise EvidenceError(f"{path} holds {len(lines)} steps; its header states {header.steps}.")
    if footer is not None and footer.last_step != len(lines):
        raise EvidenceError(f"{path} ends at step {len(lines)}; its footer states {footer.last_step}.")
