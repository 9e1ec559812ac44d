"""The parts of the weights that one rank of several holds, stated by their digests in a file of its own.

One line for each part, written before the next tensor is read, so that nothing here grows with a model. The first line
states the rank and a random number, the last one the digest of all lines before it.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.base.digest import canonical_json, digest_array
from harness.base.errors import InputError
from harness.collect.files import Lines
from harness.runs.collected import FINAL_PARTS, INITIAL_PARTS, PARTS, PARTS_FORMAT
from qwen3_model.parallel_config import Part

# Of one rank: the Hugging Face name of a tensor, which part of it this is, and the part.
Parts = Iterable[tuple[str, Part, npt.NDArray[Any]]]


class PartsOfRank:
    """The file of one rank.

    Args:
        directory: Of the run.
        rank: The number of this process.
        ranks: How many processes make the run together.
        initial: The parts that it holds before the first step; None: they are not collected.
        after: The last step before this process, if the run is resumed: what was stated of the initial weights stays.
    """

    def __init__(self, directory: Path, rank: int, ranks: int, initial: Parts | None, after: int) -> None:
        path = directory / PARTS / f"{rank}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _initial_lines(path) if after else b""
        stated = initial is not None and not after
        head = {"format": PARTS_FORMAT, "nonce": os.urandom(32).hex(), "rank": rank, "ranks": ranks}
        self._lines = Lines(path, before or _line({**head, INITIAL_PARTS: stated}))
        if stated:
            self._state(INITIAL_PARTS, initial)

    def end(self, final: Parts | None, last_step: int) -> None:
        """The parts after the last step; None: they are not collected."""
        self._state(FINAL_PARTS, final)
        last = {"last_step": last_step, FINAL_PARTS: final is not None, "lines": self._lines.digest}
        self._lines.close(_line(last))

    def _state(self, when: str, parts: Parts | None) -> None:
        for name, part, array in parts or ():
            one = _normal(str(name), part)
            place = {"axis": one.axis, "index": one.index, "of": one.of}
            self._lines.append(_line({"when": when, "name": str(name), "digest": digest_array(array), **place}))


def no_parts(directory: Path, rank: int) -> None:
    """Removes what an earlier run, which was not finished, left of this rank's parts."""
    (directory / PARTS / f"{rank}.jsonl").unlink(missing_ok=True)


def _normal(name: str, part: Part) -> Part:
    if part.axis < 0 or not 0 <= part.index < part.of:
        raise InputError(f"{name}: there is no part {part.index} of {part.of} along axis {part.axis}.")
    return part if part.of > 1 else Part()


def _initial_lines(path: Path) -> bytes:
    """The first line of a file, and those that state initial parts; nothing if there is no such file."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    kept = [line for place, line in enumerate(lines) if not place or json.loads(line).get("when") == INITIAL_PARTS]
    return b"".join(line + b"\n" for line in kept)


def _line(value: dict[str, Any]) -> bytes:
    return (canonical_json(value) + "\n").encode()
