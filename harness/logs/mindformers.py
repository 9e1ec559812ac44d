"""The step lines of MindSpore Transformers: `worker_N.log` and the console.

1.x: `{ Epoch:[  1/  2], step:[    1/   19], loss: 10.649, ..., lr: 0.0, ..., global_norm: [1.31], ...`, where steps
count within an epoch and `loss:[value/mean]` is printed without sinking; 2.x: `{ step:[    1/   10], loss:  11.813965,
..., lr: 1.000000e-05, grad_norm:  13.831877, ... }`. A stage that does not have the loss prints 0, or `N/A`.
Source: mindformers 1.9.0, `MFLossMonitor.print_output_info`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.logs import Printed
from harness.logs.entries import Entry, Stream
from harness.logs.printed import printed
from harness.logs.text import read_streams

STEP = re.compile(
    r"\{\s*(?:Epoch:\[\s*(?P<epoch>\d+)/\s*(?P<epochs>\d+)\],\s*)?step:\[\s*(?P<step>\d+)/\s*(?P<of>\d+)\],"
)
LOOKS_LIKE = re.compile(r"\bstep:\[")
FIELD = re.compile(r"(?P<key>[A-Za-z_][A-Za-z_ ]*):\s*(?P<value>\[[^\]]*\]|\([^)]*\)|[^,}]*)")
NOT_HERE = "N/A"
OVERFLOW = "An overflow was reported"


def read(paths: Sequence[Path]) -> list[Stream]:
    """The steps of each rank."""
    return read_streams(paths, parse)


def parse(line: str, where: str) -> Entry | str | None:
    """The step in a line; None for a line without one; the line itself if it looks like a step but cannot be read."""
    if not LOOKS_LIKE.search(line):
        return None
    begin = STEP.search(line)
    if not begin:
        return line
    step, of = int(begin["step"]), int(begin["of"])
    total = of * int(begin["epochs"] or 1)
    if begin["epoch"]:
        step += (int(begin["epoch"]) - 1) * of
    fields = {found["key"].strip(): found["value"].strip() for found in FIELD.finditer(line, begin.end())}
    if "loss" not in fields or step < 1:
        return line
    numbers = dict[str, Printed]()
    elsewhere = fields["loss"].startswith(NOT_HERE)
    if not elsewhere:
        loss = printed(fields["loss"].strip("[]").split("/")[0])
        if loss is None:
            return line
        numbers["loss"] = loss
    # 1.x logs NumPy arrays, 2.x prints a fixed number of digits
    for name, keys in (("learning_rate", {"lr": True}), ("grad_norm", {"global_norm": True, "grad_norm": False})):
        for key, by_numpy in keys.items():
            by_numpy = by_numpy and bool(begin["epoch"])
            if key in fields and (number := printed(fields[key], by_numpy=by_numpy)):
                numbers[name] = number
    remarks = (OVERFLOW,) if fields.get("overflow cond", fields.get("overflow", "")).strip("[]") == "True" else ()
    return Entry(step=step, total=total, where=where, numbers=numbers, elsewhere=elsewhere, remarks=remarks)
