"""What the digits of a printed number say: its value, and how far the computed one may be from it."""

import math
import re
import sys

from harness.comparison.distance import HALF_ULP
from harness.logs import Printed

NUMBER = re.compile(r"[+-]?(?:\d+\.?(?P<behind>\d*)|\.(?P<bare>\d+))(?:[eE](?P<exponent>[+-]?\d{1,3}))?", re.ASCII)
NAMED = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
NUMPY_DECIMALS = 8  # NumPy prints no more behind the point, and fewer only where they give the value back


def printed(text: str, *, by_numpy: bool = False) -> Printed | None:
    """A printed number, to half a unit of its last digit; None for what is none.

    `by_numpy`: a float32 as NumPy prints it, which leaves away the digits that are not needed to give it back.
    """
    text = text.strip().strip("[]").strip()
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
    """A number of which a float32 was kept."""
    return Printed(value, abs(value) * HALF_ULP if math.isfinite(value) else 0.0)
