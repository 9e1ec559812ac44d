"""The reference side of the parity ladder: Hugging Face's Qwen3 in PyTorch, with the same weights and batches."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.optimizer import AdamWConfig, decays

Array = npt.NDArray[Any]


def reference(
    config: Qwen3Config, weights: Mapping[str, Array], dtype: torch.dtype = torch.float32
) -> transformers.Qwen3ForCausalLM:
    """Hugging Face's model in eager attention, holding exactly these weights."""
    torch.set_num_threads(2)
    hf_config = transformers.Qwen3Config(**config.to_hf(), attn_implementation="eager")
    model = transformers.Qwen3ForCausalLM(hf_config).to(dtype)
    result = model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()}, strict=False)
    assert result.unexpected_keys == []
    assert result.missing_keys == (["lm_head.weight"] if config.tie_word_embeddings else [])
    return model.train()


def loss(model: transformers.Qwen3ForCausalLM, tokens: Array, mask: Array) -> torch.Tensor:
    """Mean negative log-likelihood of the unmasked targets, summed in float64."""
    batch = torch.from_numpy(tokens).long()
    logits = model(batch[:, :-1]).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
    weights = torch.from_numpy(mask).flatten().double()
    return (losses.double() * weights).sum() / weights.sum()


def gradients(model: transformers.Qwen3ForCausalLM, tokens: Array, mask: Array) -> dict[str, Array]:
    """The gradient of every parameter by name."""
    model.zero_grad()
    loss(model, tokens, mask).backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def optimizer(model: transformers.Qwen3ForCausalLM, config: AdamWConfig, rate: float) -> torch.optim.AdamW:
    """torch's AdamW with the model's decay groups."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if decays(n)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(config.beta1, config.beta2), eps=config.eps)


def parameters(model: transformers.Qwen3ForCausalLM) -> dict[str, Array]:
    """A copy of every parameter by name; a tied head has none of its own."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


@contextmanager
def bfloat16_matmuls(model: transformers.Qwen3ForCausalLM) -> Iterator[None]:
    """torch's autocast with float32 norms: q_norm and k_norm would otherwise work on bfloat16 projections."""

    def upcast(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(x.float() for x in inputs)

    hooks = [
        norm.register_forward_pre_hook(upcast)
        for layer in model.model.layers
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm)
    ]
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def largest_error(actual: Array, expected: Array) -> float:
    """max |a - b| / max |b|: the error at the scale of the whole array; max |a| where b is zero. NaN gives NaN."""
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / (np.abs(expected).max() or 1.0))
