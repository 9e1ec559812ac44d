"""Digests: the same content gives the same digest, any other content another."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.base.digest import CHUNK_BYTES, canonical_json, digest_array, digest_bytes, digest_file, digest_tensors

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ARRAYS = arrays.arrays(dtype=st.sampled_from([np.float32, np.int32]), shape=arrays.array_shapes(max_dims=3, max_side=4))


@given(VALUES)
def test_canonical_json_reads_back(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2, max_size=5))
def test_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_a_number_is_not_json(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"x": value})


@given(ARRAYS)
def test_layout_and_byte_order_do_not_matter(array: np.ndarray) -> None:
    wanted = digest_array(array)
    assert digest_array(np.asfortranarray(array)) == wanted
    assert digest_array(array.astype(array.dtype.newbyteorder(">"))) == wanted


@given(ARRAYS, st.data())
def test_any_other_bit_is_another_digest(array: np.ndarray, data: st.DataObject) -> None:
    raw = bytearray(array.tobytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = np.frombuffer(bytes(raw), dtype=array.dtype).reshape(array.shape)
    assert digest_array(other) != digest_array(array)


def test_shape_dtype_order_and_sign_of_zero_matter() -> None:
    base = np.arange(6, dtype=np.int32)
    others = [base.reshape(2, 3), base.reshape(3, 2), base.astype(np.float32), base[::-1], base.view(np.float32)]
    digests = {digest_array(array) for array in [base, *others]}
    assert len(digests) == 6
    assert digest_array(np.array([0.0])) != digest_array(np.array([-0.0]))


def test_names_of_tensors_matter_and_their_order_does_not() -> None:
    one, two = np.ones(2), np.zeros(2)
    assert digest_tensors({"a": one, "b": two}) == digest_tensors({"b": two, "a": one})
    assert digest_tensors({"a": one, "b": two}) != digest_tensors({"a": two, "b": one})
    assert digest_tensors({"a": one}) != digest_tensors({"a": one, "b": two})


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert digest_file(path) == digest_bytes(b"x" * size)


def test_the_digest_is_sha_256() -> None:
    assert digest_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
