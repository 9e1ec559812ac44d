"""What a run states of its configuration, parameters and optimizer, in one flat mapping that both sides fill alike.

What a case requires of it is computed in `harness.cases.alignment`.
"""

from collections.abc import Mapping
from typing import Any

# The fields of `config.json` that affect the mathematics of a training step.
MODEL_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings",
    "attention_bias", "attention_dropout",
)  # fmt: skip


def alignment(
    model: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    optimizer: Mapping[str, Any],
    decayed: frozenset[str],
    clip_grad: float | None,
    gradient_accumulation_steps: int,
) -> dict[str, Any]:
    """The compared keys, in one flat mapping of JSON values. It is used for both sides and for the case.

    Args:
        model: fields of `config.json`; only those that affect the mathematics are used.
        shapes: shape of every parameter by name.
        optimizer: `beta1`, `beta2`, `eps`, `weight_decay`.
        decayed: the parameters to which weight decay applies.
    """
    return {
        **model_alignment(model, shapes),
        # A decay of 0 is no decay, also if an optimizer has a separate group for such parameters.
        **{f"weight decay on {name}": name in decayed and optimizer["weight_decay"] > 0 for name in shapes},
        **{f"optimizer.{name}": optimizer[name] for name in ("beta1", "beta2", "eps", "weight_decay")},
        "clip_grad": clip_grad,
        "gradient_accumulation_steps": gradient_accumulation_steps,
    }


def model_alignment(model: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The keys of the model, which are all that an inference runner has."""
    return {
        **{f"model.{name}": model[name] for name in MODEL_FIELDS},
        **{f"shape of {name}": list(shape) for name, shape in shapes.items()},
    }
