"""What the collector is given of a PyTorch model: copies of its parameters, and its alignment as built."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.runs.alignment import alignment

IGNORED = -100  # the label that Hugging Face's losses leave out
Array = npt.NDArray[Any]


def arrays(model: torch.nn.Module) -> Iterator[tuple[str, Array]]:
    """Copies of the parameters by name, one at a time; bfloat16 and float16 widened to float32, which is exact."""
    for name, parameter in model.named_parameters():
        yield plain_name(name), as_array(parameter)


def gradients(model: torch.nn.Module) -> Iterator[tuple[str, Array]]:
    """Copies of the gradients by name."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            yield plain_name(name), as_array(parameter.grad)


def plain_name(name: str) -> str:
    """The name of a parameter without what wrappers put before it."""
    for wrapper in ("module.", "_orig_mod."):
        while name.startswith(wrapper):
            name = name.removeprefix(wrapper)
    return name


def as_array(tensor: torch.Tensor) -> Array:
    """A copy on the host."""
    held = tensor.detach()
    held = held.float() if held.dtype in (torch.bfloat16, torch.float16) else held
    copy: Array = held.cpu().numpy().copy()
    return copy


def norm_of_gradients(model: torch.nn.Module) -> float:
    """The norm of all gradients together, summed in float64."""
    squares = [
        parameter.grad.detach().double().square().sum()
        for parameter in model.parameters()
        if parameter.grad is not None
    ]
    return float(torch.stack([one.cpu() for one in squares]).sum().sqrt()) if squares else 0.0


def built(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    clip_grad: float | None,
    gradient_accumulation_steps: int,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The alignment of a model with an AdamW optimizer; `config` are the fields of `config.json`, by default those of
    `model.config`."""
    shapes = {plain_name(name): tuple(one.shape) for name, one in model.named_parameters()}
    groups = optimizer.param_groups
    decayed = {id(one) for group in groups if group["weight_decay"] for one in group["params"]}
    beta1, beta2 = groups[0]["betas"]
    return alignment(
        model=model.config.to_dict() if config is None else config,
        shapes=shapes,
        optimizer={
            "beta1": beta1,
            "beta2": beta2,
            "eps": groups[0]["eps"],
            "weight_decay": max(group["weight_decay"] for group in groups),
        },
        decayed=frozenset(plain_name(name) for name, one in model.named_parameters() if id(one) in decayed),
        clip_grad=clip_grad,
        gradient_accumulation_steps=gradient_accumulation_steps,
    )


def batch_of(input_ids: torch.Tensor, labels: torch.Tensor) -> tuple[Array, Array]:
    """Tokens [B, S+1] and loss mask [B, S] of a batch in Hugging Face's form, whose labels are not shifted yet."""
    tokens, targets = input_ids.detach().cpu().numpy(), labels.detach().cpu().numpy()
    return tokens.astype(np.int32), (targets[:, 1:] != IGNORED).astype(np.uint8)
