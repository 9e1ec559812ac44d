"""bfloat16 on a CPU: the emulating casts survive compilation, forward and backward, and round where they should."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from qwen3_model.modeling_qwen3 import Precision, Projection, Qwen3ForCausalLM
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.weights import load_into
from tests.model.qwen3_cases import BF16, Array, random_batch, random_weights, shaped


def rounded(x: Array) -> Array:
    """x to bfloat16 and back, round half to even, by integer arithmetic."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return (upper << 16).astype(np.uint32).view(np.float32)


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"], autouse=True)
def mode(request: pytest.FixtureRequest) -> None:
    ms.set_context(mode=request.param)


def test_value_is_rounded_forward() -> None:
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    assert np.array_equal(Precision("bfloat16")(Tensor(x)).asnumpy(), rounded(x))


def test_gradient_is_rounded_backward() -> None:
    generator = np.random.default_rng(0)
    x, d = (generator.standard_normal(4096).astype(np.float32) for _ in range(2))
    precision, direction = Precision("bfloat16"), Tensor(d)

    def along(value: Tensor) -> Tensor:
        return ops.sum(precision(value) * direction)

    gradient = ms.grad(along)(Tensor(x))
    assert np.array_equal(gradient.asnumpy(), rounded(d))


def test_float32_is_left_alone() -> None:
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    assert np.array_equal(Precision("float32")(Tensor(x)).asnumpy(), x)


def test_product_rounds_operands_and_result() -> None:
    generator = np.random.default_rng(0)
    x, w = (generator.standard_normal((8, 64)).astype(np.float32) for _ in range(2))
    product = Projection(BF16)(Tensor(x), Tensor(w)).asnumpy()
    assert np.array_equal(product, rounded(product))
    exact = rounded(x).astype(np.float64) @ rounded(w).astype(np.float64).T
    # Half a unit of bfloat16 (2^-8), and the float32 sum of 64 products of about 1 before it.
    assert np.all(np.abs(product - exact) <= 2**-8 * np.abs(exact) + 1e-5)


@pytest.mark.parametrize("part", ["layernorm_compute_dtype", "softmax_compute_dtype", "rotary_dtype", "residual_dtype"])
def test_each_part_of_the_policy_changes_the_logits(part: str) -> None:
    config = shaped(num_hidden_layers=1)
    tokens = Tensor(random_batch(config, length=9)[0][:, :-1])

    def logits(policy: PrecisionPolicy) -> Array:
        model = Qwen3ForCausalLM(config, policy)
        load_into(model, random_weights(config))
        result: Array = model(tokens).asnumpy()
        return result

    full, half = logits(PrecisionPolicy()), logits(PrecisionPolicy(**{part: "bfloat16"}))
    # One part rounded to bfloat16 is felt, and no more than a few roundings of 2^-8.
    assert 1e-5 < np.linalg.norm(half - full) / np.linalg.norm(full) < 3 * 2**-8
