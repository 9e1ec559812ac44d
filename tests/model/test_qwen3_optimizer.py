"""Norm, clipping, decay groups and the update, against float64 arithmetic."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from qwen3_model.optimizer import AdamW, AdamWConfig, ClipByGlobalNorm, decays, step_scalars
from qwen3_model.sizes import SMALL
from tests.model.qwen3_cases import Array, weight_shapes


class Clip(nn.Cell):
    """Takes gradients as arguments, as a compiled cell must."""

    def __init__(self, max_norm: float | None) -> None:
        super().__init__()
        self.clip = ClipByGlobalNorm(max_norm)

    def construct(self, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return self.clip(gradients)


def clipped(gradients: list[Array], max_norm: float | None) -> tuple[float, float]:
    """The norm and the factor that one compiled call gives."""
    norm, factor = Clip(max_norm)(*(Tensor(g) for g in gradients))
    return float(norm.asnumpy()), float(factor.asnumpy())


def test_every_weight_decays_but_those_of_the_norms() -> None:
    spared = {name for name in weight_shapes(SMALL["tiny"]) if not decays(name)}
    assert spared == {name for name, shape in weight_shapes(SMALL["tiny"]).items() if len(shape) == 1}


# The last two are not multiples of anything; the first is the largest parameter of "small", 30 times over.
@pytest.mark.parametrize("sizes", [[15_728_640, 32, 32], [1 << 20] * 4, [65_537, 31, 1], [7]], ids=str)
@pytest.mark.parametrize("spread", [0.0, 4.0])
def test_global_norm_keeps_the_digits_of_float32(sizes: list[int], spread: float) -> None:
    generator = np.random.default_rng(0)
    gradients = [
        (10 ** generator.uniform(-spread, 0) * generator.standard_normal(size)).astype(np.float32) for size in sizes
    ]
    exact = np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients))
    # Two roundings of float32, 1.2e-7: of the root and of what is left of the sum's error. A plain sum loses 1e-5.
    assert abs(clipped(gradients, None)[0] / exact - 1) < 1.2e-7


def test_factor_is_torchs() -> None:
    norm, factor = clipped([np.full(4, 3.0, np.float32)], 1.5)
    assert norm == 6.0
    assert factor == pytest.approx(1.5 / (6.0 + 1e-6), rel=1e-7)


@pytest.mark.parametrize("max_norm", [None, 6.1])
def test_gradients_below_the_limit_are_left_alone(max_norm: float | None) -> None:
    assert clipped([np.full(4, 3.0, np.float32)], max_norm)[1] == 1.0


def test_norm_that_is_not_finite_is_reported() -> None:
    assert np.isnan(clipped([np.array([1.0, np.nan], np.float32)], 1.0)[0])
    assert np.isinf(clipped([np.array([1.0, np.inf], np.float32)], 1.0)[0])


@pytest.mark.parametrize("name", ["w.weight", "k_norm.weight"])
def test_twenty_updates_stay_within_a_rounding_per_update_of_float64(name: str) -> None:
    config = AdamWConfig(weight_decay=0.1, eps=1e-6)
    generator = np.random.default_rng(0)
    start = (0.02 * generator.standard_normal(1000)).astype(np.float32)
    scales = 10 ** generator.uniform(-8, 0, 1000)
    optimizer = AdamW([Parameter(Tensor(start), name=name)], config)
    p, m, v = start.astype(np.float64), np.zeros(1000), np.zeros(1000)
    rate = 1e-3
    for step in range(1, 21):
        g = (scales * generator.standard_normal(1000)).astype(np.float32)
        optimizer(
            (Tensor(g),), Tensor(0.5, dtype=optimizer.parameters[0].dtype), Tensor(step_scalars(config, step, rate))
        )
        g64 = g.astype(np.float64) * 0.5
        m, v = 0.9 * m + 0.1 * g64, 0.999 * v + 0.001 * g64**2
        p = p * (1 - rate * config.weight_decay * decays(name))
        p = p - rate / (1 - 0.9**step) * m / (np.sqrt(v) / np.sqrt(1 - 0.999**step) + config.eps)
    # Per update: half a unit of a parameter of at most 0.1 (3.7e-9), and 4 float32 roundings of a step of 1e-3.
    assert np.abs(optimizer.parameters[0].asnumpy() - p).max() < 20 * (3.7e-9 + 4 * 6e-8 * rate)


def test_all_unsound_constants_are_one_error() -> None:
    with pytest.raises(ValueError, match=r"(?s)beta1.*eps.*weight_decay"):
        AdamWConfig(beta1=1.0, eps=-1e-8, weight_decay=float("nan"))
