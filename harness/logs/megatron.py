"""The iteration lines of Megatron-LM: `iteration 10/ 100 | ... | lm loss: 2.504220E+00 | grad norm: 0.231 |`.

The loss is the mean of the iterations since the previous line, without skipped ones; the grad norm is that of the last
iteration. Source: Megatron-LM, `training_log` in megatron/training/training.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.logs import Printed
from harness.logs.entries import Entry, Stream
from harness.logs.printed import COUNT, printed
from harness.logs.text import read_streams

STEP = re.compile(rf"\biteration\s+(?P<step>{COUNT})/\s*(?P<total>{COUNT})\s*\|")
LOOKS_LIKE = re.compile(r"\biteration\s+\d+\s*/.*\|.*:|\|\s*lm loss:")
COMPLETE = re.compile(r"number of nan iterations:\s*\d+\s*\|\s*$")  # the last field
NO_LOSS = "loss: not printed"
LOSS, SHORT = "lm loss", "loss"  # programs built on Megatron-LM print the second name
KEYS = {LOSS: "loss", "grad norm": "grad_norm", "learning rate": "learning_rate"}
SCALE, SKIPPED = "loss scale", "number of skipped iterations"
COUNTS = {
    SKIPPED: "Skipped iterations, which are not in the loss, were reported",
    "number of nan iterations": "A loss or gradient that is not finite was reported",
}


def read(paths: Sequence[Path]) -> list[Stream]:
    """The steps of each rank; usually only the last rank prints them."""
    return read_streams(paths, parse, STEP)


def parse(line: str, where: str) -> Entry | str | None:
    """The step in a line; None for a line without one; the line itself if it looks like a step but cannot be read."""
    if not LOOKS_LIKE.search(line):
        return None
    begin = STEP.search(line)
    if not begin:
        return line
    *parts, end = line.split("|")
    fields = {key.strip(): value.strip() for key, _, value in (part.partition(":") for part in parts)}
    if not {"consumed samples", "learning rate", LOSS} & set(fields):
        return None  # an evaluation or timers
    # every field ends with a bar, so what follows the last one is cut
    if any(key in end for key in (*KEYS, *COUNTS)) or not (line.endswith("\n") or COMPLETE.search(line)):
        return line
    if LOSS not in fields and SHORT in fields:
        fields[LOSS] = fields[SHORT]
    numbers, problems = dict[str, Printed](), list[str]()
    for key, name in KEYS.items():
        if key not in fields:
            continue
        if number := printed(fields[key]):
            numbers[name] = number
        elif name == "loss":
            return line
        else:
            problems.append(f"{name}: {fields[key]!r} at {where} cannot be read")
    remarks = [text for key, text in COUNTS.items() if fields.get(key, "0") not in ("0", "")]
    if "loss" not in numbers:
        remarks.append(NO_LOSS)
        problems += [f"loss: {one!r} at {where} is another loss" for one in fields if "loss" in one and one != SCALE]
    if SKIPPED not in fields:
        remarks.append(f"The line ends before '{SKIPPED}', so skipped iterations are not known,")
    step = int(begin["step"])
    if step < 1:
        return line
    return Entry(
        step=step,
        total=int(begin["total"]) or None,
        where=where,
        numbers=numbers,
        over=None,
        remarks=tuple(remarks),
        problems=tuple(problems),
    )
