"""A plain loop in MindSpore with a collector in it, as docs/collect.md shows; and the same without it."""

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from harness.cases.case import Case
from harness.collect.collector import Collector
from harness.runs.alignment import alignment
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamWConfig


def train_by_a_mindspore_loop(case: Case, inputs: Any, directory: Path | None) -> dict[str, Any]:
    """The final weights."""
    asked, training = case.optimizer, case.training
    config = AdamWConfig(beta1=asked.betas[0], beta2=asked.betas[1], eps=asked.eps, weight_decay=asked.weight_decay)
    schedule = case.lr_schedule.over(training.steps)
    trainer = Qwen3Trainer(case.model, case.precision, config, schedule, clip_grad=training.clip_grad)
    trainer.load_weights(inputs.weights)

    def weights() -> dict[str, Any]:
        return {name: np.array(trainer.parameter(name)) for name in trainer.names()}

    collector = None
    if directory is not None:
        collector = Collector(directory, steps=training.steps, trainer="mindspore-loop")
        built = alignment(
            model=trainer.model.config.to_hf(),
            shapes={name: tensor.shape for name, tensor in weights().items()},
            optimizer=vars(trainer.optimizer_config),
            decayed=trainer.decayed(),
            clip_grad=trainer.clip_grad,
            gradient_accumulation_steps=1,
        )
        collector.begin(weights(), alignment=built, provenance={"mindspore": ms.__version__, "mode": "GRAPH"})
    for tokens, mask in zip(inputs.tokens, inputs.mask, strict=True):
        taken = trainer.train_step(tokens, mask)
        if collector is not None:
            collector.step(
                loss=taken.loss,
                grad_norm=taken.grad_norm,
                learning_rate=taken.learning_rate,
                tokens=tokens,
                loss_mask=mask,
            )
    if collector is not None:
        collector.end(weights())
    return weights()
