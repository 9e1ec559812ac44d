"""The reference: Hugging Face `Qwen3ForCausalLM` with eager attention, trained by PyTorch's AdamW.

The precision policy is the case's: everything in float32, or with `compute_dtype` bfloat16 the matrix products under
`torch.autocast` while parameters, norms, softmax, rotary embedding and residual stay float32. Hugging Face's RMSNorm
rounds to the dtype of its input, so the inputs of q_norm and k_norm, which are outputs of a product, are widened first.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch

from harness.cases.case import Case
from harness.runners.hugging_face import causal_mask, config_of, transformers
from harness.runners.protocol import Setting, Tensors
from harness.runners.registry import check_policy
from harness.runners.torch_processes import ALONE, OneProcess, processes_of
from harness.runners.torch_training import Tap, TorchTrainer, prepare_torch
from harness.runs.places import TABLES

modeling_qwen3 = transformers.models.qwen3.modeling_qwen3

# The modules of a layer whose results are places, and the places that one of them takes and no module gives.
OF_A_LAYER = re.compile(
    r"model\.layers\.\d+(\.(input_layernorm|post_attention_layernorm"
    r"|self_attn(\.([qkvo]_proj|[qk]_norm))?|mlp(\.(gate|up|down)_proj)?))?"
)
TAKEN = {"o_proj": "mix", "down_proj": "act", "post_attention_layernorm": "residual"}
IGNORE_INDEX = -100  # the label that Hugging Face's loss leaves out


class TorchReference(TorchTrainer):
    """See `harness.runners.protocol.Runner`.

    Raises:
        InputError: the case has a precision policy that the reference cannot follow.
    """

    attention = "eager"

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        check_policy(case)
        device = prepare_torch(case, setting)
        self.micro_batches = case.training.gradient_accumulation_steps
        processes = processes_of(case, device, setting.rank)
        self.model = build_model(case, weights, self.attention, device, processes)
        self._masks: dict[tuple[int, int], Any] = {}
        super().__init__(case, setting, dict(self.model.named_parameters()), device, processes)

    def loss(self, tokens: torch.Tensor, loss_mask: torch.Tensor, count: int) -> torch.Tensor:
        """Hugging Face's own loss, summed and divided by `count`; the labels are shifted already."""
        labels = tokens[:, 1:].masked_fill(loss_mask == 0, IGNORE_INDEX)
        positions, mask = self._positions_and_mask(tokens[:, :-1])
        with precision(self._case, self._device):
            output = self.model(
                input_ids=tokens[:, :-1],
                position_ids=positions,
                attention_mask=mask,
                labels=labels,
                shift_labels=labels,
                num_items_in_batch=count,
                use_cache=False,
            )
        loss: torch.Tensor = output.loss
        return loss

    def _positions_and_mask(self, inputs: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The position of each token, and Hugging Face's own mask, of which it finds the documents of a row by their
        positions. The causal one is made once a shape: the model would make the same one again in every step, which
        takes two fifths of a step of a small model."""
        plain, documents = torch.arange(inputs.shape[1], device=self._device)[None], self._case.data.documents
        if documents is None:
            shape = (inputs.shape[0], inputs.shape[1])
            if shape not in self._masks:
                self._masks[shape] = causal_mask(self.model, inputs, plain)
            return plain, self._masks[shape]
        within = positions_in_documents(inputs, documents.end)
        return (
            within if documents.reset_position_ids else plain,
            causal_mask(self.model, inputs, within if documents.reset_attention_mask else plain),
        )

    def config(self) -> Mapping[str, Any]:
        return config_of(self.model)

    @contextlib.contextmanager
    def showing(self, tap: Tap) -> Iterator[None]:
        """Besides the loss, every place of Hugging Face's modules: what they give, or what the next one takes."""
        with super().showing(tap), contextlib.ExitStack() as hooks:
            for name, module in self.model.named_modules():
                if name == TABLES and self._case.data.reset_position_ids:
                    continue  # of each row another one: they are no place of a step, which has one table for all
                for hook in _hooks(name, module, tap):
                    hooks.callback(hook.remove)
            hooks.enter_context(mock.patch.object(modeling_qwen3, "eager_attention_forward", _attention(self, tap)))
            if self._case.training.recompute:  # a layer that is computed twice would be shown twice
                self.model.gradient_checkpointing_disable()
                hooks.callback(_recompute, self.model)
            yield

    def provenance(self) -> dict[str, Any]:
        """Torch's, and the version of transformers with the attention that was chosen."""
        attention = {"transformers": transformers.__version__, "attention": self.model.config._attn_implementation}
        return {**super().provenance(), **attention}


def positions_in_documents(inputs: torch.Tensor, end: int) -> torch.Tensor:
    """Tokens [B, S] -> how many tokens of its document are before each; `end` is the last of a document."""
    places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    ends = torch.where(inputs == end, places + 1, 0).cummax(-1).values
    begins = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    return places - begins


class FusedAttentionReference(TorchReference):
    """The reference with PyTorch's fused attention: as correct, with other roundings. It measures the floor."""

    attention = "sdpa"


def build_model(
    case: Case, weights: Tensors, attention: str, device: torch.device, processes: OneProcess = ALONE
) -> Any:
    """The model with the case's weights, strictly loaded, in training mode; of several processes each has its part."""
    config = transformers.Qwen3Config(**case.model.to_hf(), attn_implementation=attention)
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(config)
    model.tie_weights()
    if case.training.recompute:
        _recompute(model)
    # the rotary frequencies are no parameter, so an empty model does not have them
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    # what is sharded is copied then, and gets to its device part by part
    first = device if processes.count == 1 else torch.device("cpu")
    filled = []
    for number, layer in enumerate(model.model.layers):
        filled += _fill(layer, f"model.layers.{number}", weights, first)
        for norm in (layer.self_attn.q_norm, layer.self_attn.k_norm):
            norm.register_forward_pre_hook(_widen)
        processes.shard(layer)
    for name in ("model.embed_tokens", "model.norm", *([] if case.model.tie_word_embeddings else ["lm_head"])):
        filled += _fill(model.get_submodule(name), name, weights, first)
    assert {*filled} == {*weights}, f"the model has no parameters for {sorted({*weights} - {*filled})}"
    model.tie_weights()
    processes.shard(model)
    return model.train()


def _fill(module: torch.nn.Module, name: str, weights: Tensors, device: torch.device) -> list[str]:
    """Gives an empty module the weights under its name, which are read now; the names of what it took."""
    names = {f"{name}.{inner}": inner for inner in module.state_dict()}
    given = {inner: torch.from_numpy(np.array(weights[whole])).to(device) for whole, inner in names.items()}
    module.load_state_dict(given, strict=True, assign=True)  # copied, the weights would be held twice
    return [*names]


def _recompute(model: Any) -> None:
    """Each layer's activations are computed again for its derivative, and not held meanwhile."""
    model.gradient_checkpointing_enable({"use_reentrant": False})


def _widen(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0].float(),)


