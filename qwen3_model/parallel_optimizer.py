"""Clipping and AdamW over several ranks, with the results of one process."""

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from qwen3_model.collectives import Group, Sum
from qwen3_model.optimizer import AdamW, AdamWConfig, ClipByGlobalNorm, decays, short_sums, tree_sum

ROWS = "rows."


class SharedClip(ClipByGlobalNorm):
    """The norm over all ranks of one replica of the model; every parameter counts once."""

    def __init__(self, max_norm: float | None, counted: Sequence[bool], over: Group) -> None:
        super().__init__(max_norm)
        self.counted = tuple(counted)
        self.sum = Sum(over)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        squares = []
        for i in range(len(self.counted)):
            if self.counted[i]:
                squares.append(short_sums(short_sums(ops.square(ops.reshape(gradients[i], (-1,))))))
        own = tree_sum(ops.cat(squares))
        norm = ops.sqrt(ops.reshape(self.sum(ops.reshape(own, (1,))), ()))
        if self.max_norm is None:
            return norm, ops.depend(ops.ones_like(norm), norm)
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)


class SharedAdamW(AdamW):
    """AdamW where each replica keeps its rows of the moments and updates its rows of the parameters.

    The rows are equal parts of the first axis; every replica updates a parameter whole where that axis is not
    divisible. Updated rows are joined by a sum with zeros, which rounds nothing: the result is that of one replica.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        config: AdamWConfig,
        over: Group,
        decays: Callable[[str], bool] = decays,
    ) -> None:
        own_rows = [_own_rows(parameter, over) for parameter in parameters]
        super().__init__(own_rows, config, decays)
        for moment in (*self.exp_avg, *self.exp_avg_sq):
            moment.name = moment.name.replace(ROWS, "", 1)  # a checkpoint names the parameter
        self.rows, self.parameters = self.parameters, ms.ParameterTuple(parameters)
        self.cut = tuple(rows.shape != whole.shape for rows, whole in zip(own_rows, parameters, strict=True))
        self.index, self.size = over.index, over.size
        self.sum = Sum(over)

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        rate, eps, weight_decay = scalars[0], scalars[1], scalars[2]
        before = scale
        for i in range(len(self.parameters)):
            decay = weight_decay if self.decay_flags[i] else ops.zeros_like(weight_decay)
            moments = (self.exp_avg[i], self.exp_avg_sq[i])
            gradient = self.own(i, gradients[i]) * scale
            ops.assign(self.rows[i], self.own(i, self.parameters[i] + 0.0))
            self.update(self.rows[i], *moments, rate, self.beta1, self.beta2, eps, decay, gradient)
            updated = self.rows[i] + 0.0
            if self.cut[i]:
                zeros = ops.zeros_like(updated)
                among_zeros = ops.cat([updated if j == self.index else zeros for j in range(self.size)], 0)
                # Sums need one order on all ranks.
                before = self.sum(ops.depend(among_zeros, before))
                updated = before
            ops.assign(self.parameters[i], updated)
        return True

    def own(self, i: int, whole: Tensor) -> Tensor:
        """This rank's rows of parameter i or of its gradient."""
        if not self.cut[i]:
            return whole
        length = whole.shape[0] // self.size
        return whole[self.index * length : (self.index + 1) * length]


def _own_rows(parameter: Parameter, over: Group) -> Parameter:
    values = parameter.asnumpy()
    if len(values) % over.size == 0:
        values = np.split(values, over.size)[over.index]
    return Parameter(Tensor(np.ascontiguousarray(values)), name=f"{ROWS}{parameter.name}")
