"""The reference: Hugging Face `Qwen3ForCausalLM` with eager attention, trained by PyTorch's AdamW.

The precision policy is the case's: everything in float32, or with `compute_dtype` bfloat16 the matrix products under
`torch.autocast` while parameters, norms, softmax, rotary embedding and residual stay float32. Hugging Face's RMSNorm
rounds to the dtype of its input, so the inputs of q_norm and k_norm, which come out of a product, are widened first.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.optimization import get_constant_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup

from harness.case import Case
from harness.runners import Numbers, Setting, Tensors, check_policy

IGNORE_INDEX = -100  # the label that Hugging Face's loss leaves out
STATE, POSITION = "state.safetensors", "position.json"


class TorchReference:
    """See `harness.runners.Runner`.

    Raises:
        InputError: the case asks for a precision policy that the reference cannot follow.
    """

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        check_policy(case)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(setting.threads)
        torch.manual_seed(case.initialization.seed)
        self._case, self._zero = case, setting.learning_rate_zero
        self.model = build_model(case, weights)
        self._optimizer = build_optimizer(case, self.model, 0.0 if self._zero else case.lr_schedule.learning_rate)
        self._schedule = build_schedule(case, self._optimizer, constant=self._zero)
        self._step = 0

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update; micro batches in order, each divided by the token count of the whole batch."""
        self._optimizer.zero_grad(set_to_none=True)
        count = int(loss_mask.sum())
        parts = np.split(np.arange(len(tokens)), self._case.training.gradient_accumulation_steps)
        losses = [self._backward(tokens[rows], loss_mask[rows], count) for rows in parts]
        norm = grad_norm(self.model)
        if self._case.training.clip_grad is not None:
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self._case.training.clip_grad, norm)
        learning_rate = float(self._optimizer.param_groups[0]["lr"])
        self._optimizer.step()
        self._schedule.step()
        self._step += 1
        loss = float(torch.stack(losses).sum())
        return Numbers(loss=loss, grad_norm=float(norm), learning_rate=learning_rate, tokens=count)

    def _backward(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8], count: int) -> torch.Tensor:
        batch = torch.from_numpy(tokens.astype(np.int64))
        labels = batch[:, 1:].masked_fill(torch.from_numpy(loss_mask) == 0, IGNORE_INDEX)
        with precision(self._case):
            # The labels are shifted already, and the loss is Hugging Face's own, summed and divided by `count`.
            output = self.model(
                input_ids=batch[:, :-1], labels=labels, shift_labels=labels, num_items_in_batch=count, use_cache=False
            )
        output.loss.backward()
        return output.loss.detach()

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Copies, by name; a tied head is the embedding and has no tensor of its own."""
        return {name: parameter.detach().numpy().copy() for name, parameter in self.model.named_parameters()}

    def save(self, directory: Path) -> None:
        """Parameters and moments; everything else follows from the step."""
        directory.mkdir(parents=True, exist_ok=True)
        save_file(dict(self._state()), directory / STATE)
        (directory / POSITION).write_text(json.dumps(self._step), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Continues where `save` stopped."""
        saved = load_file(directory / STATE)
        self._step = json.loads((directory / POSITION).read_text(encoding="utf-8"))
        for parameter in self.model.parameters():
            zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[parameter] = {"step": torch.tensor(float(self._step)), **zeros}
        with torch.no_grad():
            for name, tensor in self._state():
                tensor.copy_(saved[name])
        for _ in range(self._step):
            self._schedule.step()

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.model.named_parameters():
            yield name, parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq"):
                yield f"{moment}.{name}", self._optimizer.state[parameter][moment]

    def provenance(self) -> dict[str, Any]:
        """Versions, threads and the instruction set that torch dispatches to."""
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "attention": "eager",
            "threads": torch.get_num_threads(),
            "isa": torch.backends.cpu.get_cpu_capability(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }


def build_model(case: Case, weights: Tensors) -> Qwen3ForCausalLM:
    """The model with the case's weights, strictly loaded, in training mode."""
    config = Qwen3Config(**case.model.to_hf(), attn_implementation="eager")
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model.to_empty(device="cpu")
    model.float()
    tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in weights.items()}
    if case.model.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, strict=True)
    model.tie_weights()
    # the rotary frequencies are no parameter, so an empty model does not have them
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    for layer in model.model.layers:
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            norm.register_forward_pre_hook(_widen)
    return model.train()


def _widen(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0].float(),)


def precision(case: Case) -> contextlib.AbstractContextManager[None]:
    """What the forward pass runs in."""
    if case.precision.compute_dtype == "float32":
        return contextlib.nullcontext()
    autocast: contextlib.AbstractContextManager[None] = torch.autocast("cpu", dtype=torch.bfloat16)
    return autocast


def build_optimizer(case: Case, model: torch.nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW whose decay spares the norms, which are the only parameters of one dimension."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    no_decay = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decay, "weight_decay": case.optimizer.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=case.optimizer.betas, eps=case.optimizer.eps, foreach=False
    )


def build_schedule(case: Case, optimizer: torch.optim.Optimizer, constant: bool) -> Any:
    """The schedule of transformers by that name; `constant` keeps the optimizer's own rate."""
    schedule, steps = case.lr_schedule, case.training.steps
    if constant or schedule.type == "constant":
        return get_constant_schedule_with_warmup(optimizer, num_warmup_steps=schedule.warmup_steps)
    return get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, num_warmup_steps=schedule.warmup_steps, num_training_steps=steps, min_lr=schedule.lr_end
    )


def grad_norm(model: torch.nn.Module) -> torch.Tensor:
    """Global L2 norm of all gradients, summed in float64: a float32 sum of squares loses the digits to compare."""
    squares = [p.grad.double().pow(2).sum() for p in model.parameters() if p.grad is not None]
    return torch.stack(squares).sum().sqrt()
