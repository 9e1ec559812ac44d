"""Clipping and AdamW over several ranks, with the results of one process."""

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from qwen3_model.collectives import Group, InOrder, Sum
from qwen3_model.derivatives import on_cpu
from qwen3_model.optimizer import (
    AdamW,
    AdamWConfig,
    ClipByGlobalNorm,
    decays,
    sums_of_squares,
    tree_sum,
    update_parameter,
)

ROWS = "rows."


def counted_squares(counts: bool, gradient: Tensor) -> Tensor:
    """Sums of the squares of a gradient, or a zero for one that another rank counts."""
    return sums_of_squares(gradient) if counts else ops.zeros((1,), ms.float32)


class SharedClip(ClipByGlobalNorm):
    """The norm over all ranks of one replica of the model; every parameter counts once."""

    def __init__(self, max_norm: float | None, counted: Sequence[bool], over: Group) -> None:
        super().__init__(max_norm)
        self.counted = tuple(counted)
        self.sum = Sum(over)
        self.each = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        own = tree_sum(ops.cat(self.each(counted_squares, self.counted, gradients)))
        norm = ops.sqrt(ops.reshape(self.sum(ops.reshape(own, (1,))), ()))
        if self.max_norm is None:
            return norm, ops.depend(ops.ones_like(norm), norm)
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)


class SharedAdamW(AdamW):
    """AdamW where each replica keeps its rows of the moments and updates its rows of the parameters.

    The rows are equal parts of the first axis; every replica updates a parameter whole where that axis is not
    divisible. Updated rows are gathered, on a CPU by a sum with zeros, which rounds nothing: the result is that of one
    replica.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        config: AdamWConfig,
        over: Group,
        decays: Callable[[str], bool] = decays,
    ) -> None:
        own = [_with_own_rows(parameter, over) for parameter in parameters]
        super().__init__(own, config, decays)
        for moment in (*self.exp_avg, *self.exp_avg_sq):
            moment.name = moment.name.replace(ROWS, "", 1)  # a checkpoint names the parameter
        self.rows, self.parameters = self.parameters, ms.ParameterTuple(parameters)
        self.cut = tuple(rows.shape != whole.shape for rows, whole in zip(own, parameters, strict=True))
        self.part = (over.index, over.size)
        self.joined = InOrder([Joined(over) if cut else Own() for cut in self.cut])

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        one = ops.partial(update_rows, self.part, self.update, (self.beta1, self.beta2), scalars, scale)
        moments = (self.exp_avg, self.exp_avg_sq)
        self.each(one, self.cut, self.rows, self.parameters, *moments, self.decay_flags, gradients)
        pairs = tuple(zip(self.rows, self.parameters))  # noqa: B905, a compiled graph has no `strict`
        self.joined(pairs, scale)
        return True


def update_rows(
    part: tuple[int, int],
    update: ops.AdamWeightDecay,
    betas: tuple[float, float],
    scalars: Tensor,
    scale: Tensor,
    cut: bool,
    rows: Parameter,
    parameter: Parameter,
    exp_avg: Parameter,
    exp_avg_sq: Parameter,
    decays: bool,
    gradient: Tensor,
) -> bool:
    """Within a compiled step: this rank's rows of one parameter."""
    ops.assign(rows, own_rows(part, cut, parameter + 0.0))
    own = own_rows(part, cut, gradient)
    return update_parameter(update, betas, scalars, scale, rows, exp_avg, exp_avg_sq, decays, own)


def own_rows(part: tuple[int, int], cut: bool, whole: Tensor) -> Tensor:
    """This rank's rows of a parameter or of its gradient; `part` is the rank and the number of ranks."""
    if not cut:
        return whole
    length = whole.shape[0] // part[1]
    return whole[part[0] * length : (part[0] + 1) * length]


class Joined(nn.Cell):
    """Sets a parameter to the updated rows of all ranks."""

    def __init__(self, over: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum, self.index, self.size = Sum(over), over.index, over.size
        self.by_sums = on_cpu() or over.size == 1
        if not self.by_sums:
            self.gather = ops.AllGather(over.name)

    def construct(self, item: tuple[Tensor, Parameter], before: Tensor) -> tuple[bool, Tensor]:
        rows = item[0] + 0.0
        if not self.by_sums:
            whole = self.gather(ops.depend(rows, before))
            ops.assign(item[1], whole)
            return True, whole
        zeros = ops.zeros_like(rows)
        among_zeros = ops.cat([rows if j == self.index else zeros for j in range(self.size)], 0)
        whole = self.sum(ops.depend(among_zeros, before))
        ops.assign(item[1], whole)
        return True, whole


class Own(nn.Cell):
    """Sets a parameter that this rank updated whole."""

    def construct(self, item: tuple[Tensor, Parameter], before: Tensor) -> tuple[bool, Tensor]:
        ops.assign(item[1], item[0] + 0.0)
        return True, before


def _with_own_rows(parameter: Parameter, over: Group) -> Parameter:
    """A parameter of this rank's rows, or of all where they cannot be divided."""
    values = parameter.asnumpy()
    if len(values) % over.size == 0:
        values = np.split(values, over.size)[over.index]
    return Parameter(Tensor(np.ascontiguousarray(values)), name=f"{ROWS}{parameter.name}")
