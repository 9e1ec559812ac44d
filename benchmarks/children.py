"""The subjects of a benchmark that are timed in turns: each is a child process that takes requests over pipes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def hold(threads: int) -> None:
    """Holds this process to as many cores as it has threads, before it imports a framework.

    MindSpore keeps more threads busy than it is given; unbound, it would have more of the machine than the other side.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Child:
    """A benchmark's own file, started again with `--worker NAME`. It prints one line of JSON when it is ready, then one
    for each request, which is a line of its input."""

    def __init__(self, file: str, worker: str, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self.worker = worker
        self.process = subprocess.Popen(
            [sys.executable, file, "--worker", worker, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        )

    def request(self, line: str) -> dict[str, Any]:
        """The child's response to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.response()

    def response(self) -> dict[str, Any]:
        """The next line of JSON; a child that died is an error with its exit status."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                response: dict[str, Any] = json.loads(line)
                return response
        raise SystemExit(f"the {self.worker} child ended with status {self.process.wait()}")

    def close(self) -> None:
        """Ends the child by closing its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
