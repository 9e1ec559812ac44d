"""The upper rungs: logits, loss, every parameter's gradient, one optimizer step, a curve of twenty steps."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import torch
import transformers
from mindspore import Tensor

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.optimizer import AdamWConfig
from qwen3_model.schedule import ConstantSchedule
from qwen3_model.weights import load_safetensors, save_safetensors
from tests.model.qwen3_cases import OPTIMIZER, differing, random_batch, random_weights, shaped, trainer
from tests.parity.hf_reference import gradients, largest_error, loss, optimizer, parameters, reference
from tests.support.full import full

# Every ratio of query to key heads, both heads, odd lengths, a head width that is and is not hidden / heads.
SHAPES = {
    "gqa2-untied-17": (shaped("tiny"), 17),
    "gqa2-tied-16": (shaped("tiny-tied"), 16),
    "gqa1-untied-1": (shaped("tiny", num_key_value_heads=4), 1),
    "gqa4-tied-31": (shaped("tiny-tied", num_key_value_heads=1, head_dim=16), 31),
}
EAGER = {"gqa2-untied-17", "gqa4-tied-31"}
RUNS = [(name, True) for name in SHAPES] + [(name, False) for name in SHAPES if name in EAGER]
# One token is a shape of its own: what is repeated along an axis elsewhere has that axis already.
QUICK = [("gqa1-untied-1", True), ("gqa2-tied-16", True), ("gqa4-tied-31", False), ("gqa2-untied-17", True)]
OTHER_SHAPES = full(held_by="tests/parity/test_qwen3_model_parity.py::test_logits_and_every_gradient")


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        pytest.param(
            *one, id=f"{one[0]}-{'graph' if one[1] else 'pynative'}", marks=() if one in QUICK else OTHER_SHAPES
        )
        for one in RUNS
    ],
)
def test_logits_and_every_gradient(name: str, graph: bool) -> None:
    config, length = SHAPES[name]
    weights, (tokens, mask) = random_weights(config), random_batch(config, length=length)
    mask[0, 0] = 1.0
    theirs = reference(config, weights)
    ours = trainer(config, weights, graph_mode=graph)
    expected = theirs(torch.from_numpy(tokens[:, :-1]).long()).logits.detach().numpy()
    ms.set_context(mode=ms.GRAPH_MODE if graph else ms.PYNATIVE_MODE)
    # Two layers, each within 3e-6 at the scale of its output; errors add like noise. Measured 1e-6.
    assert largest_error(ours.model(Tensor(tokens[:, :-1])).asnumpy(), expected) < 5e-6
    exact = gradients(reference(config, weights, torch.float64), tokens, mask)
    actual = ours.gradients(tokens, mask)
    assert actual.keys() == exact.keys()
    errors = {name: largest_error(gradient, exact[name]) for name, gradient in actual.items()}
    # exp's error of some 1e-6 enters through softmax and silu, forward and backward, in each layer.
    assert {name: error for name, error in errors.items() if not error < 2e-5} == {}


@pytest.mark.parametrize("name", ["gqa2-untied-17", "gqa2-tied-16"])
def test_one_optimizer_step(name: str) -> None:
    """Loss, norm and every updated parameter, with clipping active, against the float64 oracle."""
    config, length = SHAPES[name]
    weights, (tokens, mask) = random_weights(config), random_batch(config, length=length)
    # With torch's eps of 1e-8 a first step is the gradient's sign: any rounding of a zero gradient would flip it.
    constants = AdamWConfig(weight_decay=0.1, eps=1e-3)
    oracle = reference(config, weights, torch.float64)
    expected_loss = loss(oracle, tokens, mask)
    expected_loss.backward()
    expected_norm = torch.nn.utils.clip_grad_norm_(oracle.parameters(), 1.0)
    optimizer(oracle, constants, 1e-3).step()
    ours = trainer(config, weights, optimizer=constants)
    result = ours.train_step(tokens, mask)
    # A few float32 roundings of the loss; measured below 2e-7.
    assert result.loss == pytest.approx(expected_loss.item(), rel=5e-7)
    assert result.grad_norm == pytest.approx(expected_norm.item(), rel=5e-6)
    assert result.grad_norm > 1.0
    updates = {n: p.astype(np.float64) - weights[n] for n, p in ours.parameters().items()}
    exact = {n: p - weights[n] for n, p in parameters(oracle).items()}
    # A parameter near 1 is rounded by 6e-8, its update is at most 1e-3: 6e-5 of it. Gradients bring 2e-5 more.
    assert {n: e for n, u in updates.items() if not (e := largest_error(u, exact[n])) < 1e-4} == {}


def test_curve_of_twenty_steps() -> None:
    config = shaped("tiny")
    weights = random_weights(config)
    theirs, ours = reference(config, weights), trainer(config, weights, schedule=ConstantSchedule(peak=1e-4))
    steps = optimizer(theirs, OPTIMIZER, 1e-4)
    batches = [random_batch(config, length=33, seed=seed % 4) for seed in range(20)]
    losses = []
    for tokens, mask in batches:
        steps.zero_grad()
        expected = loss(theirs, tokens, mask)
        expected.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        steps.step()
        result = ours.train_step(tokens, mask)
        losses.append(result.loss)
        # Float32 against float32: both sides' roundings, which training carries along. Measured 3e-7 and 4e-6.
        assert result.loss == pytest.approx(expected.item(), rel=2e-6)
        assert result.grad_norm == pytest.approx(norm.item(), rel=2e-5)
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1


def test_checkpoint_written_here_is_read_by_hugging_face(tmp_path: Path) -> None:
    config = shaped("tiny-tied")
    weights = random_weights(config)
    save_safetensors(weights, tmp_path, max_shard_size="100KB")
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert differing(parameters(model), weights) == []
    model.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert differing(load_safetensors(tmp_path / "theirs"), weights) == []
    assert Qwen3Config.from_hf(tmp_path / "theirs").hidden_size == config.hidden_size
