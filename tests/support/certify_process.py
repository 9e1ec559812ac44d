"""The command line in a process of its own, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.examples import ROOT


def start_certify(*words: object, inside: Path | None = None, **variables: str) -> "subprocess.Popen[str]":
    """`certify WORDS...` begun in a directory, with more variables; what it prints comes by two pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *map(str, words)],
        cwd=inside,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def certify(*words: object, inside: Path | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
    """`certify WORDS...` to its end."""
    with start_certify(*words, inside=inside, **variables) as process:
        out, said = process.communicate(timeout=1200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, said)
