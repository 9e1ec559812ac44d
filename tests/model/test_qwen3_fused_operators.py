"""Ascend's fused operators behind the plain cells, checked by stand-ins that do what their manuals say."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from qwen3_model import fused, modeling_qwen3
from qwen3_model.derivatives import RMSNormalize, Rotation
from qwen3_model.documents import Documents
from qwen3_model.equal_cells import share_equal_cells
from qwen3_model.fused import FusedRMSNormalize, FusedRotation, FusedSwiGLU
from qwen3_model.modeling_qwen3 import DocumentBoundaries, Qwen3ForCausalLM, Qwen3RotaryEmbedding
from qwen3_model.precision_policy import PrecisionPolicy
from tests.model.qwen3_cases import shaped

FLOAT32 = PrecisionPolicy()
FUSED = (FusedRMSNormalize, FusedRotation, FusedSwiGLU)


class RmsNorm(nn.Cell):
    """(x, gamma) -> x / sqrt(mean(x^2) + epsilon) * gamma over the last axis, and the reciprocal root.

    Source: MindSpore 2.9 manual, `mindspore.ops.rms_norm`: gamma has the shape of the last axes of x, and its dtype.
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon

    def construct(self, x: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        if x.dtype != gamma.dtype or x.shape[-1:] != gamma.shape:
            raise ValueError("gamma is the last axis of x, of one dtype")
        reciprocal = ops.rsqrt(ops.mean(x * x, -1, True) + self.epsilon)
        return x * reciprocal * gamma, reciprocal


class RotaryPositionEmbedding(nn.Cell):
    """(x, cos, sin, mode) -> x * cos + (-x_2, x_1) * sin on the halves of the last axis, for mode 0.

    Source: MindSpore 2.9 manual, `mindspore.ops.rotary_position_embedding`: all are of one dtype and have four axes,
    BNSD; of cos and sin the first two axes are those of x or 1.
    """

    def construct(self, x: Tensor, cos: Tensor, sin: Tensor, mode: int = 0) -> Tensor:
        if mode != 0 or len(x.shape) != 4 or len(cos.shape) != 4 or cos.shape != sin.shape:
            raise ValueError("four axes, and tables of one shape")
        if cos.shape[2:] != x.shape[2:] or x.dtype != cos.dtype or cos.dtype != sin.dtype:
            raise ValueError("tables have the positions, the width and the dtype of x")
        half = x.shape[-1] // 2
        return x * cos + ops.cat((-x[..., half:], x[..., :half]), -1) * sin


class Swiglu(nn.Cell):
    """(input, dim) -> silu(a) * b of the halves a, b of an axis.

    Source: MindSpore 2.9 manual, `mindspore.ops.swiglu`.
    """

    def construct(self, input: Tensor, dim: int = -1) -> Tensor:
        first, second = ops.split(input, input.shape[dim] // 2, dim)
        return first * ops.sigmoid(first) * second


@pytest.fixture
def as_on_ascend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are built as for Ascend, with stand-ins for the operators that a CPU lacks."""
    for stand_in in (RmsNorm, RotaryPositionEmbedding, Swiglu):
        monkeypatch.setattr(fused, stand_in.__name__, stand_in)
    monkeypatch.setattr(modeling_qwen3, "on_cpu", lambda: False)


def model(policy: PrecisionPolicy = FLOAT32) -> Qwen3ForCausalLM:
    """The model in float32, with the same weights each time; norm weights are not all one."""
    built = Qwen3ForCausalLM(shaped(num_hidden_layers=1), policy)
    generator = np.random.default_rng(0)
    for parameter in built.get_parameters():
        around = 1.0 if len(parameter.shape) == 1 else 0.0
        values = around + 0.1 * generator.standard_normal(parameter.shape)
        parameter.set_data(Tensor(values.astype(np.float32)))
    return built


def loss_and_gradients(of: Qwen3ForCausalLM, weights: Tensor) -> tuple[float, dict[str, np.ndarray]]:
    tokens = Tensor(np.random.default_rng(1).integers(0, 256, (2, 9)).astype(np.int32))
    parameters = ms.ParameterTuple(of.trainable_params())
    found, gradients = ms.value_and_grad(Weighed(of), None, parameters)(tokens, weights)
    return float(found.asnumpy()), {p.name: g.asnumpy() for p, g in zip(parameters, gradients, strict=True)}


class Weighed(nn.Cell):
    """The sum of the logits, each with a weight of its own."""

    def __init__(self, logits: nn.Cell) -> None:
        super().__init__()
        self.logits = logits

    def construct(self, tokens: Tensor, weights: Tensor) -> Tensor:
        return ops.sum(self.logits(tokens) * weights)


@pytest.mark.usefixtures("as_on_ascend")
@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_a_model_of_fused_operators_computes_the_plain_one_and_its_gradients(mode: int) -> None:
    ms.set_context(mode=mode)
    one, plain = model(), model(PrecisionPolicy(fused=False))
    kinds = {type(cell) for _, cell in one.cells_and_names()}
    assert kinds.issuperset(FUSED) and kinds.isdisjoint({RMSNormalize, Rotation})
    assert {type(cell) for _, cell in plain.cells_and_names()}.isdisjoint(FUSED)
    share_equal_cells(one)
    weights = Tensor(np.random.default_rng(2).standard_normal((2, 9, one.config.vocab_size)).astype(np.float32))
    (value, found), (expected, wanted) = (loss_and_gradients(each, weights) for each in (one, plain))
    # Sums of some 5,000 terms in float32, by operators that add in another order.
    assert abs(value - expected) < 1e-4 * abs(expected)
    for name, gradient in wanted.items():
        assert np.abs(found[name] - gradient).max() < 1e-4 * np.abs(gradient).max(), name
        assert np.abs(gradient).max() > 0


@pytest.mark.usefixtures("as_on_ascend")
def test_equal_fused_cells_are_compiled_once() -> None:
    shared = model()
    share_equal_cells(shared)
    for kind in FUSED:
        own = {id(cell) for _, cell in shared.cells_and_names() if type(cell) is kind}
        assert len(own) == 1, kind


def test_a_cpu_has_no_fused_operators() -> None:
    assert {type(cell) for _, cell in model().cells_and_names()}.isdisjoint(FUSED)


def test_positions_of_documents_reach_the_fused_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "RotaryPositionEmbedding", RotaryPositionEmbedding)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    tokens = Tensor(np.array([[0, 0, 256, 0, 0, 0, 256, 0, 0], [256, *[0] * 8]], np.int32))
    documents = Documents(end=256, reset_attention_mask=False, reset_position_ids=True)
    tables = Qwen3RotaryEmbedding(shaped(), PrecisionPolicy())(9)
    cos, sin = DocumentBoundaries(documents)(tokens, *tables)
    x = Tensor(np.random.default_rng(3).standard_normal((2, 4, 9, 32)).astype(np.float32))
    assert cos.shape == (2, 1, 9, 32)
    turned, expected = FusedRotation()(x, cos, sin).asnumpy(), Rotation()(x, cos, sin).asnumpy()
    assert np.abs(turned - expected).max() < 1e-6