def precision(case: Case, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """What the forward pass runs in."""
    if case.precision.compute_dtype == "float32":
        return contextlib.nullcontext()
    autocast: contextlib.AbstractContextManager[None] = torch.autocast(device.type, dtype=torch.bfloat16)
    return autocast


def _hooks(name: str, module: torch.nn.Module, tap: Tap) -> Iterator[Any]:
    """Shows what a module gives and, where no module gives it, what it takes."""
    if name in ("model.embed_tokens", "model.norm", "lm_head") or OF_A_LAYER.fullmatch(name):
        yield module.register_forward_hook(lambda _, __, given: _shown(name, given, tap))
    if name == TABLES:  # [1, S, D] each: the same for every row
        yield module.register_forward_hook(lambda _, __, given: _show(name, torch.cat(given), tap))
    layer, _, last = name.rpartition(".")
    if last in TAKEN:
        yield module.register_forward_pre_hook(lambda _, taken: (tap(f"{layer}.{TAKEN[last]}", taken[0]),))


def _show(name: str, given: torch.Tensor, tap: Tap) -> None:
    """What a module gives stays as it is."""
    tap(name, given)


def _shown(name: str, given: Any, tap: Tap) -> Any:
    """Attention returns its probabilities with its result."""
    return (tap(name, given[0]), *given[1:]) if isinstance(given, tuple) else tap(name, given)


def _attention(reference: TorchReference, tap: Tap) -> Callable[..., Any]:
    """Hugging Face's eager attention, called through the name by which its modules look it up."""
    names = {id(module): name for name, module in reference.model.named_modules()}
    eager = modeling_qwen3.eager_attention_forward

    def shown(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, *others: Any, **options: Any) -> Any:
        name = names[id(module)]
        query, key = tap(f"{name}.rotary_emb.q", query), tap(f"{name}.rotary_emb.k", key)
        mixed, probabilities = eager(module, query, key, *others, **options)
        return mixed, tap(f"{name}.softmax", probabilities)

    return shown
