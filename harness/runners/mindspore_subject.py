"""The subject: `qwen3_model` on MindSpore."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, ops

from harness.cases.case import Case
from harness.runners.mindspore_profile import MindSporeProfiler
from harness.runners.mindspore_taps import MindSporeTaps
from harness.runners.profile import Settings, recorded, settings_of
from harness.runners.protocol import Copies, Numbers, Setting, Taps, Tensors
from harness.runs.alignment import alignment
from harness.runs.operators import Operator
from qwen3_model.modeling_qwen3_parallel_train import ParallelTrainer
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamWConfig
from qwen3_model.schedule import ConstantSchedule, ScheduleConfig


class MindSporeSubject:
    """See `harness.runners.protocol.Runner`. A variant overrides `trainer` or `parallel_trainer`, the class that it
    trains with alone or as one of several ranks."""

    trainer: type[Qwen3Trainer] = Qwen3Trainer
    parallel_trainer: type[ParallelTrainer] = ParallelTrainer

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        prepare_process(setting.device, setting.threads)
        ms.set_seed(case.initialization.seed)
        self._setting, self._case = setting, case
        self._taps: MindSporeTaps | None = None
        self._trainer = self.build_trainer(case, setting)
        self._trainer.load_weights(weights)

    @classmethod
    def build_trainer(cls, case: Case, setting: Setting) -> Qwen3Trainer:
        """The trainer before its first step, with initial weights that are not those of the case."""
        over_ranks = {} if setting.rank is None else {"layout": case.parallel, "rank": setting.rank}
        kind = cls.trainer if setting.rank is None else cls.parallel_trainer
        return kind(
            case.model,
            case.precision,
            optimizer_config(case),
            build_schedule(case, setting),
            clip_grad=case.training.clip_grad,
            gradient_accumulation_steps=case.training.gradient_accumulation_steps,
            recompute=case.training.recompute,
            graph_mode=case.training.graph_mode,
            documents=case.data.documents,
            **over_ranks,
        )

    def compile(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> None:
        """Compiles the graphs of a step, in GRAPH mode."""
        self._trainer.compile(tokens, loss_mask)

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update by the global batch."""
        result = self._trainer.train_step(tokens, loss_mask)
        return Numbers(
            loss=result.loss, grad_norm=result.grad_norm, learning_rate=result.learning_rate, tokens=result.tokens
        )

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Tensors:
        """Not clipped; nothing is updated."""
        return self._trainer.whole(self._trainer.gradients(tokens, loss_mask))

    def taps(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Taps:
        """What the gradients of a batch are made of, in the mode and by the cells that train, in one process."""
        if self._taps is None:
            self._taps = MindSporeTaps(self._trainer, *loss_mask.shape)
        return self._taps.step(tokens, loss_mask)

    def apply_gradients(self, gradients: Tensors) -> None:
        """One update by given gradients, without clipping."""
        self._trainer.apply_gradients(gradients)

    def operators(self) -> Mapping[str, Operator]:
        """MindSpore's own."""
        return mindspore_operators()

    def alignment(self) -> dict[str, Any]:
        """What was built: see `harness.runs.alignment`."""
        trainer = self._trainer
        return alignment(
            model=trainer.model.config.to_hf(),
            shapes=trainer.shapes(),
            optimizer=vars(trainer.optimizer_config),
            decayed=trainer.decayed(),
            clip_grad=trainer.clip_grad,
            gradient_accumulation_steps=trainer.gradient_accumulation_steps // trainer.micro_batch_num,
        )

    def parameters(self) -> Tensors:
        """Copies, by Hugging Face name; over ranks they are gathered when they are looked up."""
        return self._copies(self._trainer.parameter)

    def moments(self) -> Tensors:
        """Copies of the first moments, by the names of their parameters."""
        return self._copies(self._trainer.moment)

    def _copies(self, one: Callable[[str], npt.NDArray[Any]]) -> Tensors:
        return self._trainer.whole(Copies(self._trainer.names(), one))

    def save(self, directory: Path) -> None:
        """The trainer's own checkpoint."""
        self._trainer.save_checkpoint(directory)

    def load(self, directory: Path) -> None:
        """Continues from the trainer's own checkpoint."""
        self._trainer.load_checkpoint(directory)

    def profiler(self, directory: Path) -> MindSporeProfiler:
        """Of this process; it writes into a directory."""
        return MindSporeProfiler(directory, self._setting.device)

    def provenance(self) -> dict[str, Any]:
        """Version, device and mode. On a CPU bfloat16 exists only as rounding around float32 operators."""
        emulated = self._setting.device == "CPU" and self._case.precision.compute_dtype == "bfloat16"
        return {
            "mindspore": ms.__version__,
            "device": self._setting.device,
            "mode": "GRAPH" if self._case.training.graph_mode else "PYNATIVE",
            "threads": self._setting.threads,
            "bfloat16": "rounding around float32 operators" if emulated else "native",
            **recorded(self._setting.device, os.environ),
        }


OPERATORS: Mapping[str, Callable[..., Tensor]] = {
    "exp": ops.exp,
    "log": ops.log,
    "rsqrt": ops.rsqrt,
    "sigmoid": ops.sigmoid,
    "softmax": functools.partial(ops.softmax, axis=-1),
    "log_softmax": functools.partial(ops.log_softmax, axis=-1),
    "logsumexp": functools.partial(ops.logsumexp, dim=-1),
    "sum": functools.partial(ops.sum, dim=-1),
    "mean": functools.partial(ops.mean, axis=-1),
    "matmul": ops.matmul,
}


def mindspore_operators() -> dict[str, Operator]:
    """MindSpore's elementary operators, from NumPy arrays to a NumPy array."""
    return {name: functools.partial(_on_tensors, operator) for name, operator in OPERATORS.items()}


def _on_tensors(operator: Callable[..., Tensor], *inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = operator(*map(Tensor, inputs)).asnumpy()
    return found


@functools.cache
def prepare_process(device: str, threads: int) -> None:
    """MindSpore lets a process set these once."""
    ms.set_device(device)
    ms.set_deterministic(True)
    ms.runtime.dispatch_threads_num(threads)
    if (settings := settings_of(device)) is not None:
        _apply(settings)


def _apply(settings: Settings) -> None:
    ms.set_context(jit_config={"jit_level": settings.jit_level})
    ms.runtime.set_memory(max_size=settings.max_device_memory)
    operators = ms.device_context.ascend.op_precision
    operators.precision_mode(settings.precision_mode)
    operators.matmul_allow_hf32(settings.matmul_hf32)
    operators.conv_allow_hf32(settings.conv_hf32)


def optimizer_config(case: Case) -> AdamWConfig:
    """The case's optimizer in the model's words."""
    beta1, beta2 = case.optimizer.betas
    return AdamWConfig(beta1=beta1, beta2=beta2, eps=case.optimizer.eps, weight_decay=case.optimizer.weight_decay)


def build_schedule(case: Case, setting: Setting) -> ScheduleConfig:
    """The case's schedule in the model's words, or the rate 0 in every step."""
    if setting.learning_rate_zero:
        return ConstantSchedule(peak=0.0)
    return case.lr_schedule.over(case.training.steps)
