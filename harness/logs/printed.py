"""A printed number: its value, and how far the computed number may be from it."""

import math
import re
import sys

from harness.comparison.distance import HALF_ULP
from harness.logs import Printed

NUMBER = re.compile(r"[+-]?(?:\d+\.?(?P<behind>\d*)|\.(?P<bare>\d+))(?:[eE](?P<exponent>[+-]?\d{1,3}))?", re.ASCII)
# How NumPy 2 prints a number of its own inside of a list
WRAPPED = re.compile(r"np\.(?:float\d+|bfloat16)\((?P<inner>[^()]*)\)")
NAMED = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
COUNT = r"\d{1,12}"  # a number of steps; what has more digits is none
NUMPY_DECIMALS = 8  # NumPy prints at most 8 decimals, and fewer only where they identify the value


def printed(text: str, *, by_numpy: bool = False) -> Printed | None:
    """A printed number, to half a unit of its last digit; None if the text is not a number.

    `by_numpy`: a float32 as NumPy prints it, without the digits that are not needed to identify it.
    """
    text = text.strip()
    while text.startswith("[") and text.endswith("]"):
        text = text[1:-1].strip()
    if wrapped := WRAPPED.fullmatch(text):
        text = wrapped["inner"].strip()
    named = NAMED.get(text.lower().lstrip("+-"))
    if named is not None:
        return Printed(-named if text.startswith("-") else named)
    found = NUMBER.fullmatch(text)
    if not found or not math.isfinite(value := float(text)):
        return None
    decimals = len(found["behind"] or found["bare"] or "")
    if by_numpy and decimals < NUMPY_DECIMALS:
        return float32(value)
    unit = 10.0 ** (int(found["exponent"] or 0) - decimals)
    return Printed(value, max(unit / 2, sys.float_info.min))


def float32(value: float) -> Printed:
    """A number that was stored as float32."""
    return Printed(value, abs(value) * HALF_ULP if math.isfinite(value) else 0.0)
