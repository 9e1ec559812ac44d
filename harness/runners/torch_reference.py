"""The reference: Hugging Face `Qwen3ForCausalLM` with eager attention, trained by PyTorch's AdamW.

The precision policy is the case's: everything in float32, or with `compute_dtype` bfloat16 the matrix products under
`torch.autocast` while parameters, norms, softmax, rotary embedding and residual stay float32. Hugging Face's RMSNorm
rounds to the dtype of its input, so the inputs of q_norm and k_norm, which come out of a product, are widened first.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Qwen3Config, Qwen3ForCausalLM

from harness.case import Case
from harness.runners import Setting, Tensors, check_policy
from harness.runners.torch_training import TorchTrainer

IGNORE_INDEX = -100  # the label that Hugging Face's loss leaves out


class TorchReference(TorchTrainer):
    """See `harness.runners.Runner`.

    Raises:
        InputError: the case asks for a precision policy that the reference cannot follow.
    """

    attention = "eager"

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        check_policy(case)
        self.micro_batches = case.training.gradient_accumulation_steps
        self.model = build_model(case, weights, self.attention)
        super().__init__(case, setting, dict(self.model.named_parameters()))

    def loss(self, tokens: torch.Tensor, loss_mask: torch.Tensor, count: int) -> torch.Tensor:
        """Hugging Face's own loss, summed and divided by `count`; the labels are shifted already."""
        labels = tokens[:, 1:].masked_fill(loss_mask == 0, IGNORE_INDEX)
        with precision(self._case):
            output = self.model(
                input_ids=tokens[:, :-1], labels=labels, shift_labels=labels, num_items_in_batch=count, use_cache=False
            )
        loss: torch.Tensor = output.loss
        return loss

    def config(self) -> Mapping[str, Any]:
        return self.model.config.to_dict()

    def provenance(self) -> dict[str, Any]:
        """Torch's, and the version of transformers with the attention that was chosen."""
        attention = {"transformers": transformers.__version__, "attention": self.model.config._attn_implementation}
        return {**super().provenance(), **attention}


class FusedAttentionReference(TorchReference):
    """The reference with PyTorch's fused attention: as correct, with other roundings. It measures the floor."""

    attention = "sdpa"


def build_model(case: Case, weights: Tensors, attention: str = TorchReference.attention) -> Qwen3ForCausalLM:
    """The model with the case's weights, strictly loaded, in training mode."""
    config = Qwen3Config(**case.model.to_hf(), attn_implementation=attention)
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
