"""Tensors of a model, copied one at a time."""

import numpy as np
import pytest

from harness.runners.protocol import Copies


def test_a_tensor_is_copied_when_it_is_asked_for_and_not_before() -> None:
    asked: list[str] = []

    def copy(name: str) -> np.ndarray:
        asked.append(name)
        return np.zeros(3)

    tensors = Copies(("first", "second"), copy)
    assert list(tensors) == ["first", "second"] and len(tensors) == 2 and "second" in tensors and asked == ["second"]
    asked.clear()
    walked = iter(tensors.items())
    assert next(walked)[0] == "first" and asked == ["first"]


def test_a_name_that_the_model_does_not_have_is_missing() -> None:
    with pytest.raises(KeyError, match="third"):
        Copies(("first",), lambda name: np.zeros(3))["third"]
