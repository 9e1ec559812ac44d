"""Elementary operators on fixed inputs: how far a framework's results on a device are from the exact ones.

A model can be written rightly and still be inexact, because an operator of its device is. On a CPU, MindSpore's `exp`
is a fast approximation that is a millionth too small on average; everything that sums its results inherits that.

The inputs are the same bits on every machine. An error is relative: to the exact result, or for a sum of products to
the sum of their sizes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.runs.drawing import normal

Array = npt.NDArray[Any]
Operator = Callable[..., Array]
LENGTH, ROWS, WIDTH = 1 << 14, 64, 256
MEASURED = ("bias", "error", "largest")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The inputs of an operator, its exact result in float64, and the size that an error is relative to."""

    inputs: Callable[[], tuple[Array, ...]]
    exact: Callable[..., Array]
    size: Callable[..., Array] | None = None


def _logits() -> tuple[Array, ...]:
    return (normal("operators/logits", (ROWS, WIDTH), 2.0),)


def _positive() -> tuple[Array, ...]:
    return (np.abs(normal("operators/positive", (LENGTH,), 1.0)) + np.float32(1e-3),)


def _wide() -> tuple[Array, ...]:
    return (normal("operators/wide", (LENGTH,), 4.0),)


def _rows() -> tuple[Array, ...]:
    return (np.abs(normal("operators/rows", (ROWS, LENGTH // ROWS), 1.0)),)


def _matrices() -> tuple[Array, ...]:
    return normal("operators/left", (ROWS, WIDTH), 1.0), normal("operators/right", (WIDTH, ROWS), 1.0)


def _log_sum(x: Array) -> Array:
    top = x.max(-1, keepdims=True)
    summed: Array = top + np.log(np.exp(x - top).sum(-1, keepdims=True))
    return summed


PROBES: Mapping[str, Probe] = {
    "exp": Probe(inputs=_wide, exact=np.exp),
    "log": Probe(inputs=_positive, exact=np.log, size=lambda x: np.maximum(np.abs(np.log(x)), 1.0)),
    "rsqrt": Probe(inputs=_positive, exact=lambda x: 1.0 / np.sqrt(x)),
    "sigmoid": Probe(inputs=_wide, exact=lambda x: 1.0 / (1.0 + np.exp(-x))),
    "softmax": Probe(inputs=_logits, exact=lambda x: np.exp(x - _log_sum(x))),
    "log_softmax": Probe(inputs=_logits, exact=lambda x: x - _log_sum(x)),
    "logsumexp": Probe(inputs=_logits, exact=lambda x: _log_sum(x)[..., 0]),
    "sum": Probe(inputs=_rows, exact=lambda x: x.sum(-1)),
    "mean": Probe(inputs=_rows, exact=lambda x: x.mean(-1)),
    "matmul": Probe(inputs=_matrices, exact=np.matmul, size=lambda a, b: np.abs(a) @ np.abs(b)),
}


def probed(operator: Operator, name: str) -> npt.NDArray[np.float64]:
    """The mean signed error of an operator, the root mean square of its errors, and the largest, float64 [3]."""
    probe = PROBES[name]
    inputs = probe.inputs()
    wide = [one.astype(np.float64) for one in inputs]
    exact = probe.exact(*wide)
    size = np.abs(exact) if probe.size is None else probe.size(*wide)
    errors = (np.asarray(operator(*inputs)).astype(np.float64).reshape(exact.shape) - exact) / size
    return np.array([errors.mean(), np.sqrt(np.square(errors).mean()), np.abs(errors).max()])
