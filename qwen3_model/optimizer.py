"""AdamW with decoupled decay, and clipping by the global norm, as PyTorch computes them.

Scalars that depend on the step (bias corrections, step size) are computed on the host in double precision and handed
over rounded to float32, as torch does; the moments and the parameters never leave the device.

Source: torch 2.13, `torch/optim/adamw.py` and `torch/nn/utils/clip_grad.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW's constants in torch's words and with torch's defaults; the rate belongs to the schedule."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        bounds = {"beta1": 1.0, "beta2": 1.0, "eps": math.inf, "weight_decay": math.inf}
        problems = [
            f"{name}: must be at least 0 and below {bounds[name]}, got {value!r}"
            for name, value in asdict(self).items()
            if not 0 <= value < bounds[name]
        ]
        if problems:
            raise ValueError("\n".join(["AdamWConfig:", *problems]))


def decays(name: str) -> bool:
    """Whether weight decay applies: to every weight but those of the norms. The embedding and the head decay."""
    return not name.endswith(("norm.weight", "layernorm.weight"))


def step_scalars(config: AdamWConfig, step: int, learning_rate: float) -> npt.NDArray[np.float32]:
    """lr * weight_decay, lr / (1 - beta1^step), sqrt(1 - beta2^step): what one update depends on besides gradients."""
    return np.array(
        [
            learning_rate * config.weight_decay,
            learning_rate / (1 - config.beta1**step),
            math.sqrt(1 - config.beta2**step),
        ],
        dtype=np.float32,
    )


class AdamW(nn.Cell):
    """The moments of all parameters, and the update of all parameters by their gradients.

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    p = p (1 - lr * weight_decay) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
    """

    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__()
        self.config = config
        self.parameters = ms.ParameterTuple(parameters)
        self.exp_avg = self.parameters.clone(prefix="exp_avg", init="zeros")
        self.exp_avg_sq = self.parameters.clone(prefix="exp_avg_sq", init="zeros")
        self.decay_flags = tuple(1.0 if decays(parameter.name) else 0.0 for parameter in parameters)

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        """One update with `scale * gradients`; `scalars` are those of `step_scalars`."""
        for i in range(len(self.parameters)):
            self.update(
                self.parameters[i],
                self.exp_avg[i],
                self.exp_avg_sq[i],
                gradients[i] * scale,
                scalars,
                self.decay_flags[i],
            )
        return True

    def update(
        self, p: Parameter, m: Parameter, v: Parameter, g: Tensor, scalars: Tensor, decay: float
    ) -> None:
        """The update of one parameter."""
        beta1, beta2 = self.config.beta1, self.config.beta2
        new_m = m + (g - m) * (1 - beta1)
        new_v = v * beta2 + ops.square(g) * (1 - beta2)
        denominator = ops.sqrt(new_v) / scalars[2] + self.config.eps
        decayed = p * (1 - scalars[0] * decay)
        ops.assign(m, new_m)
        ops.assign(v, new_v)
        ops.assign(p, decayed - scalars[1] * (new_m / denominator))


def sum_of_squares(x: Tensor) -> Tensor:
    """The sum of x^2, added up in a tree of short sums so that float32 keeps its digits."""
    return tree_sum(ops.square(ops.reshape(x, (-1,))))


def tree_sum(x: Tensor) -> Tensor:
    """The sum of a vector: sums of 32, then sums of 32 of those, and so on.

    A plain float32 sum over millions of squares loses three digits; float64 is not there on every device.
    """
    while x.shape[0] > 1:
        whole = x.shape[0] // 32 * 32
        if whole == 0:
            return ops.sum(x)
        sums = ops.sum(ops.reshape(x[:whole], (-1, 32)), -1)
        x = sums if whole == x.shape[0] else ops.cat((sums, x[whole:]))
    return ops.reshape(x, ())


class ClipByGlobalNorm(nn.Cell):
    """The global norm of the gradients, and the factor that brings it down to `max_norm` (1 when none is set).

    factor = min(1, max_norm / (norm + 1e-6)), as in torch.
    """

    def __init__(self, max_norm: float | None) -> None:
        super().__init__()
        self.max_norm = max_norm

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm = ops.sqrt(tree_sum(ops.stack([sum_of_squares(g) for g in gradients])))
        if self.max_norm is None:
            return norm, ops.ones_like(norm)
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)
