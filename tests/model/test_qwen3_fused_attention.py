"""The layout that Ascend's fused attention is called with, checked by a stand-in that does what its manual says."""

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from qwen3_model import modeling_qwen3
from qwen3_model.documents import Documents
from qwen3_model.modeling_qwen3 import DocumentBoundaries, FusedAttention, PlainAttention, attention_for_device
from qwen3_model.precision_policy import PrecisionPolicy
from tests.model.qwen3_cases import BF16, Array, shaped


def flash_attention_score(query: Tensor, key: Tensor, value: Tensor, head_num: int, **options: Any) -> Tensor:
    """softmax(scalar_value * q k^T, masked where attn_mask is True) v, for input_layout BNSD and sparse_mode 0 or 2.

    Source: MindSpore 2.9 manual, `mindspore.ops.flash_attention_score`: sparse_mode 2 is leftUpCausal and takes the
    compressed mask [2048, 2048], sparse_mode 0 takes the whole mask, [B, 1, S, S]; keys and values may have fewer
    heads, each shared by consecutive query heads.
    """
    assert options.keys() == {"attn_mask", "scalar_value", "input_layout", "sparse_mode"}
    assert options["input_layout"] == "BNSD"
    assert query.dtype == key.dtype == value.dtype == ms.bfloat16
    mask, length = options["attn_mask"].asnumpy(), query.shape[2]
    assert mask.shape == {2: (2048, 2048), 0: (query.shape[0], 1, length, length)}[options["sparse_mode"]]
    assert mask.dtype == bool
    assert query.shape[1] == head_num
    groups = head_num // key.shape[1]
    q, k, v = (x.astype(ms.float32).asnumpy().astype(np.float64) for x in (query, key, value))
    scores = options["scalar_value"] * q @ np.repeat(k, groups, 1).swapaxes(-1, -2)
    weights = np.exp(np.where(mask[..., :length, :length], -np.inf, scores))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ np.repeat(v, groups, 1)
    return Tensor(mixed.astype(np.float32)).astype(ms.bfloat16)


def inputs(heads: int, kv_heads: int) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((2, n, 9, 32)).astype(np.float32) for n in (heads, kv_heads, kv_heads)]


@pytest.mark.parametrize("documents", [False, True], ids=["causal", "documents"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_fused_attention_is_called_so_that_it_computes_the_plain_attention(
    monkeypatch: pytest.MonkeyPatch, kv_heads: int, documents: bool
) -> None:
    monkeypatch.setattr(ops, "flash_attention_score", flash_attention_score)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    config = shaped(num_key_value_heads=kv_heads)
    tensors = [Tensor(x) for x in inputs(config.num_attention_heads, kv_heads)]
    if documents:
        ends = np.array([[0, 0, 256, 0, 0, 0, 256, 0, 0], [256, *[0] * 8]], np.int32)
        asked = Documents(end=256, reset_attention_mask=True, reset_position_ids=False)
        tensors.append(DocumentBoundaries(asked)(Tensor(ends), Tensor([0.0]), Tensor([0.0]))[2])
    fused = FusedAttention(config, BF16)(*tensors).astype(ms.float32).asnumpy()
    plain = PlainAttention(config, BF16)(*tensors).asnumpy()
    # The plain path rounds scores, weights and result to bfloat16: three roundings of 2^-8 of values below 4.
    assert np.abs(fused - plain).max() < 3 * 2**-8 * 4
    assert np.abs(fused).max() > 1.0


@pytest.mark.parametrize(
    ("cpu", "dtype", "expected"),
    [
        (True, "float32", PlainAttention),
        (True, "bfloat16", PlainAttention),
        (False, "float32", PlainAttention),
        (False, "bfloat16", FusedAttention),
    ],
)
def test_fused_attention_is_for_half_precision_off_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cpu: bool, dtype: str, expected: type
) -> None:
    monkeypatch.setattr(modeling_qwen3, "on_cpu", lambda: cpu)
    assert type(attention_for_device(shaped(), PrecisionPolicy(compute_dtype=dtype))) is expected


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_grouped_product_is_the_product_with_repeated_heads(mode: int, kv_heads: int) -> None:
    ms.set_context(mode=mode)
    config = shaped(num_key_value_heads=kv_heads)
    q, k, v = (x.astype(np.float64) for x in inputs(config.num_attention_heads, kv_heads))
    k, v = (np.repeat(x, config.num_key_value_groups, 1) for x in (k, v))
    scores = np.where(np.tri(9, dtype=bool), config.head_dim**-0.5 * q @ k.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (weights / weights.sum(-1, keepdims=True)) @ v
    tensors = [Tensor(x) for x in inputs(config.num_attention_heads, kv_heads)]
    actual = PlainAttention(config, PrecisionPolicy())(*tensors).asnumpy()
    # The CPU's float32 exp is off by up to 8e-6 relative (at -16); scores here differ by less than 8.
    assert np.abs(actual - expected).max() < 1e-5
