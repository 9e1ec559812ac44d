"""What must be equal on both sides before a number is compared: configuration, parameters, optimizer.

It is computed here from the case and taken from neither side, so that an error on both sides is noticed too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from harness.cases.case import Case
from harness.cases.task import TaskName
from harness.runs.alignment import alignment, model_alignment
from qwen3_model.configuration_qwen3 import parameter_shapes


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
