"""The time of each step of a run, as its worker wrote it.

Nothing is judged by it but whether a run is a run of its own: no two runs take the same microseconds in their steps.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from harness.base.records import read_bytes

KINDS = ("seconds", "compile_seconds", "peak_mib")
LARGEST_STEP = 1 << 53


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The seconds of each step with its number, those of each time that the steps were compiled, and the most memory
    of the process in MiB. A step that was taken again after a resumption is there twice."""

    steps: tuple[tuple[int, float], ...] = ()
    compiling: tuple[float, ...] = ()
    peak: float | None = None

    @property
    def total(self) -> float:
        """The seconds of all that it holds."""
        return math.fsum([*(seconds for _, seconds in self.steps), *self.compiling])


def read_timing(path: Path) -> Timing:
    """The times in a file. Empty where there is none, or if any line cannot be read, because a part of the list would
    give a wrong total."""
    if not path.is_file():
        return Timing()
    found: dict[str, list[tuple[int, float]]] = {kind: [] for kind in KINDS}
    for line in read_bytes(path).splitlines():
        try:
            read = _line(json.loads(line))
        except (ValueError, RecursionError):  # a surrogate or a byte that is not UTF-8 is a ValueError too
            read = None
        if read is None:
            return Timing()
        kind, step, value = read
        found[kind].append((step, value))
    compiling, peaks = ([value for _, value in found[kind]] for kind in KINDS[1:])
    return Timing(steps=tuple(found["seconds"]), compiling=tuple(compiling), peak=max(peaks, default=None))


def _line(content: object) -> tuple[str, int, float] | None:
    """Kind, step and number of a line; a line without a step has the step 0."""
    if not isinstance(content, dict):
        return None
    kind = next((name for name in KINDS if type(content.get(name)) in (int, float)), None)
    if kind is None:
        return None
    step, value = content.get("step", 0), content[kind]
    if type(step) is not int or not 0 <= step < LARGEST_STEP or not 0 <= value < LARGEST_STEP:
        return None
    return kind, step, float(value)
