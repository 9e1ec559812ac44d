"""What the collector is given of a MindSpore model whose parameters have Hugging Face's names: copies of them."""

from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def arrays(cell: ms.nn.Cell) -> Iterator[tuple[str, Array]]:
    """Copies of the trainable parameters by name, one at a time; bfloat16 and float16 widened, which is exact."""
    for parameter in cell.trainable_params():
        yield parameter.name, as_array(parameter)


def as_array(tensor: ms.Tensor) -> Array:
    """A copy on the host."""
    held = tensor.astype(ms.float32) if tensor.dtype in (ms.bfloat16, ms.float16) else tensor
    return np.array(held.asnumpy())


def number(value: Any) -> float | None:
    """A Python float from what a training graph returned: a tensor of one element, a number, or nothing."""
    if value is None:
        return None
    array = np.asarray(value.asnumpy() if isinstance(value, ms.Tensor) else value, np.float64)
    return float(array.reshape(-1)[0]) if array.size == 1 else None
