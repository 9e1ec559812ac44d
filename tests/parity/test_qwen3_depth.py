"""Depth: the number of layers of the published models compiles, and the first step is that of Hugging Face."""

import numpy as np
import pytest
import torch

from tests.model.qwen3_cases import random_batch, random_weights, shaped, trainer
from tests.parity.hf_reference import loss, reference
from tests.support.full import full

# Layers of 0.6B and 1.7B; of 4B and 8B; of 14B; of 32B.
QUICK, *DEEPER = 28, 36, 40, 64
AT_28 = full(held_by="tests/parity/test_qwen3_depth.py::test_the_first_step_of_a_deep_model_is_that_of_hugging_face")


@pytest.mark.parametrize(
    ("layers", "micro_batches"),
    [
        (QUICK, 1),
        *(
            pytest.param(n, parts, marks=AT_28)
            for n in (QUICK, *DEEPER)
            for parts in (1, 2)
            if (n, parts) != (QUICK, 1)
        ),
    ],
)
def test_the_first_step_of_a_deep_model_is_that_of_hugging_face(layers: int, micro_batches: int) -> None:
    config = shaped("tiny-tied", num_hidden_layers=layers)
    # Residual branches of the size that a model of this depth has at its start; larger ones make the loss chaotic.
    weights = {name: w if w.ndim == 1 else w * np.float32(0.2) for name, w in random_weights(config).items()}
    tokens, mask = random_batch(config, length=16)
    ours = trainer(config, weights, gradient_accumulation_steps=micro_batches)
    result = ours.train_step(tokens, mask)
    exact = reference(config, weights, torch.float64)
    expected = loss(exact, tokens, mask)
    expected.backward()
    norm = torch.nn.utils.clip_grad_norm_(exact.parameters(), 1.0)
    assert result.loss == pytest.approx(expected.item(), rel=5e-7)
    assert result.grad_norm == pytest.approx(norm.item(), rel=5e-6)
    assert ours.train_step(tokens, mask).loss < result.loss
