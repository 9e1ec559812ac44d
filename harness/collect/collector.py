"""The collector of one run: `begin` once, `step` once a step, `end` once.

Every line is on disk before the next step begins. A run that is killed leaves a trace without its end; a run that is
resumed after a checkpoint goes on in the same directory. Over several ranks each has a collector of its own, of which
the reporting one writes the trace; every rank writes the digests of the rows that it read, and of its parts of the
weights if it is given them.
"""

import functools
import json
import math
import os
import platform
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt

from harness.base.code import imported
from harness.base.digest import canonical_json, digest_array, digest_file, digest_json
from harness.base.errors import InputError
from harness.base.machine import machine, packages
from harness.base.text import as_text
from harness.collect.content import MicroBatch, batch_digest, micro_batch_of, rows_line, step_line
from harness.collect.files import Lines, kept_lines, write_tensors, write_whole
from harness.collect.parts import Parts, PartsOfRank, no_parts
from harness.runs.collected import (
    ALIGNMENT,
    ARMS,
    CODE,
    DEVICE,
    FIRST_GRADIENT,
    NOT_GIVEN,
    OMITTED,
    PREFIX,
    PROVENANCE,
    RECORD,
    RECORD_FORMAT,
    REPORTING,
    ROWS,
    RUN,
    TRAINER,
    WEIGHTS,
    sealed,
)
from harness.runs.files import GRADIENT, TIMING, TRACE, TRACE_FORMAT
from harness.runs.sketches import BUCKETS_OF_FIRST_GRADIENT, recorded

# What the numbers depend on, of the environment of the process.
VARIABLES = (
    "ASCEND_LAUNCH_BLOCKING", "ASCEND_RT_VISIBLE_DEVICES", "CLOSE_MATMUL_K_SHIFT", "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES", "HCCL_DETERMINISTIC", "LCCL_DETERMINISTIC", "MKL_NUM_THREADS", "MS_DEV_LAUNCH_BLOCKING",
    "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "TE_PARALLEL_COMPILER",
)  # fmt: skip
Array = npt.NDArray[Any]
Named = Mapping[str, Array] | Iterable[tuple[str, Array]]
Given = ParamSpec("Given")


def guarded(method: "Callable[Concatenate[Collector, Given], None]") -> "Callable[Concatenate[Collector, Given], None]":
    """A method after whose error the collection is over, and the training goes on."""

    @functools.wraps(method)
    def call(self: "Collector", /, *args: Given.args, **named: Given.kwargs) -> None:
        if self.failed is not None:
            return
        try:
            method(self, *args, **named)
        except Exception as error:  # whatever it is, a training of days must not end by it
            self.fail(error)

    return call


