"""The oracle: the mathematics of a case in float64 all the way, written out from the definition of Qwen3.

Both sides are measured against it, so it takes nothing from either: Hugging Face's RMSNorm and eager softmax, for
instance, cast to float32 even in a float64 model. It knows no rounding, so a case's precision policy does not concern
it, and neither do micro batches: a mean over tokens is the same however the batch is split. It splits the rows by
memory alone.

Source: transformers 4.57.1, models/qwen3/modeling_qwen3.py, for what is computed.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.checkpoint import checkpoint

from harness.cases.case import Case
from harness.runners.protocol import Numbers, Setting, Tensors
from harness.runners.torch_processes import OneProcess, grad_norm, processes_of
from harness.runners.torch_training import (
    Tap,
    TorchTrainer,
    build_optimizer,
    build_schedule,
    prepare_torch,
    untapped,
)
from harness.runs.inputs import ProbeGradients
from harness.runs.places import TABLES
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.documents import Documents

Weights = Mapping[str, torch.Tensor]
LOGITS_BYTES = 1 << 28  # of the rows that are computed together
UPDATED_TOGETHER = 1 << 22  # elements of a parameter


class Float64Oracle(TorchTrainer):
    """See `harness.runners.protocol.Runner`."""

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        device = prepare_torch(case, setting)
        processes = processes_of(case, device, setting.rank)
        self._sharded = _Model(case.model, weights, processes) if processes.count > 1 else None
        if self._sharded is not None:
            held = self._sharded.parameters_by_name()
            exact = {name: held[name] for name in weights}
        else:
            exact = {name: tensor.to(device) for name, tensor in _in_float64(weights, weights).items()}
        parameters = {name: tensor.requires_grad_() for name, tensor in exact.items()}
        super().__init__(case, setting, parameters, device, processes)
        self.micro_batches = parts_of_rows(case, processes.count)

    def loss(self, tokens: torch.Tensor, loss_mask: torch.Tensor, count: int) -> torch.Tensor:
        """-sum over counted targets of log softmax(logits)[target], over `count`."""
        recompute = self._case.training.recompute and self.tap is untapped
        model, documents = self._case.model, self._case.data.documents
        if self._sharded is not None:
            found = self._sharded(tokens[:, :-1], self.tap, recompute, documents)
        else:
            found = logits(model, self._parameters, tokens[:, :-1], self.tap, recompute=recompute, documents=documents)
        log_probabilities = torch.log_softmax(found, -1)
        picked = log_probabilities.gather(-1, tokens[:, 1:, None])[..., 0]
        return -(picked * loss_mask).sum() / count

    def measured(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> tuple[Numbers, Tensors]:
        """The next step without its update, and its gradients."""
        loss, count = self._backward(tokens, loss_mask)
        norm = float(grad_norm(self._parameters.values(), self._processes))
        rate = float(self._optimizer.param_groups[0]["lr"])
        numbers = Numbers(loss=loss, grad_norm=norm, learning_rate=rate, tokens=count)
        return numbers, self._taken_gradients()

    def updated(self, name: str, gradients: Sequence[ProbeGradients]) -> npt.NDArray[Any]:
        """AdamW works element by element, so a part of one parameter is updated as it is among all others."""
        whole = self._whole(self._parameters[name])
        updated = np.empty(whole.size)
        for first in range(0, whole.size, UPDATED_TOGETHER):
            part = whole.reshape(-1)[first : first + UPDATED_TOGETHER]
            drawn = (one.elements(name, first, part.size) for one in gradients)
            updated[first : first + part.size] = self._updated(part, drawn, matrix=whole.ndim > 1)
        return updated.reshape(whole.shape)

    def _updated(
        self, values: npt.NDArray[Any], gradients: Iterable[npt.NDArray[Any]], *, matrix: bool
    ) -> npt.NDArray[Any]:
        shape = (1, values.size) if matrix else (values.size,)  # weight decay depends on the number of axes
        parameter = torch.from_numpy(values.copy()).reshape(shape).requires_grad_()
        optimizer = build_optimizer(self._case, [parameter], self._case.lr_schedule.learning_rate)
        schedule = build_schedule(self._case, optimizer, constant=False)
        for gradient in gradients:
            parameter.grad = torch.from_numpy(gradient).to(parameter.dtype).reshape(shape)
            optimizer.step()
            schedule.step()
        updated: npt.NDArray[Any] = parameter.detach().numpy().reshape(-1)
        return updated

    def config(self) -> Mapping[str, Any]:
        return self._case.model.to_hf()


def _in_float64(weights: Tensors, names: Iterable[str]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(weights[name], np.float64)) for name in names}


class _Held(torch.nn.Module):
    """Parameters by names that have dots, which those of a module must not have."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(tensor))

    def weights(self) -> dict[str, torch.Tensor]:
        """As they are now: whole while the module computes, where it is sharded."""
        return {name.replace("/", "."): tensor for name, tensor in self._parameters.items() if tensor is not None}


