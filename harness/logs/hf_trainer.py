"""`trainer_state.json` of Hugging Face's Trainer: `log_history`, `max_steps`.

The loss is the mean of the steps since it was last logged. The Trainer rounds it to four decimals and omits trailing
zeros, so losses with at most four decimals throughout a file are taken as rounded. Grad norm and learning rate are
written with every bit. Numbers that another writer stored as text have the resolution of their digits.
Source: transformers 4.57.1, `Trainer._maybe_log_save_evaluate`.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import InputError
from harness.base.foreign_json import parse_foreign
from harness.base.records import read_bytes
from harness.logs import Printed
from harness.logs.entries import Entry, Stream
from harness.logs.printed import COUNT, printed
from harness.logs.text import distinct_names
from harness.runs.trace import EXACT

ROUNDED_DECIMALS = 4
ROUNDED = 0.5 * 10.0**-ROUNDED_DECIMALS
LARGEST = 1 << 30  # bytes of a file
TEXT = "Numbers are text in the file and have the resolution of their digits"
KEYS = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate"}


def read(paths: Sequence[Path]) -> list[Stream]:
    """The steps of each file."""
    return [_stream(path, name) for path, name in zip(paths, distinct_names(paths), strict=True)]


def _stream(path: Path, name: str) -> Stream:
    try:
        state = parse_foreign(read_bytes(path, LARGEST))
        history = state["log_history"]
        stated = state.get("max_steps")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a trainer_state.json: not JSON: {error}.") from None
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not a trainer_state.json: without log_history.") from None
    total = _step(stated)
    if not isinstance(history, list) or (total is None and stated not in (None, 0, -1)):
        raise InputError(f"{path} is not a trainer_state.json: log_history is not a list, or max_steps not a number.")
    stream = Stream(name=name)
    losses: list[Any] = [one.get("loss") for one in history if isinstance(one, dict)]
    rounded = all(round(loss, ROUNDED_DECIMALS) == loss for loss in losses if _number(loss) and math.isfinite(loss))
    for index, one in enumerate(history):
        if not isinstance(one, dict) or "loss" not in one:
            continue  # an evaluation, or the summary at the end
        where = f"{name}, log_history[{index}]"
        read = {KEYS[key]: _read(one[key]) for key in KEYS if key in one}
        numbers = {named: number for named, number in read.items() if number is not None}
        step = _step(one.get("step"))
        if "loss" not in numbers or step is None:
            stream.unreadable.append(where)
            continue
        if rounded and _number(one["loss"]):
            numbers["loss"] = Printed(numbers["loss"].value, ROUNDED)
        text = any(isinstance(one.get(key), str) for key in KEYS)
        stream.entries.append(
            Entry(
                step=step,
                total=total,
                where=where,
                numbers=numbers,
                over=None,
                remarks=(TEXT,) if text else (),
                problems=tuple(
                    f"{KEYS[key]}: {one[key]!r:.60} at {where} cannot be read"
                    for key in KEYS
                    if key in one and KEYS[key] not in numbers
                ),
            )
        )
    return stream


def _read(value: Any) -> Printed | None:
    """A number, with the resolution of its digits if it is text; None for anything else."""
    if isinstance(value, str):
        return printed(value)
    return Printed(float(value)) if _number(value) else None


def _step(value: Any) -> int | None:
    """A whole number from 1, also as text or as 10.0; None for anything else."""
    number = int(value) if isinstance(value, str) and re.fullmatch(COUNT, value, re.ASCII) else value
    if type(number) is float and number.is_integer():
        number = int(number)
    return number if _whole(number) else None


def _number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < EXACT)


def _whole(value: Any) -> bool:
    return type(value) is int and 1 <= value < EXACT
