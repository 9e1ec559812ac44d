"""What must be equal on both sides before a number is compared: configuration, parameters, optimizer.

It is computed here from the case and taken from neither side, so that an error on both sides is noticed too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from harness.cases.case import Case
from harness.cases.task import TaskName
from qwen3_model.configuration_qwen3 import parameter_shapes

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


def expected_alignment(case: Case) -> dict[str, Any]:
    """What the case requires, by its task."""
    return ALIGNMENT[case.task.name](case)


def _alignment_in_inference(case: Case) -> dict[str, Any]:
    return model_alignment(case.model.to_hf(), dict(parameter_shapes(case.model)))


def _alignment_in_training(case: Case) -> dict[str, Any]:
    """Weight decay does not apply to norms, which are the only parameters of one dimension."""
    shapes = dict(parameter_shapes(case.model))
    beta1, beta2 = case.optimizer.betas
    return alignment(
        model=case.model.to_hf(),
        shapes=shapes,
        optimizer={
            "beta1": beta1, "beta2": beta2, "eps": case.optimizer.eps, "weight_decay": case.optimizer.weight_decay,
        },
        decayed=frozenset(name for name, shape in shapes.items() if len(shape) > 1),
        clip_grad=case.training.clip_grad,
        gradient_accumulation_steps=case.training.gradient_accumulation_steps,
    )  # fmt: skip


ALIGNMENT: Mapping[TaskName, Callable[[Case], dict[str, Any]]] = {
    "pretrain": _alignment_in_training,
    "finetune": _alignment_in_training,
    "inference": _alignment_in_inference,
}
