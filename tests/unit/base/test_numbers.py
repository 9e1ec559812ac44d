"""Numbers in JSON: every float survives its encoding, and nothing else is read as a number."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.numbers import decode_number, encode_number


@given(st.floats(allow_nan=True, allow_infinity=True, width=64))
def test_every_float_survives_its_encoding(value: float) -> None:
    read = decode_number(json.loads(json.dumps(encode_number(value), allow_nan=False)))
    assert (math.isnan(value) and math.isnan(read)) or (read.hex() == value.hex())


@pytest.mark.parametrize("value", ["nan", "inf", "", None, True, [], {}, math.nan, math.inf, 10**400, "1.0"])
def test_what_is_not_a_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a number"):
        decode_number(value)
