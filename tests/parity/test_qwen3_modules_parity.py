"""The lower rungs: norm, rotary embedding, attention, MLP and decoder layer against transformers' own modules."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn
from transformers.models.qwen3 import modeling_qwen3 as hf

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.derivatives import Rotation
from qwen3_model.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, Qwen3MLP, Qwen3RMSNorm, Qwen3RotaryEmbedding
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.sizes import PUBLISHED
from tests.model.qwen3_cases import Array, random_weights, shaped
from tests.parity.hf_reference import largest_error, reference

FP32 = PrecisionPolicy()
SHAPES = {
    "two-queries-per-key": shaped(),
    "one-query-per-key": shaped(num_key_value_heads=4),
    "four-queries-per-key": shaped(num_key_value_heads=1),
    "head-is-hidden-over-heads": shaped(head_dim=16),
}


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"], autouse=True)
def mode(request: pytest.FixtureRequest) -> None:
    ms.set_context(mode=request.param)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def config(request: pytest.FixtureRequest) -> Qwen3Config:
    chosen: Qwen3Config = request.param
    return chosen


def hidden_states(config: Qwen3Config, length: int = 13) -> Array:
    """Hidden states [2, S, D] of unit deviation; the length is odd."""
    return np.random.default_rng(3).standard_normal((2, length, config.hidden_size)).astype(np.float32)


def load_layer(cell: nn.Cell, config: Qwen3Config, prefix: str) -> None:
    """Sets the parameters of a cell that stands alone from the model's weights below `prefix`."""
    weights = random_weights(config)
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(weights[f"{prefix}.{parameter.name}"]))


@pytest.mark.parametrize("width", [32, 64, 160])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_norm(width: int, scale: float) -> None:
    generator = np.random.default_rng(0)
    x = (scale * generator.standard_normal((2, 13, width))).astype(np.float32)
    weight = generator.uniform(0.5, 1.5, width).astype(np.float32)
    theirs, ours = hf.Qwen3RMSNorm(width, 1e-6), Qwen3RMSNorm(width, 1e-6, FP32)
    theirs.weight.data = torch.from_numpy(weight)
    ours.weight.set_data(Tensor(weight))
    # The mean of `width` squares and four more float32 operations, 6e-8 each. 1e-4: eps is then felt by 1 %.
    assert largest_error(ours(Tensor(x)).asnumpy(), theirs(torch.from_numpy(x)).detach().numpy()) < 5e-7


def test_norm_gradients() -> None:
    generator = np.random.default_rng(0)
    x, upstream = (generator.standard_normal((2, 13, 64)).astype(np.float32) for _ in range(2))
    theirs, ours = hf.Qwen3RMSNorm(64, 1e-6).double(), Qwen3RMSNorm(64, 1e-6, FP32)
    inputs = torch.from_numpy(x).double().requires_grad_()
    # Hugging Face's norm works in float32 whatever its input: its formula is written out in float64 here.
    normalized = inputs * torch.rsqrt(inputs.pow(2).mean(-1, keepdim=True) + 1e-6)
    (theirs.weight * normalized).backward(torch.from_numpy(upstream).double())
    direction = Tensor(upstream)

    def along(value: Tensor) -> Tensor:
        return (ours(value) * direction).sum()

    dx, (dweight,) = ms.grad(along, 0, ms.ParameterTuple([ours.weight]))(Tensor(x))
    # Sums of 64 and of 26 products and a handful of roundings, each 6e-8, against float64.
    assert largest_error(dx.asnumpy(), inputs.grad.numpy()) < 1e-6
    assert largest_error(dweight.asnumpy(), theirs.weight.grad.numpy()) < 1e-6


def test_rotary_tables_and_rotation(config: Qwen3Config) -> None:
    model = reference(config, random_weights(config))
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(config.max_position_embeddings)[None])
    ours = Qwen3RotaryEmbedding(config, FP32)
    # Both round the same float32 angle's cosine; 1.2e-7 is two such roundings near 1.
    assert np.abs(ours.cos.asnumpy() - cos[0].numpy()).max() < 1.2e-7
    assert np.abs(ours.sin.asnumpy() - sin[0].numpy()).max() < 1.2e-7
    x = np.random.default_rng(0).standard_normal((2, 3, 13, config.head_dim)).astype(np.float32)
    theirs, _ = hf.apply_rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(x), cos[:, :13], sin[:, :13])
    rotated = Rotation()(Tensor(x), Tensor(cos[0, :13].numpy()), Tensor(sin[0, :13].numpy())).asnumpy()
    # The same two products and one sum in float32; a fused multiply-add may keep one more digit.
    assert np.abs(rotated - theirs.numpy()).max() < 5e-7


def test_frequencies_of_the_published_models() -> None:
    config = PUBLISHED["0.6B"]
    theirs = 1.0 / (config.rope_theta ** (torch.arange(0, 128, 2).float() / 128))
    ours = Qwen3RotaryEmbedding.inverse_frequencies(config)
    # Ours are the correctly rounded powers; torch's float32 pow is off by one unit (1.2e-7) in places.
    assert np.abs(ours / theirs.numpy().astype(np.float64) - 1).max() < 1.3e-7


def test_attention(config: Qwen3Config) -> None:
    model, x = reference(config, random_weights(config)), hidden_states(config)
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(x.shape[1])[None])
    mask = torch.full((x.shape[1],) * 2, torch.finfo(torch.float32).min).triu(1)[None, None]
    theirs, _ = model.model.layers[0].self_attn(torch.from_numpy(x), (cos, sin), mask)
    ours = Qwen3Attention(config, FP32)
    load_layer(ours, config, "model.layers.0.self_attn")
    actual = ours(Tensor(x), Tensor(cos[0].numpy()), Tensor(sin[0].numpy())).asnumpy()
    # The CPU's float32 exp is off by up to 5e-7 per unit of its argument; scores here differ by less than 10.
    assert largest_error(actual, theirs.detach().numpy()) < 5e-6


def test_mlp(config: Qwen3Config) -> None:
    model, x = reference(config, random_weights(config)), hidden_states(config)
    ours = Qwen3MLP(config, FP32)
    load_layer(ours, config, "model.layers.0.mlp")
    # The sigmoid's exp is off by up to 5e-7 per unit of its argument; the gates are below 5.
    assert (
        largest_error(ours(Tensor(x)).asnumpy(), model.model.layers[0].mlp(torch.from_numpy(x)).detach().numpy()) < 3e-6
    )


def test_decoder_layer(config: Qwen3Config) -> None:
    model, x = reference(config, random_weights(config)), hidden_states(config)
    position_embeddings = model.model.rotary_emb(torch.zeros(1), torch.arange(x.shape[1])[None])
    mask = torch.full((x.shape[1],) * 2, torch.finfo(torch.float32).min).triu(1)[None, None]
    theirs = model.model.layers[1](torch.from_numpy(x), mask, position_embeddings=position_embeddings)
    ours = Qwen3DecoderLayer(config, FP32)
    load_layer(ours, config, "model.layers.1")
    cos, sin = (Tensor(table[0].numpy()) for table in position_embeddings)
    # Attention's 5e-6 and the MLP's 3e-6, both added to a residual stream that is larger than they are.
    assert largest_error(ours(Tensor(x), cos, sin).asnumpy(), theirs.detach().numpy()) < 3e-6
