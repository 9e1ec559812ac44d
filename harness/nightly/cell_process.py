"""The process of a cell: its command, its end within a time limit, and why it left no bundle."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.evidence.bundle_files import INPUTS, MANIFEST
from harness.nightly.history import BUNDLE
from harness.nightly.matrix import Cell
from harness.runners.processes import end_with_parent, log_error, own_code

LOG = "log.txt"
INTERRUPT_SECONDS = 30.0


def pythons_of(cell: Cell, base: Path) -> dict[str, Any]:
    """The interpreters that a cell names, as options of a run."""
    named = {"subject_python": cell.subject_python, "reference_python": cell.reference_python}
    return {option: Path(os.path.normpath(base / path)) for option, path in named.items() if path}


def of_both(python: Path) -> dict[str, Path]:
    """One interpreter for both sides, as options of a run."""
    return {"subject_python": python, "reference_python": python}


def command_of(cell: Cell, case: str, directory: Path, base: Path, pythons: Mapping[str, Path]) -> list[str]:
    """The command that runs a cell whose case is given by name or file, and leaves its bundle in a directory; it goes
    on with what is there."""
    out = directory / BUNDLE
    words = [sys.executable, "-m", "harness.cli", "run", case, "--device", cell.device, "--out", str(out)]
    if (out / INPUTS).is_file() and not (out / MANIFEST).exists():
        words.append("--resume")
    elif out.exists():  # killed before there was anything to resume
        shutil.rmtree(out)
    if cell.baseline:
        words += ["--baseline", str(base / cell.baseline)]
    if cell.protection != "auto":
        words += ["--protection", cell.protection]
    for option, path in pythons.items():
        words += [f"--{option.replace('_', '-')}", str(path)]
    for side in ("subject", "reference", "oracle"):
        if runner := getattr(cell, side):
            words += [f"--{side}", runner]
    return words


def carry_out(command: Sequence[str], log: Path, limit: float, code: Mapping[str, str] | None = None) -> int | None:
    """Runs a command with its output in a file; returns its exit code, or None if it did not finish in time. `code`:
    the variables by which it imports other code than that of this process."""
    parent, variables = os.getpid(), {**os.environ, **(code or own_code())}
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=variables,
            preexec_fn=lambda: end_with_parent(parent),
        )  # fmt: skip
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def left_no_bundle(code: int | None, directory: Path, limit: float) -> str:
    """Why a command that ended with a code left no bundle in a directory; empty if it left one. None is no code: it was
    stopped."""
    if code is None:
        return f"not finished within its limit of {limit / 60:g} min; stopped"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    if (directory / BUNDLE / MANIFEST).is_file():
        return ""
    error = log_error(directory / LOG).strip().splitlines()
    return error[-1] if error else f"exit code {code}, without a message"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Interrupts a run, so that it ends its own processes; kills it if it does not end."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
