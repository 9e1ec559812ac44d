"""The model's operators whose derivatives are written out, because the framework's own are slower or less exact.

Each cell computes the operator in its name and has a `bprop` with the derivative. With recompute, MindSpore counts the
operators of a `bprop` as part of the forward pass, so it frees less memory there.
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

GROUP = 64  # rows that are summed in the first round; a power of two
TRANSPOSED = 1 << 18  # elements up to which a transpose is quicker than taking rows


def on_cpu() -> bool:
    """Whether cells are built for the CPU: emulated bfloat16, the plain attention, and operands of one shape."""
    return str(ms.get_context("device_target")) == "CPU"


class Spread(nn.Cell):
    """A smaller operand as one of the shape of another: each of its axes is as long, or is 1 or missing.

    An operator that broadcasts on a CPU takes two to four times as long, and keeps an index of 16 bytes for each
    element of its result as long as the graph lives: 1.2 GB for 512 rows of the published vocabulary (MindSpore 2.9.0).
    Other devices broadcast by themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.explicit = on_cpu()

    def construct(self, x: Tensor, other: Tensor) -> Tensor:
        if not self.explicit:
            return x
        # Also of one shape: a graph of rows of one token, in which this returned its own input, was not compiled.
        aligned = ops.reshape(x, (1,) * (len(other.shape) - len(x.shape)) + x.shape)
        repeats: tuple[int, ...] = ()
        for axis in range(len(other.shape)):
            repeats = (*repeats, other.shape[axis] // aligned.shape[axis])
        return ops.tile(aligned, repeats)


class SwapAxes(nn.Cell):
    """[B, X, Y, H] -> [B, Y, X, H], the heads of positions as the positions of heads, or back.

    A transpose on a CPU keeps an index of 8 bytes for each element as long as the graph lives (MindSpore 2.9.0). Of a
    large tensor, rows are taken in another order, which is as quick and keeps an index for each row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_rows = on_cpu()

    def construct(self, x: Tensor) -> Tensor:
        return self.swap(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (self.swap(dout),)

    def swap(self, x: Tensor) -> Tensor:
        """Within a compiled step."""
        B, X, Y, H = x.shape
        if not self.by_rows or B * X * Y * H <= TRANSPOSED:
            return ops.transpose(x, (0, 2, 1, 3))
        rows = ops.reshape(ops.transpose(ops.reshape(ops.arange(B * X * Y), (B, X, Y)), (0, 2, 1)), (-1,))
        return ops.reshape(ops.gather(ops.reshape(x, (-1, H)), rows, 0), (B, Y, X, H))


class RMSNormalize(nn.Cell):
    """The norm's arithmetic with its derivative written out: half the operators that differentiation would give.

    For rows [R, W]: with n = x * r and r = 1 / sqrt(mean(x^2) + eps), y = weight * n has the derivatives
    dx = r * (dy * weight - n * mean(dy * weight * n)) and dweight = sum over rows of dy * n.
    """

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.spread = Spread()
        # ReduceMean takes five times as long as ReduceSum on a CPU.
        self.row_sum = ops.ReduceSum(keep_dims=True)
        self.sum = ops.ReduceSum()

    def construct(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The result, and n and r, which the derivative needs."""
        reciprocal = ops.rsqrt(self.row_sum(x * x, -1) / x.shape[-1] + self.eps)
        normalized = x * self.spread(reciprocal, x)
        return normalized * self.spread(weight, x), normalized, reciprocal

    def bprop(
        self, x: Tensor, weight: Tensor, out: tuple[Tensor, ...], dout: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        _, normalized, reciprocal = out
        scaled = dout[0] * self.spread(weight, x)
        along = normalized * self.spread(self.row_sum(scaled * normalized, -1) / x.shape[-1], x)
        return (scaled - along) * self.spread(reciprocal, x), self.column_sum(dout[0] * normalized)

    def column_sum(self, x: Tensor) -> Tensor:
        """Over the rows [R, W], in two rounds: in one, the rounding of R additions would add up."""
        group = GROUP
        while x.shape[0] % group != 0:
            group = group // 2
        return self.sum(self.sum(ops.reshape(x, (-1, group, x.shape[1])), 1), 0)


class Rotation(nn.Cell):
    """Rotary embedding in half-split form: the pair (x_i, x_{i+H/2}) turned by its angle; [..., S, H].

    The derivative is the rotation back, written out: that of slices and concatenation costs more on a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spread = Spread()

    def construct(self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return x * self.spread(cos_SH, x) + turn_halves(x) * self.spread(sin_SH, x)

    def bprop(
        self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        back = dout * self.spread(cos_SH, x) - turn_halves(dout * self.spread(sin_SH, x))
        return back, ops.zeros_like(cos_SH), ops.zeros_like(sin_SH)


def turn_halves(x: Tensor) -> Tensor:
    """(x_1, x_2) -> (-x_2, x_1) on the halves of the last axis: a quarter turn of every pair."""
    half = x.shape[-1] // 2
    return ops.cat((-x[..., half:], x[..., :half]), -1)


class RowSoftmax(nn.Cell):
    """Softmax over the last axis, with its derivative p * (dp - sum(dp * p)) on rows: faster than the framework's."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = ops.Softmax(-1)
        self.row_sum = ops.ReduceSum(keep_dims=True)
        self.spread = Spread()

    def construct(self, x: Tensor) -> Tensor:
        return self.softmax(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        probabilities, gradient = ops.reshape(out, (-1, x.shape[-1])), ops.reshape(dout, (-1, x.shape[-1]))
        along = self.spread(self.row_sum(gradient * probabilities, -1), gradient)
        return (ops.reshape(probabilities * (gradient - along), x.shape),)


class SiLU(nn.Cell):
    """x * sigmoid(x), keeping the sigmoid for the derivative, where the framework's own computes it again."""

    def __init__(self) -> None:
        super().__init__()
        self.gated = _Gated()

    def construct(self, x: Tensor) -> Tensor:
        return self.gated(x)[0]


class _Gated(nn.Cell):
    """x * sigmoid(x) and sigmoid(x); d(x s) = s + x s (1 - s)."""

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = ops.sigmoid(x)
        return x * gate, gate

    def bprop(self, x: Tensor, out: tuple[Tensor, Tensor], dout: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        value, gate = out
        return (dout[0] * (gate + value - value * gate),)


class NegativeLogLikelihood(nn.Cell):
    """-log softmax(logits)[target] per row, with its derivative softmax(logits) - onehot(target) written out.

    With the largest logit taken off, the sum of exponentials is 1 + the others, and log1p keeps the digits that a
    float32 `log` of MindSpore on a CPU loses (bias 7e-7). Its `exp` there is a fast one, a millionth too small on
    average; `expm1` is exact to the last place, and a sum of e^x = 1 + expm1(x) has no bias (measured 1.5e-10).
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = ops.ArgMaxWithValue(1, True)
        self.spread = Spread()

    def construct(self, logits_RV: Tensor, targets_R1: Tensor) -> tuple[Tensor, Tensor]:
        """The losses [R, 1], and the probabilities, which the derivative needs."""
        _, largest = self.largest(logits_RV)
        exponentials = ops.expm1(logits_RV - self.spread(largest, logits_RV)) + 1.0
        total = ops.sum(exponentials, -1, True)
        picked = ops.gather_elements(logits_RV, 1, targets_R1)
        return largest - picked + ops.log1p(total - 1.0), exponentials / self.spread(total, logits_RV)

    def bprop(
        self, logits_RV: Tensor, targets_R1: Tensor, out: tuple[Tensor, ...], dout: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        minus_onehot = ops.tensor_scatter_elements(
            out[1], targets_R1, ops.gather_elements(out[1], 1, targets_R1) - 1.0, 1
        )
        return minus_onehot * self.spread(dout[0], logits_RV), ops.zeros_like(targets_R1)
