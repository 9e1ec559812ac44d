"""The step lines of MindSpore Transformers: `worker_N.log` and the console.

1.x: `{ Epoch:[  1/  2], step:[    1/   19], loss: 10.649, ..., lr: 0.0, ..., global_norm: [1.31], ...`, where steps
count within an epoch and `loss:[value/mean]` is printed without sinking; 2.x: `{ step:[    1/   10], loss:  11.813965,
..., lr: 1.000000e-05, grad_norm:  13.831877, ... }`. A stage that does not have the loss prints 0, or `N/A`. 2.x prints
`NaN` where it did not compute a norm, and `nan` for a norm that is not a number.
Source: mindformers 1.9.0, `MFLossMonitor.print_output_info`; `pynative/callback/loss_callback.py`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from harness.logs import Printed
from harness.logs.entries import Aside, Entry, Stream
from harness.logs.printed import COUNT, printed
from harness.logs.text import read_streams

STEP = re.compile(
    rf"\{{\s*(?:Epoch:\[\s*(?P<epoch>{COUNT})/\s*(?P<epochs>{COUNT})\],\s*)?"
    rf"step:\[\s*(?P<step>{COUNT})/\s*(?P<of>{COUNT})\],"
)
LOOKS_LIKE = re.compile(r"\bstep:\[")
# some versions forget the colon before a list
FIELD = re.compile(
    r"(?P<key>[A-Za-z_][A-Za-z_ ]*?)(?::\s*|\s+(?=\[))"
    r"(?P<value>\[(?:[^\[\]]|\[[^\]]*\])*\]|\([^)]*\)|(?:[^,}\n]|,(?!\s))*)(?P<after>,|\s*\}|)"
)
NUMBERS = {"learning_rate": ("lr",), "grad_norm": ("global_norm", "grad_norm")}
BY_NUMPY = {"lr", "global_norm"}  # 1.x logs NumPy arrays, 2.x prints a fixed number of digits
NOT_HERE = ("N/A", "None")
NOT_COMPUTED = "NaN"
COMPLETE = re.compile(r"(?:[\]}]|\dT)\s*$")  # how a line of a step ends
OVERFLOW = "An overflow was reported"
NO_NORM = "grad_norm: not computed, NaN is printed for it"
SKIPPED = re.compile(r"\bis_skip:\s*\[?\s*True\b")
SKIP = "The update was skipped for its grad norm"


def read(paths: Sequence[Path]) -> list[Stream]:
    """The steps of each rank."""
    return read_streams(paths, parse, STEP)


def parse(line: str, where: str) -> Entry | Aside | str | None:
    """The step in a line; None for a line without one; the line itself if it looks like a step but cannot be read."""
    if not LOOKS_LIKE.search(line):
        return Aside(SKIP) if SKIPPED.search(line) else None
    begin = STEP.search(line)
    if not begin or not (line.endswith("\n") or COMPLETE.search(line)):
        return line
    step, of = int(begin["step"]), int(begin["of"])
    total = of * int(begin["epochs"] or 1)
    if begin["epoch"]:
        step += (int(begin["epoch"]) - 1) * of
    found = {one["key"].strip(): one for one in FIELD.finditer(line, begin.end())}
    fields = {key: one["value"].strip() for key, one in found.items()}
    # other fields follow the loss in every version: a line that ends with it was cut
    if "loss" not in fields or step < 1 or not found["loss"]["after"]:
        return line
    numbers, problems, remarks, events = dict[str, Printed](), list[str](), list[str](), list[str]()
    elsewhere = fields["loss"].startswith(NOT_HERE)
    if not elsewhere:
        loss = printed(fields["loss"].removeprefix("[").removesuffix("]").split("/")[0])
        if loss is None:
            return line
        numbers["loss"] = loss
        elsewhere = loss.value == 0  # a stage that does not have it
    for name, keys in NUMBERS.items():
        key = next((key for key in keys if key in fields), None)
        if key is None:
            if named := _named(line[begin.end() :], keys):
                problems.append(f"{name}: {named!r} at {where} cannot be read")
        elif fields[key] == NOT_COMPUTED and not begin["epoch"]:
            remarks.append(NO_NORM)
        elif number := printed(fields[key], by_numpy=key in BY_NUMPY and bool(begin["epoch"])):
            numbers[name] = number
        elif not fields[key].startswith(NOT_HERE):
            problems.append(f"{name}: {fields[key]!r} at {where} cannot be read")
    if fields.get("overflow cond", fields.get("overflow", "")).strip("[] ") == "True":
        events.append(OVERFLOW)
    return Entry(
        step=step,
        total=total or None,
        where=where,
        numbers=numbers,
        elsewhere=elsewhere,
        remarks=tuple(remarks),
        events=tuple(events),
        problems=tuple(problems),
    )


def _named(text: str, keys: Sequence[str]) -> str | None:
    """The text after one of the keys, where it stands in another form than a field."""
    found = re.search(rf"\b(?:{'|'.join(keys)})\b[^,}}\n]*", text)
    return found[0].strip() if found else None
