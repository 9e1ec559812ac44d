"""transformers, imported without scikit-learn; and everything in which its versions differ for the runners.

Where scikit-learn is installed, transformers imports it for assisted generation, which no run uses, and with it pandas
and `scipy.stats`: 2 of the 8 seconds of CPU time in which a run of the reference begins. Which packages there are, it
looks up once, at its own import.

Tried: 4.51.3, the first series with Qwen3, 4.57.1 and 5.24.0. No runner reads a version: each difference is one
function here, which names the versions and what they changed.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_HIDDEN = "sklearn"
_hides = _HIDDEN not in sys.modules
if _hides:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment]
try:
    import transformers
finally:
    if _hides:
        del sys.modules[_HIDDEN]

__all__ = ["cache_of", "causal_mask", "config_of", "rendered", "transformers"]


def causal_mask(model: Any, inputs: torch.Tensor, positions: torch.Tensor) -> Any:
    """What a model takes as its attention mask for rows of tokens [B, S] whose documents begin where a position is 0.

    From 4.53 it is Hugging Face's own mask, by layer type. Before, there is no `transformers.masking_utils`, and no
    function that finds documents by their positions: the mask is written here, as 4.51's eager attention makes it.
    """
    if not hasattr(transformers, "masking_utils"):
        return _written_mask(inputs, positions)
    make = transformers.masking_utils.create_causal_mask
    embedded = torch.empty(*inputs.shape, 1, device=inputs.device)
    given = {
        "config": model.config,
        "attention_mask": None,
        "position_ids": positions,
        # 5 calls these `inputs_embeds` and `cache`, and takes no `cache_position`
        "input_embeds": embedded,
        "inputs_embeds": embedded,
        "past_key_values": None,
        "cache": None,
        "cache_position": torch.arange(inputs.shape[1], device=inputs.device),
    }
    taken = inspect.signature(make).parameters
    return {"full_attention": make(**{name: value for name, value in given.items() if name in taken})}


def _written_mask(inputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows [B, S] -> [B, 1, S, S]: 0 where a query sees a key, else the lowest number of float32."""
    place = torch.arange(inputs.shape[1], device=inputs.device)
    document = (positions == 0).cumsum(-1)[:, None]
    seen = (place[None, :] <= place[:, None]) & (document[..., :, None] == document[..., None, :])
    lowest = torch.finfo(torch.float32).min
    mask = torch.zeros(seen.shape, device=inputs.device).masked_fill(~seen, lowest)
    return mask.expand(inputs.shape[0], -1, -1, -1)


def config_of(model: Any) -> Mapping[str, Any]:
    """The fields of a model's `config.json`. From 5 the rotary base is in `rope_parameters`; before, it is
    `rope_theta`, which is the name that this program compares."""
    fields: dict[str, Any] = model.config.to_dict()
    rope = fields.get("rope_parameters")
    return {"rope_theta": rope["rope_theta"], **fields} if rope else fields


def cache_of(model: Any) -> Any:
    """An empty cache of keys and values. Before 4.56 it takes no configuration."""
    takes = inspect.signature(transformers.DynamicCache.__init__).parameters
    return transformers.DynamicCache(config=model.config) if "config" in takes else transformers.DynamicCache()


def rendered(tokenizer: Any, conversation: Sequence[Mapping[str, str]]) -> list[int]:
    """The tokens of a conversation up to the answer. From 5 they come as one of several results, unless the caller
    states otherwise."""
    tokens: list[int] = tokenizer.apply_chat_template(list(conversation), add_generation_prompt=True, return_dict=False)
    return tokens