class _Layer(_Held):
    def __init__(self, config: Qwen3Config, name: str, weights: Weights) -> None:
        super().__init__(weights)
        self._config, self._name = config, name

    def forward(self, *inputs: Any) -> torch.Tensor:
        return decoder_layer(self._config, self.weights(), self._name, *inputs)


class _Model(_Held):
    """The oracle as modules, each sharded as soon as it has its weights; what is computed is in `logits`."""

    def __init__(self, config: Qwen3Config, weights: Tensors, processes: OneProcess) -> None:
        layers, outside = [], set(weights)
        for name in (f"model.layers.{layer}" for layer in range(config.num_hidden_layers)):
            inside = [key for key in weights if key.startswith(f"{name}.")]
            layers.append(_Layer(config, name, _in_float64(weights, inside)))
            processes.shard(layers[-1], torch.float64)
            outside -= {*inside}
        super().__init__(_in_float64(weights, sorted(outside)))
        self._config, self.layers = config, torch.nn.ModuleList(layers)
        processes.shard(self, torch.float64)

    def parameters_by_name(self) -> dict[str, torch.Tensor]:
        found = self.weights()
        for layer in self.layers:
            found |= layer.weights()
        return found

    def forward(self, tokens: torch.Tensor, tap: Tap, recompute: bool, documents: Documents | None) -> torch.Tensor:
        weights, layers = self.weights(), list(self.layers)
        return logits(self._config, weights, tokens, tap, recompute=recompute, documents=documents, layers=layers)