class Collector:
    """Of one run of a trainer.

    Args:
        directory: Where the run is collected. One run each.
        steps: How many steps the run has to take.
        trainer: A short name of the trainer, such as `mindformers`.
        arm: `train`; `lr_zero` for a run whose learning rate is 0 in every step; `resumed` for one that is stopped
            after a checkpoint and goes on from it in a process of its own.
        rank: The number of this process, from 0.
        ranks: How many processes make the run together.
        reporting: The rank that has the true loss, the gradient norm and the learning rate of the global batch.

    Raises:
        InputError: the directory holds a run that is finished, or an argument is not valid.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        steps: int,
        trainer: str,
        arm: str = "train",
        rank: int = 0,
        ranks: int = 1,
        reporting: int = 0,
    ) -> None:
        if arm not in ARMS:
            raise InputError(f"arm {arm!r}: a collected run is one of {', '.join(ARMS)}.")
        if not TRAINER.fullmatch(trainer):
            raise InputError(f"trainer {trainer!r}: a name has letters, digits and '.', '_', '-', at most 64 of them.")
        if steps < 1 or not 0 <= rank < ranks or not 0 <= reporting < ranks:
            raise InputError(f"{steps} steps, rank {rank} and reporting rank {reporting} of {ranks} ranks do not fit.")
        self.directory, self.failed = Path(directory), None
        self._steps, self._trainer, self._arm = steps, trainer, arm
        self._rank, self._ranks, self._reports = rank, ranks, rank == reporting
        self._taken = 0
        self._pieces: list[MicroBatch] = []
        self._trace: Lines | None = None
        self._rows: Lines | None = None
        self._parts: PartsOfRank | None = None
        self._timing: BinaryIO | None = None
        self._last = 0.0

    failed: str | None

    @property
    def ranks(self) -> int:
        """How many processes make the run together."""
        return self._ranks

    def fail(self, error: Exception) -> None:
        """The collection is over because of an error, which is printed; the training goes on."""
        self.failed = f"{type(error).__name__}: {error}"
        traceback.print_exception(error)
        print(f"The collection in {self.directory} ends here ({self.failed}). Training goes on.", file=sys.stderr)

    @property
    def collecting(self) -> bool:
        """Whether it has begun, and neither ended nor failed."""
        return self._rows is not None and self.failed is None

    def begin(
        self,
        parameters: Named | None = None,
        *,
        parts: Parts | None = None,
        alignment: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        omitted: Iterable[str] = (),
        after: int = 0,
        device: str = "CPU",
        threads: int = 1,
    ) -> None:
        """Before the first step.

        Args:
            parameters: The initial weights by Hugging Face name; on the reporting rank, if it holds all of them.
            parts: In their place, on every rank: those parts of the initial weights that this rank holds, each with the
                Hugging Face name of its tensor and which part of it this is; `Part()` where it is the whole. One at a
                time.
            alignment: Configuration and optimizer as built, by `harness.runs.alignment.alignment`.
            provenance: Versions and settings that the numbers depend on, without time or host.
            omitted: What this trainer does not give: `grad_norm` or `batches`.
            after: The last step before this process, if the run is resumed from a checkpoint.
            device: `CPU`, `CUDA` or `Ascend`.
            threads: Of this process.

        Raises:
            InputError: the directory holds a finished run, or no run up to the step `after`; or weights and parts of
                them are given together.
        """
        _check_one_of(parameters, parts)
        absent = frozenset(omitted)
        if unknown := sorted(absent - set(NOT_GIVEN)):
            raise InputError(f"omitted {', '.join(unknown)}: what a trainer can lack is {' and '.join(NOT_GIVEN)}.")
        (self.directory / ROWS).mkdir(parents=True, exist_ok=True)
        rows = self.directory / ROWS / f"{self._rank}.jsonl"
        if self._reports:
            given = {str(name): digest_array(tensor) for name, tensor in _items(parameters)}
            bare = not given and parts is None
            left = sorted({*absent, *([WEIGHTS] if bare else []), *([] if alignment else [ALIGNMENT])})
            stated = {**(provenance or {}), "threads": threads}
            header = self._header(given, alignment or {}, stated, left, device)
            self._trace = Lines(self.directory / TRACE, self._first_lines(header, after))
            self._timing = (self.directory / TIMING).open("ab" if after else "wb", buffering=0)
            if not after:
                (self.directory / FIRST_GRADIENT).unlink(missing_ok=True)
            self._write_record(device, threads, after)
        self._rows = Lines(rows, kept_lines(rows, after) if after else b"")
        if parts is not None or (self._ranks > 1 and parameters is None):
            self._parts = PartsOfRank(self.directory, self._rank, self._ranks, parts, after)
        else:
            no_parts(self.directory, self._rank)
        self._taken, self._last = after, time.perf_counter()

    @guarded
    def micro_batch(self, tokens: Any, loss_mask: Any, rows: Sequence[int] | None = None) -> None:
        """A part of the batch of the next step: tokens [b, S+1] and loss mask [b, S], in order.

        `rows` are the numbers of these rows in the global batch; without them they follow the ones before, in one
        process, and of several ranks each has as many, in the order of the ranks.
        """
        self._pieces.append(micro_batch_of(tokens, loss_mask, rows))

    @guarded
    def step(
        self,
        *,
        loss: float,
        grad_norm: float | None = None,
        learning_rate: float,
        tokens: Any = None,
        loss_mask: Any = None,
        count: int | None = None,
    ) -> None:
        """After a step: its loss before the update, the norm before clipping, and the rate of this update.

        Args:
            loss: Of the global batch: a mean over its target tokens, not a mean over ranks or micro-batches.
            grad_norm: Of all gradients together; None if the trainer computes none.
            learning_rate: That of this step.
            tokens: The batch [B, S+1] that this process read, if `micro_batch` was not called.
            loss_mask: Which targets count [B, S]; None: all.
            count: The target tokens of the global batch; None: those of the rows that this process read.
        """
        if self._rows is None:
            raise RuntimeError("begin was not called")
        if tokens is not None:
            given = np.asarray(tokens)
            mask = np.ones((len(given), given.shape[1] - 1), np.uint8) if loss_mask is None else loss_mask
            self._pieces.append(micro_batch_of(given, mask))
        self._taken += 1
        pieces, self._pieces = self._pieces, []
        counted = self._write_rows(pieces)
        if self._trace is None:
            return
        line = step_line(
            step=self._taken,
            loss=float(loss),
            grad_norm=math.nan if grad_norm is None else float(grad_norm),
            learning_rate=float(learning_rate),
            tokens=int(counted if count is None else count),
            batch=batch_digest(pieces),
        )
        self._trace.append(line)
        self._note_time()

    @guarded
    def first_gradient(self, gradients: Named, parameters: Named | None = None) -> None:
        """Leaves sketches of the gradients of the first batch, by Hugging Face name, before clipping; on the reporting
        rank, before the first step is stated. With the initial `parameters`, also their part along them."""
        if self._trace is None:
            return
        weights, left = {str(name): tensor for name, tensor in _items(parameters)}, dict[str, Array]()
        for name, gradient in _items(gradients):
            full, initial = f"{GRADIENT}{name}", weights.get(str(name))
            left |= recorded(full, np.asarray(gradient), BUCKETS_OF_FIRST_GRADIENT, located=True, weights=initial)
        write_tensors(self.directory / FIRST_GRADIENT, left)

    @guarded
    def end(self, parameters: Named | None = None, *, parts: Parts | None = None) -> None:
        """After the last step: the run is finished. `parameters` are the final weights by Hugging Face name, or `parts`
        those parts of them that this rank holds."""
        if self._rows is None:
            raise RuntimeError("begin was not called")
        _check_one_of(parameters, parts)
        if self._parts is not None:
            self._parts.end(parts, self._taken)
        self._rows.close(_line({"last_step": self._taken, "lines": self._rows.digest}))
        if self._trace is not None:
            found = {str(name): digest_array(tensor) for name, tensor in _items(parameters)}
            last = {"last_step": self._taken, "lines": self._trace.digest, "parameters": found}
            gradient = self.directory / FIRST_GRADIENT
            self._trace.close(_line({**last, "kept": digest_file(gradient)} if gradient.is_file() else last))
        if self._timing is not None:
            self._timing.close()
        self._rows = self._trace = self._timing = self._parts = None

    def _header(
        self,
        initial: Mapping[str, str],
        alignment: Mapping[str, Any],
        provenance: Mapping[str, Any],
        left: Sequence[str],
        device: str,
    ) -> dict[str, Any]:
        return {
            "format": TRACE_FORMAT,
            "run": RUN,
            "side": "subject",
            "arm": self._arm,
            "case": "",
            "weights": digest_json(dict(initial)) if initial else "",
            "batches": "",
            "steps": self._steps,
            "runner": f"{PREFIX}{self._trainer}",
            "initial": dict(initial),
            "alignment": dict(alignment),
            "provenance": {
                **provenance,
                "ranks": self._ranks,
                PROVENANCE: {CODE: imported(), DEVICE: device, OMITTED: list(left), REPORTING: self._rank},
            },
        }

    def _first_lines(self, header: Mapping[str, Any], after: int) -> bytes:
        path = self.directory / TRACE
        if not after:
            if path.is_file() and b'"last_step"' in path.read_bytes().rstrip().rpartition(b"\n")[2]:
                raise InputError(f"{self.directory} holds a run that is finished. Collect into another directory.")
            return _line(header)
        kept = kept_lines(path, after + 1)  # with the header
        stated = json.loads(kept.partition(b"\n")[0])
        for key in ("run", "arm", "steps", "runner"):
            if stated.get(key) != header[key]:
                raise InputError(f"{path} is of another run: its {key} is {stated.get(key)!r}, not {header[key]!r}.")
        return kept

    def _write_record(self, device: str, threads: int, after: int) -> None:
        """When and where this run ran; what a resumed run stated before stays."""
        path = self.directory / RECORD
        before = json.loads(path.read_text(encoding="utf-8")) if after and path.is_file() else {}
        record = {
            "format": RECORD_FORMAT,
            "nonce": before.get("nonce") or os.urandom(32).hex(),
            "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "command": [as_text(word) for word in (Path(sys.argv[0]).name or "python", *sys.argv[1:])],
            "resumed_after": [*before.get("resumed_after", []), *([after] if after else [])],
            "environment": {
                "device": device,
                "python": platform.python_version(),
                "threads": threads,
                "machine": machine(),
                "packages": packages(),
                "variables": {name: as_text(os.environ[name]) for name in VARIABLES if name in os.environ},
            },
        }
        write_whole(path, _line(sealed(record)))

    def _write_rows(self, pieces: Sequence[MicroBatch]) -> int:
        """The digests of the rows of a step, by their number in the global batch; how many targets they have."""
        found: dict[int, str] = {}
        following = self._rank * sum(one.rows for one in pieces)
        for one in pieces:
            places = range(following, following + one.rows) if one.places is None else one.places
            following += one.rows
            found |= zip(map(int, places), one.digests(), strict=True)
        counted = sum(one.counted for one in pieces)
        assert self._rows is not None
        self._rows.append(rows_line(self._taken, found, counted))
        return counted

    def _note_time(self) -> None:
        now = time.perf_counter()
        assert self._timing is not None
        self._timing.write(b'{"step": %d, "seconds": %.6f}\n' % (self._taken, now - self._last))
        self._last = now


Method = TypeVar("Method", bound=Callable[..., None])


def harmless(method: Method) -> Method:
    """A method of a callback with a `collector` (None before the run begins), after whose error the collection is over,
    and the training goes on."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **named: Any) -> None:
        if self.collector is None or self.collector.failed is not None:
            return
        try:
            method(self, *args, **named)
        except Exception as error:  # whatever it is, a training of days must not end by it
            self.collector.fail(error)

    return cast(Method, call)


def _check_one_of(parameters: Named | None, parts: Parts | None) -> None:
    if parameters is not None and parts is not None:
        raise InputError("Weights are given whole or in parts, and not both: leave out parameters or parts.")


def _items(named: Named | None) -> Iterable[tuple[str, Array]]:
    if named is None:
        return ()
    return named.items() if isinstance(named, Mapping) else named


def _line(value: Mapping[str, Any]) -> bytes:
    return (canonical_json(value) + "\n").encode()
