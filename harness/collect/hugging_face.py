"""A callback for Hugging Face's Trainer: `Trainer(..., callbacks=[CertifyCallback("collected/run")])`.

The Trainer logs a loss of four digits. So batch and loss are taken at the model itself, by a hook that reads what the
model is called with and what it returns; the norm before clipping is the one that the Trainer logs, or with no clipping
that of the gradients; the rate is that of the optimizer before its update.
"""

import functools
from pathlib import Path
from typing import Any

import torch
import transformers

from harness.base.errors import InputError
from harness.collect.collector import Collector, harmless
from harness.collect.torch_model import arrays, as_array, batch_of, built, norm_of_gradients, plain_name

NAME = "hugging-face"
DEVICES = {"cpu": "CPU", "cuda": "CUDA", "npu": "Ascend"}


class CertifyCallback(transformers.TrainerCallback):
    """Collects one run of a Trainer into a directory; see `harness.collect.collector.Collector`.

    `first_gradient`: also sketches of the gradients of the first batch, for which copies of gradients and weights are
    held on the host during the first step; of one process alone.
    """

    def __init__(self, directory: str | Path, *, arm: str = "train", first_gradient: bool = False) -> None:
        self.directory, self._arm = Path(directory), arm
        self.collector: Collector | None = None
        self._hooks: list[Any] = []
        self._wants_gradient, self._gradients = first_gradient, dict[str, Any]()
        self._losses: list[torch.Tensor] = []
        self._summed = False
        self._norm: float | None = None
        self._rate = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Begins.

        Raises:
            InputError: the Trainer does not log every step, or the directory is not free.
        """
        if args.logging_strategy != "steps" or args.logging_steps != 1:
            raise InputError("The norm of every step is taken from the Trainer's log: set logging_steps=1.")
        if self._wants_gradient and args.world_size > 1:
            raise InputError("first_gradient: the gradients of one of several processes are not those of the batch.")
        model, optimizer = about["model"], about["optimizer"]
        self._model, self._optimizer = model, optimizer
        self.collector = Collector(
            self.directory,
            steps=state.max_steps,
            trainer=NAME,
            arm=self._arm,
            rank=args.process_index,
            ranks=args.world_size,
        )
        clips = args.max_grad_norm is not None and args.max_grad_norm > 0
        self._clips = clips
        self.collector.begin(
            arrays(model),
            alignment=built(
                model,
                optimizer,
                clip_grad=args.max_grad_norm if clips else None,
                gradient_accumulation_steps=args.gradient_accumulation_steps,
            ),
            provenance={
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "device": DEVICES.get(args.device.type, args.device.type),
                "attention": getattr(model.config, "_attn_implementation", None),
                "mode": "eager",
            },
            after=state.global_step,
            device=DEVICES.get(args.device.type, args.device.type),
            threads=torch.get_num_threads(),
        )
        self._ranks, self._rank, self._micro = args.world_size, args.process_index, 0
        self._hooks = [model.register_forward_hook(self._after_forward, with_kwargs=True)]
        if self._wants_gradient and not state.global_step:
            for name, parameter in model.named_parameters():
                keep = functools.partial(self._keep, plain_name(name))
                self._hooks.append(parameter.register_post_accumulate_grad_hook(keep))

    @harmless
    def _keep(self, name: str, parameter: torch.Tensor) -> None:
        """A copy of a gradient, of all micro-batches until now, before the Trainer clips it."""
        self._gradients[name] = as_array(parameter.grad)

    @harmless
    def _after_forward(self, module: Any, given: Any, named: dict[str, Any], output: Any) -> None:
        """Reads one micro-batch and its loss; returns nothing, so that the output stays as it is."""
        loss, labels, tokens = getattr(output, "loss", None), named.get("labels"), named.get("input_ids")
        if not module.training or loss is None or labels is None or tokens is None or self.collector is None:
            return
        rows = len(tokens)
        begin = (self._micro * self._ranks + self._rank) * rows
        self.collector.micro_batch(*batch_of(tokens, labels), rows=range(begin, begin + rows))
        self._micro += 1
        self._summed = named.get("num_items_in_batch") is not None
        self._losses.append(loss.detach())

    @harmless
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Before an update: its rate, and without clipping its norm."""
        self._rate = float(self._optimizer.param_groups[0]["lr"])
        if self._gradients and self.collector is not None:
            self.collector.first_gradient(self._gradients, arrays(self._model))
            for hook in self._hooks[1:]:
                hook.remove()
            self._hooks, self._gradients = self._hooks[:1], {}
        if not self._clips:
            self._norm = norm_of_gradients(self._model)

    @harmless
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **about: Any) -> None:
        """After a step, when the Trainer logs it."""
        if not self._losses or self.collector is None or "loss" not in (logs or {}):
            return
        norm = logs.get("grad_norm", self._norm)
        losses, self._losses, self._micro = torch.stack(self._losses), [], 0
        loss = losses.sum() if self._summed else losses.mean()
        self.collector.step(
            loss=self._of_all_ranks(loss),
            grad_norm=None if norm is None else float(norm),
            learning_rate=self._rate,
        )

    def _of_all_ranks(self, loss: torch.Tensor) -> float:
        """The loss of the global batch: each rank has the part of its own rows."""
        if self._ranks == 1:
            return float(loss)
        whole = loss.clone()
        torch.distributed.all_reduce(whole)
        return float(whole if self._summed else whole / self._ranks)

    @harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **about: Any) -> None:
        """Ends the collection, if all steps were taken."""
        for hook in self._hooks:
            hook.remove()
        if self.collector is not None and state.global_step >= state.max_steps:
            self.collector.end(arrays(self._model))
