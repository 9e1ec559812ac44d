"""AdamW with decoupled decay, and clipping by the global norm, as PyTorch computes them.

Scalars that depend on the step (bias corrections, rate) are computed on the host in double precision and rounded to
float32; the moments and the parameters never leave the device.

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
    """AdamW's constants, with torch's names and defaults; the rate belongs to the schedule."""

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
    """The three numbers that turn the `AdamWeightDecay` operator, which corrects no bias, into AdamW.

    The operator does p = p - rate * (m / (sqrt(v) + eps) + decay * p). With a = 1 - beta1^t and b = 1 - beta2^t,
    AdamW's update is the same for rate = lr * sqrt(b) / a, eps * sqrt(b), and decay * a / sqrt(b).
    The operator weighs new gradients by 1 - beta in float32, where 1 - 0.999 is 1.3e-5 too small; a and b are
    computed from the same rounded numbers, so the update is not affected; only the stored second moments are.
    """
    a, b = _moment_weight(config.beta1, step), _moment_weight(config.beta2, step)
    rate = learning_rate * math.sqrt(b) / a
    return np.array([rate, config.eps * math.sqrt(b), config.weight_decay * a / math.sqrt(b)], dtype=np.float32)


def _moment_weight(beta: float, step: int) -> float:
    """The sum of the weights of `step` gradients in a moment, 1 - beta^step, as the operator's float32 has them."""
    rounded = np.float32(beta)
    one_minus = float(np.float32(1) - rounded)
    return one_minus * (1 - float(rounded) ** step) / (1 - float(rounded))


def update_parameter(
    update: ops.AdamWeightDecay,
    betas: tuple[float, float],
    scalars: Tensor,
    scale: Tensor,
    parameter: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    decays: bool,
    gradient: Tensor,
) -> bool:
    """Within a compiled step: one parameter and its moments, by `scale * gradient`."""
    weight_decay = scalars[2] if decays else ops.zeros_like(scalars[2])
    update(parameter, exp_avg, exp_avg_sq, scalars[0], betas[0], betas[1], scalars[1], weight_decay, gradient * scale)
    return True


class AdamW(nn.Cell):
    """The moments of all parameters, and the update of all parameters by their gradients.

    m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
    p = p (1 - lr * weight_decay) - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    One operator per parameter does all of it. Against float64 its error is half of torch's float32 loop.
    """

    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__()
        self.beta1, self.beta2 = config.beta1, config.beta2
        self.parameters = ms.ParameterTuple(parameters)
        self.exp_avg = self.parameters.clone(prefix="exp_avg", init="zeros")
        self.exp_avg_sq = self.parameters.clone(prefix="exp_avg_sq", init="zeros")
        self.decay_flags = tuple(decays(parameter.name) for parameter in parameters)
        self.update = ops.AdamWeightDecay()
        self.each = ops.HyperMap()  # not a loop: MindSpore nests the iterations of a loop, and its depth is limited

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        """One update with `scale * gradients`; `scalars` are those of `step_scalars`."""
        one = ops.partial(update_parameter, self.update, (self.beta1, self.beta2), scalars, scale)
        self.each(one, self.parameters, self.exp_avg, self.exp_avg_sq, self.decay_flags, gradients)
        return True


def tree_sum(x: Tensor) -> Tensor:
    """The sum of a vector, in rounds of short sums.

    A plain float32 sum over millions of squares loses three digits; not every device has float64.
    """
    while x.shape[0] > 1:
        x = short_sums(x)
    return ops.reshape(x, ())


def short_sums(x: Tensor) -> Tensor:
    """One round: the sums of a vector's consecutive runs of 32; a shorter rest is one more sum."""
    whole = x.shape[0] // 32 * 32
    if whole == x.shape[0]:
        return ops.sum(ops.reshape(x, (-1, 32)), -1)
    rest = ops.reshape(ops.sum(x[whole:]), (1,))
    return rest if whole == 0 else ops.cat((ops.sum(ops.reshape(x[:whole], (-1, 32)), -1), rest))


def sums_of_squares(gradient: Tensor) -> Tensor:
    """Two rounds of the sum of a gradient's squares: sums of 1,024 of them."""
    return short_sums(short_sums(ops.square(ops.reshape(gradient, (-1,)))))


class ClipByGlobalNorm(nn.Cell):
    """The global norm of the gradients, and the factor that brings it down to `max_norm` (1 when none is set).

    factor = min(1, max_norm / (norm + 1e-6)), as in torch.
    """

    def __init__(self, max_norm: float | None) -> None:
        super().__init__()
        self.max_norm = max_norm
        self.each = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm = ops.sqrt(tree_sum(ops.cat(self.each(sums_of_squares, gradients))))
        if self.max_norm is None:
            return norm, ops.ones_like(norm)
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)
