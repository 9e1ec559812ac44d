"""The iteration lines of Megatron-LM: `iteration 10/ 100 | ... | lm loss: 2.504220E+00 | grad norm: 0.231 |`.

The loss is the mean of the iterations since the previous line, without skipped ones; the grad norm is that of the last
iteration. Source: Megatron-LM, `training_log` in megatron/training/training.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.logs import Printed
from harness.logs.entries import Entry, Stream
from harness.logs.printed import printed
from harness.logs.text import read_streams

STEP = re.compile(r"\biteration\s+(?P<step>\d+)/\s*(?P<total>\d+)\s*\|")
LOOKS_LIKE = re.compile(r"\biteration\s+\d+\s*/.*\|.*:|\|\s*lm loss:")
KEYS = {"lm loss": "loss", "grad norm": "grad_norm", "learning rate": "learning_rate"}
COUNTS = {
    "number of skipped iterations": "Skipped iterations, which are not in the loss, were reported",
    "number of nan iterations": "A loss or gradient that is not finite was reported",
}


def read(paths: Sequence[Path]) -> list[Stream]:
    """The steps of each rank; usually only the last rank prints them."""
    return read_streams(paths, parse)


def parse(line: str, where: str) -> Entry | str | None:
    """The step in a line; None for a line without one; the line itself if it looks like a step but cannot be read."""
    if not LOOKS_LIKE.search(line):
        return None
    begin = STEP.search(line)
    if not begin:
        return line
    fields = {key.strip(): value.strip() for key, _, value in (part.partition(":") for part in line.split("|"))}
    if not {"consumed samples", "learning rate", "lm loss"} & set(fields):
        return None  # an evaluation or timers
    numbers = dict[str, Printed]()
    for key, name in KEYS.items():
        if key in fields:
            number = printed(fields[key])
            if number is None:
                return line
            numbers[name] = number
    remarks = tuple(text for key, text in COUNTS.items() if fields.get(key, "0") not in ("0", ""))
    step = int(begin["step"])
    if step < 1:
        return line
    return Entry(step=step, total=int(begin["total"]), where=where, numbers=numbers, over=None, remarks=remarks)
