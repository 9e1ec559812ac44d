"""Real trainers that train a case with a collector in them, as docs/collect.md shows; and the same without it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

from harness.cases.case import Case
from harness.collect.collector import Collector
from harness.collect.hugging_face import CertifyCallback
from harness.collect.torch_model import arrays, built, norm_of_gradients

Array = Any


def hf_model(case: Case, weights: Mapping[str, Array]) -> Qwen3ForCausalLM:
    model = Qwen3ForCausalLM(Qwen3Config(**{**case.model.to_hf(), "use_cache": False}, attn_implementation="eager"))
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in weights.items()}
    model.load_state_dict(state, strict=not case.model.tie_word_embeddings)
    return model.train()


class Rows(torch.utils.data.Dataset):
    """The rows of a case, one after the other; a target that does not count has the label -100."""

    def __init__(self, tokens: Array, mask: Array) -> None:
        self.tokens, self.mask = (one.reshape(-1, one.shape[-1]) for one in (tokens, mask))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.from_numpy(self.tokens[index].astype(np.int64))
        labels = tokens.clone()
        labels[1:][torch.from_numpy(self.mask[index] == 0)] = -100
        labels[0] = -100
        return {"input_ids": tokens, "labels": labels}


class InOrder(Trainer):
    """The Trainer with the order of the data that the case has."""

    def _get_train_sampler(self, *given: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def schedule_of(case: Case) -> dict[str, Any]:
    """The schedule of a case in the words of the Trainer."""
    if case.lr_schedule.type == "constant":
        return {"lr_scheduler_type": "constant_with_warmup"}
    return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": case.lr_schedule.lr_end}}


def train_by_hugging_face(case: Case, inputs: Any, directory: Path | None, out: Path) -> dict[str, Array]:
    """The final weights."""
    model, training = hf_model(case, inputs.weights), case.training
    rows = case.data.global_batch_size // training.gradient_accumulation_steps
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=training.steps,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=case.lr_schedule.learning_rate,
        **schedule_of(case),
        warmup_steps=case.lr_schedule.warmup_steps,
        adam_beta1=case.optimizer.betas[0],
        adam_beta2=case.optimizer.betas[1],
        adam_epsilon=case.optimizer.eps,
        weight_decay=case.optimizer.weight_decay,
        max_grad_norm=training.clip_grad or 0.0,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    callbacks = [] if directory is None else [CertifyCallback(directory)]
    trainer = InOrder(model=model, args=arguments, train_dataset=Rows(inputs.tokens, inputs.mask), callbacks=callbacks)
    trainer.train()
    return dict(arrays(model))


def train_by_a_torch_loop(case: Case, inputs: Any, directory: Path | None) -> dict[str, Array]:
    """A plain loop; the final weights."""
    model, training, asked = hf_model(case, inputs.weights), case.training, case.optimizer
    decayed = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim == 1]
    groups = [{"params": decayed, "weight_decay": asked.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=asked.betas, eps=asked.eps)
    schedule = case.lr_schedule.over(training.steps)
    collector = None
    if directory is not None:
        collector = Collector(directory, steps=training.steps, trainer="torch-loop")
        collector.begin(
            arrays(model),
            alignment=built(model, optimizer, clip_grad=training.clip_grad, gradient_accumulation_steps=1),
            provenance={"torch": torch.__version__, "transformers": transformers.__version__},
        )
    for number in range(1, training.steps + 1):
        tokens, mask = inputs.tokens[number - 1], inputs.mask[number - 1]
        ids = torch.from_numpy(tokens.astype(np.int64))
        labels = ids[:, 1:].masked_fill(torch.from_numpy(mask == 0), -100)
        loss = model(input_ids=ids[:, :-1], labels=labels, shift_labels=labels).loss
        loss.backward()
        norm = norm_of_gradients(model)
        if training.clip_grad is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_grad)
        rate = schedule.learning_rate(number)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        if collector is not None:
            collector.step(loss=loss.item(), grad_norm=norm, learning_rate=rate, tokens=tokens, loss_mask=mask)
    if collector is not None:
        collector.end(arrays(model))
    return dict(arrays(model))
