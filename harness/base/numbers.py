"""Floating-point numbers in JSON, which cannot express the three that are not finite: they are written by name."""

import math
from collections.abc import Mapping
from typing import Any

NON_FINITE: Mapping[str, float] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_number(value: float) -> float | str:
    """A float for JSON: itself, or the name of the non-finite number."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def decode_number(value: Any) -> float:
    """Inverse of `encode_number`.

    Raises:
        ValueError: the value is neither a number nor the name of one.
    """
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    try:
        if type(value) in (int, float) and math.isfinite(number := float(value)):
            return number
    except OverflowError:
        pass
    raise ValueError(f"not a number: {value!r}")