def parts_of_rows(case: Case, processes: int = 1) -> int:
    """The fewest equal parts of a step's rows of which each process has logits below a limit, or a single row."""
    rows, length = case.data.global_batch_size, case.data.seq_length
    fit = max(1, LOGITS_BYTES // (length * case.model.vocab_size * np.dtype(np.float64).itemsize))
    even = (parts for parts in range(1, rows) if rows % parts == 0)
    return next((parts for parts in even if -(-rows // parts // processes) <= fit), rows)


def logits(
    config: Qwen3Config,
    weights: Weights,
    tokens: torch.Tensor,
    tap: Tap = untapped,
    *,
    recompute: bool = False,
    documents: Documents | None = None,
    layers: Sequence[Callable[..., torch.Tensor]] | None = None,
) -> torch.Tensor:
    """Tokens [B, S] -> logits [B, S, V]. `layers` are what computes each layer, where that is not `decoder_layer` with
    its weights. `tap` receives every place of `harness.runs.places` by name and returns it.

    `documents`: what starts again with each document of a row. `recompute`: a layer's activations are computed again
    for its derivative, and not held meanwhile; no bit changes.
    """
    x = tap("model.embed_tokens", weights["model.embed_tokens.weight"][tokens])
    cos, sin = tap(TABLES, torch.stack(rotary(config, tokens.shape[1], tokens.device)))
    hidden, positions = hidden_and_positions(tokens, documents)
    cos, sin = cos[positions][:, None], sin[positions][:, None]
    for layer in range(config.num_hidden_layers):
        one = layers[layer] if layers else functools.partial(decoder_layer, config, weights, f"model.layers.{layer}")
        x = (
            checkpoint(one, x, cos, sin, hidden, tap, use_reentrant=False)
            if recompute
            else one(x, cos, sin, hidden, tap)
        )
    head = weights["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    return tap("lm_head", tap("model.norm", norm(config, weights, "model.norm", x)) @ head.T)


def hidden_and_positions(tokens: torch.Tensor, documents: Documents | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B, S] -> what a query may not see, True [B, 1, S, S], and the position of each token [B, S]; one row for
    all where no documents are told apart.

    A document is everything up to its end token, with that, or up to the end of the row.
    """
    rows, length = (len(tokens) if documents is not None else 1), tokens.shape[1]
    hidden = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1).repeat(rows, 1, 1, 1)
    positions = torch.arange(length, device=tokens.device).repeat(rows, 1)
    if documents is None:
        return hidden, positions
    for row, end in (tokens == documents.end).nonzero().tolist():  # row by row, in order
        if documents.reset_attention_mask:
            hidden[row, :, end + 1 :, : end + 1] = True
        if documents.reset_position_ids:
            positions[row, end + 1 :] = torch.arange(length - end - 1, device=tokens.device)
    return hidden, positions


def decoder_layer(
    config: Qwen3Config,
    weights: Weights,
    name: str,
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    hidden: torch.Tensor,
    tap: Tap,
) -> torch.Tensor:
    """Attention, then the MLP, each of the normed stream and added to it."""
    normed = tap(f"{name}.input_layernorm", norm(config, weights, f"{name}.input_layernorm", x))
    x = tap(f"{name}.residual", x + attention(config, weights, f"{name}.self_attn", normed, cos, sin, hidden, tap))
    normed = norm(config, weights, f"{name}.post_attention_layernorm", x)
    return tap(name, x + mlp(weights, f"{name}.mlp", tap(f"{name}.post_attention_layernorm", normed), tap))


def norm(config: Qwen3Config, weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + config.rms_norm_eps) * weights[f"{name}.weight"]


def rotary(config: Qwen3Config, length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [S, D] of position * theta^(-2i / D); both halves of D have the same angles.

    Both sides round the angles to float32, an error that they share and that grows with the position: a fifth of the
    reference's error in its gradients at 64 tokens, most of it at 1,024.
    """
    i = torch.arange(0, config.head_dim, 2, dtype=torch.float64, device=device)
    angles = torch.arange(length, dtype=torch.float64, device=device)[:, None] * config.rope_theta ** (
        -i / config.head_dim
    )
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Each pair (x[i], x[i + D/2]) turned by its angle."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def attention(
    config: Qwen3Config,
    weights: Weights,
    name: str,
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    hidden: torch.Tensor,
    tap: Tap,
) -> torch.Tensor:
    """Attention to what is not hidden; queries share key-value heads in groups, q and k are normed head by head."""
    batch, length, _ = x.shape

    def heads(part: str) -> torch.Tensor:
        projected = tap(f"{name}.{part}_proj", x @ weights[f"{name}.{part}_proj.weight"].T)
        return projected.view(batch, length, -1, config.head_dim).transpose(1, 2)

    def turned(part: str) -> torch.Tensor:
        normed = norm(config, weights, f"{name}.{part}_norm", heads(part)).transpose(1, 2)
        normed = tap(f"{name}.{part}_norm", normed).transpose(1, 2)
        return tap(f"{name}.rotary_emb.{part}", rotated(normed, cos, sin))

    q, k = turned("q"), turned("k")
    k, v = (part.repeat_interleave(config.num_key_value_groups, 1) for part in (k, heads("v")))
    scores = q @ k.transpose(2, 3) / math.sqrt(config.head_dim)
    probabilities = tap(f"{name}.softmax", torch.softmax(scores.masked_fill(hidden, -math.inf), -1))
    mixed = tap(f"{name}.mix", (probabilities @ v).transpose(1, 2).reshape(batch, length, -1))
    return tap(name, tap(f"{name}.o_proj", mixed @ weights[f"{name}.o_proj.weight"].T))


def mlp(weights: Weights, name: str, x: torch.Tensor, tap: Tap) -> torch.Tensor:
    """down(silu(gate(x)) * up(x)), silu(a) = a / (1 + e^-a)."""
    gate, up = (tap(f"{name}.{part}_proj", x @ weights[f"{name}.{part}_proj.weight"].T) for part in ("gate", "up"))
    product = tap(f"{name}.act", gate * torch.sigmoid(gate) * up)
    return tap(name, tap(f"{name}.down_proj", product @ weights[f"{name}.down_proj.weight"].T))
