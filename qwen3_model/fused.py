"""Ascend's fused operators behind the interfaces of the plain cells: RMS norm, rotary embedding, SwiGLU.

Each cell computes what its plain counterpart does, in one kernel that rounds once. A CPU has none of these operators,
so there the plain cells are built; on Ascend a case chooses by `precision.fused`, and both choices can be certified.

The operators are used as primitives: the functions around them get another signature after MindSpore 2.9
(`ops.rms_norm`) or are to be removed (`ops.rotary_position_embedding`).

Shape legend: that of `modeling_qwen3`.
"""

from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import RmsNorm, RotaryPositionEmbedding, Swiglu

HALVES = 0  # mode of the rotary operator: the pair of x_i is x_{i+H/2}


class FusedRMSNormalize(nn.Cell):
    """As `RMSNormalize`: rows [R, W] and weight [W] -> the result, and 1 / sqrt(mean(x^2) + eps) of each row [R, 1]."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.norm = RmsNorm(eps)

    def construct(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        normed, reciprocal = self.norm(x, weight)
        return normed, reciprocal


class FusedRotation(nn.Cell):
    """As `Rotation`: [B, heads, S, H] turned by its angles, tables [S, H] or for each row [B, 1, S, H].

    The derivative is the rotation back: the same operator with negative sines, because both halves of a table are
    equal. The framework's own derivative also keeps the input, for gradients of the tables, which no one takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rotate = RotaryPositionEmbedding()

    def construct(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.turn(x, cos, sin)

    def bprop(self, x: Tensor, cos: Tensor, sin: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.turn(dout, cos, -sin), ops.zeros_like(cos), ops.zeros_like(sin)

    def turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Within a compiled step."""
        if len(cos.shape) == 2:
            cos, sin = ops.reshape(cos, (1, 1, *cos.shape)), ops.reshape(sin, (1, 1, *sin.shape))
        return self.rotate(x, cos, sin, HALVES)


class FusedSwiGLU(nn.Cell):
    """silu(gate) * up, both [..., F]. The operator takes them as the halves of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.swiglu = Swiglu()

    def construct(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.swiglu(ops.cat((gate, up), -1), -1)
