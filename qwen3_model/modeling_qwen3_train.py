"""Training Qwen3: steps by global batches, and checkpoints that resume bit for bit.

The global batch is the unit: loss and gradients are divided by its number of unmasked target tokens, for any number
of micro-batches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops

from qwen3_model.checkpoints import file_name, load_part, save_part
from qwen3_model.config_problems import Qwen3ConfigError
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.documents import Documents
from qwen3_model.equal_cells import share_equal_cells
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM
from qwen3_model.optimizer import AdamW, AdamWConfig, ClipByGlobalNorm, decays, step_scalars
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.schedule import ScheduleConfig
from qwen3_model.training_step import AccumulateStep, ForwardLoss, Gradients, UpdateBySums, UpdateStep, WholeStep
from qwen3_model.weights import WeightsError, load_into, set_parameters

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one training step measured.

    Attributes:
        step: Counted from 1.
        loss: Mean negative log-likelihood of the unmasked targets, before the update; the exact float32 value.
        grad_norm: Global norm before clipping; the exact float32 value.
        learning_rate: The rate that the update used.
        tokens: Unmasked target tokens of the global batch.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int


class Qwen3Trainer:
    """One model in training. The small methods are what a variant overrides.

    `micro_batch_num`: how many of the parts of a batch are for the stages of a pipeline.
    `documents`: for rows of several documents, which of attention and positions start again with each.
    """

    micro_batch_num = 1

    def __init__(
        self,
        config: Qwen3Config,
        policy: PrecisionPolicy,
        optimizer: AdamWConfig,
        schedule: ScheduleConfig,
        *,
        clip_grad: float | None,
        gradient_accumulation_steps: int = 1,
        recompute: bool = False,
        graph_mode: bool = True,
        documents: Documents | None = None,
    ) -> None:
        if policy.params_dtype != "float32":
            raise Qwen3ConfigError([f"params_dtype: training updates float32 parameters, got {policy.params_dtype!r}"])
        self._mode = ms.GRAPH_MODE if graph_mode else ms.PYNATIVE_MODE
        self._enter_mode()
        self.config = config
        self.policy = policy
        self.schedule = schedule
        self.optimizer_config = optimizer
        self.clip_grad = clip_grad
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.documents = documents
        self.step = 0
        self.model = self.build_model()
        self.model.set_train()
        if recompute:
            for layer in self.model.model.layers:
                layer.recompute()
        share_equal_cells(self.model)
        parameters = ms.ParameterTuple(self.model.trainable_params())
        self._parameters = parameters
        self._gradients = self.build_gradients(parameters)
        self._optimizer = self.build_optimizer(parameters)
        clip = self.build_clip(clip_grad)
        if gradient_accumulation_steps == 1:
            self._whole_step = WholeStep(self._gradients, clip, self._optimizer)
        else:
            sums = parameters.clone(prefix="gradient_sum", init="zeros")
            self._accumulate_step = AccumulateStep(self._gradients, sums)
            self._update_step = UpdateStep(sums, clip, self._optimizer)
            self._update_by_sums = UpdateBySums(sums, self._optimizer)

    def build_model(self) -> Qwen3ForCausalLM:
        """The model to train."""
        return Qwen3ForCausalLM(self.config, self.policy, self.documents)

    def build_loss(self) -> nn.Cell:
        """The loss cell: (logits, targets, mask, count) -> loss."""
        return TokenLoss()

    def build_gradients(self, parameters: ms.ParameterTuple) -> Gradients:
        """The cell of forward and backward: (inputs, targets, mask, count) -> (loss, gradients)."""
        return Gradients(ForwardLoss(self.model, self.build_loss()), parameters)

    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        """The optimizer cell: (gradients, factor, scalars of the step) -> parameters updated."""
        return AdamW(parameters, self.optimizer_config, self.decays)

    def build_clip(self, max_norm: float | None) -> nn.Cell:
        """The clipping cell: gradients -> (norm before clipping, factor)."""
        return ClipByGlobalNorm(max_norm)

    def decays(self, name: str) -> bool:
        """Whether weight decay applies to the parameter."""
        return decays(name)

    def learning_rate(self, step: int) -> float:
        """The rate of the given step, counted from 1."""
        return self.schedule.learning_rate(step)

    def scalars(self, step: int) -> Array:
        """The scalars of the given step's update: see `step_scalars`."""
        return step_scalars(self.optimizer_config, step, self.learning_rate(step))

    def inputs_and_targets(self, tokens: Array) -> tuple[Array, Array]:
        """Tokens [B, S+1] -> inputs [B, S] and the token that follows each of them [B, S]."""
        return tokens[:, :-1], tokens[:, 1:]

    def run(self, cell: nn.Cell, *arguments: Tensor) -> Any:
        """The result of a cell."""
        return cell(*arguments)

    def own_rows(self, batch: Array) -> Array:
        """The rows of a global batch that this process computes."""
        return batch

    def token_count(self, loss_mask: Array) -> int:
        """The number that loss and gradients are divided by: the unmasked targets of the global batch."""
        return int(np.count_nonzero(loss_mask))

    def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
        """(inputs, targets, mask, count) of each micro-batch; the count is the global batch's."""
        self._check_batch(tokens, loss_mask)
        count = Tensor(self.token_count(loss_mask), ms.float32)
        tokens, loss_mask = self.own_rows(tokens), self.own_rows(loss_mask)
        inputs, targets = self.inputs_and_targets(tokens)
        for part in np.split(np.arange(tokens.shape[0]), self.gradient_accumulation_steps):
            yield (
                Tensor(np.ascontiguousarray(inputs[part], dtype=np.int32)),
                Tensor(np.ascontiguousarray(targets[part], dtype=np.int32)),
                Tensor(np.ascontiguousarray(loss_mask[part], dtype=np.float32)),
                count,
            )

    def restart(self, schedule: ScheduleConfig) -> None:
        """Resets to before the first step, with another schedule, so that one compiled step serves many runs.

        Parameters keep their values: call `load_weights` next.
        """
        self.schedule, self.step = schedule, 0
        for moment in (*self._optimizer.exp_avg, *self._optimizer.exp_avg_sq):
            moment.set_data(ops.zeros_like(moment))

    def load_weights(self, tensors: Mapping[str, Array]) -> None:
        """Sets every parameter; see `load_into` for the errors."""
        load_into(self.model, tensors)

    def compile(self, tokens: Array, loss_mask: Array) -> None:
        """Compiles the cells of a training step for batches of this shape and computes nothing.

        Without it the first step compiles them. In PYNATIVE mode there is nothing to compile.
        """
        self._enter_mode()
        if self._mode != ms.GRAPH_MODE:
            return
        batch, scalars = next(self.micro_batches(tokens, loss_mask)), Tensor(self.scalars(1))
        if self.gradient_accumulation_steps == 1:
            self._whole_step.compile(*batch, scalars)
        else:
            self.compile_micro_batch(*batch)
            self._update_step.compile(scalars)

    def compile_micro_batch(self, *batch: Tensor) -> None:
        """Compiles the cells that a micro-batch runs."""
        self._accumulate_step.compile(*batch)

    def train_step(self, tokens: Array, loss_mask: Array) -> StepResult:
        """One update by the global batch `tokens` [B, S+1], `loss_mask` [B, S] (0 or 1).

        With accumulation the batch is split into equal micro-batches, in order.
        """
        self._enter_mode()
        step = self.step + 1
        scalars = Tensor(self.scalars(step))
        if self.gradient_accumulation_steps == 1:
            (batch,) = self.micro_batches(tokens, loss_mask)
            loss, norm = (float(x.asnumpy()) for x in self.run(self._whole_step, *batch, scalars))
        else:
            loss = self._accumulate(tokens, loss_mask)
            norm = float(self.run(self._update_step, scalars).asnumpy())
        self.step = step
        return StepResult(
            step=step,
            loss=loss,
            grad_norm=norm,
            learning_rate=self.learning_rate(step),
            tokens=self.token_count(loss_mask),
        )

    def gradients(self, tokens: Array, loss_mask: Array) -> dict[str, Array]:
        """The gradient of every parameter for a global batch, float32, not clipped; nothing is updated.

        They are computed by the cells of `train_step`, up to the clipping.
        """
        self._enter_mode()
        if self.gradient_accumulation_steps == 1:
            (batch,) = self.micro_batches(tokens, loss_mask)
            _, found = self.run(self._gradients, *batch)
        else:
            self._accumulate(tokens, loss_mask)
            found = self._summed()
        gradients = {p.name: values.asnumpy().copy() for p, values in zip(self._parameters, found, strict=True)}
        if self.gradient_accumulation_steps > 1:
            # The next step starts from zero, as after an update.
            for total in self._accumulate_step.sums:
                total.set_data(ops.zeros_like(total))
        return gradients

    def _accumulate(self, tokens: Array, loss_mask: Array) -> float:
        """Adds the gradients of every micro-batch to the sums; the loss of the global batch."""
        batches = self.micro_batches(tokens, loss_mask)
        parts = [self.run(self._accumulate_step, *batch).asnumpy() for batch in batches]
        return float(np.sum(parts, dtype=np.float32))

    def _summed(self) -> Sequence[Tensor]:
        """The gradients by which the parameters are updated, before clipping."""
        sums: Sequence[Tensor] = self._accumulate_step.sums
        return sums

    def apply_gradients(self, gradients: Mapping[str, Array]) -> None:
        """One update by given gradients, not clipped, at the rate of the next step."""
        self._enter_mode()
        step = self.step + 1
        scalars = Tensor(self.scalars(step))
        one = Tensor(1.0, ms.float32)
        if self.gradient_accumulation_steps > 1:
            # Where there are sums, they take the gradients: a large model would not fit into memory once more.
            for total, parameter in zip(self._accumulate_step.sums, self._parameters, strict=True):
                total.set_data(Tensor(gradients[parameter.name], ms.float32))
            self.run(self._update_by_sums, one, scalars)
        else:
            # A tuple that is not mutable is a constant of the graph: every update would compile a new graph.
            given = ms.mutable(tuple(Tensor(gradients[parameter.name], ms.float32) for parameter in self._parameters))
            self.run(self._optimizer, given, one, scalars)
        self.step = step

    def decayed(self) -> frozenset[str]:
        """The parameters to which weight decay applies."""
        pairs = zip(self._parameters, self._optimizer.decay_flags, strict=True)
        return frozenset(parameter.name for parameter, decays in pairs if decays)

    def parameters(self) -> dict[str, Array]:
        """A copy of every parameter by its Hugging Face name."""
        return {name: self.parameter(name) for name in self.names()}

    def names(self) -> tuple[str, ...]:
        """The Hugging Face name of every parameter."""
        return tuple(parameter.name for parameter in self._parameters)

    def parameter(self, name: str) -> Array:
        """A copy of one parameter."""
        found = next(parameter for parameter in self._parameters if parameter.name == name)
        copied: Array = found.asnumpy().copy()
        return copied

    def moments(self) -> dict[str, Array]:
        """A copy of every first moment of the optimizer, by the name of its parameter."""
        return {name: self.moment(name) for name in self.names()}

    def moment(self, name: str) -> Array:
        """A copy of the first moment of one parameter."""
        copied: Array = self._optimizer.exp_avg[self.names().index(name)].asnumpy().copy()
        return copied

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every whole parameter."""
        return {parameter.name: tuple(parameter.shape) for parameter in self._parameters}

    def whole(self, parts: Mapping[str, Array]) -> Mapping[str, Array]:
        """Whole tensors from this process's parts; a single process holds them whole."""
        return parts

    def checkpoint_part(self) -> tuple[ParallelConfig, int]:
        """The layout and the rank of the part that this process saves."""
        return ParallelConfig(), 0

    def save_checkpoint(self, directory: str | Path) -> None:
        """Parameters, moments and step in one file, which replaces an older one at once or not at all."""
        layout, rank = self.checkpoint_part()
        state = {parameter.name: parameter.asnumpy() for parameter in self._state()}
        save_part(Path(directory) / file_name(layout, rank), state, self.config, layout, self.step)

    def load_checkpoint(self, directory: str | Path) -> None:
        """Continues where `save_checkpoint` stopped.

        Raises:
            WeightsError: the file is of another format or layout, or differs from this model in names or shapes.
        """
        layout, rank = self.checkpoint_part()
        path = Path(directory) / file_name(layout, rank)
        part = load_part(path)
        if part.layout != layout:
            raise WeightsError(str(path), [f"layout: expected {layout}, got {part.layout}"])
        set_parameters(self._state(), part.tensors, str(path))
        self.step = part.step

    def _enter_mode(self) -> None:
        # The mode belongs to the process, not to the cell: another trainer may have changed it.
        ms.set_context(mode=self._mode)

    def _state(self) -> Iterator[Parameter]:
        yield from (*self._optimizer.parameters, *self._optimizer.exp_avg, *self._optimizer.exp_avg_sq)

    def _check_batch(self, tokens: Array, loss_mask: Array) -> None:
        """Raises ValueError that lists everything that would silently give a wrong loss or none."""
        parts = self.gradient_accumulation_steps
        laws = {
            "tokens must be [B, S+1] and loss_mask [B, S]": loss_mask.shape == (len(tokens), tokens.shape[-1] - 1),
            f"{parts} micro-batches must divide the batch": len(tokens) % parts == 0,
            # On a CPU a gather gives zeros for a token outside the vocabulary, and no error.
            "tokens must be below vocab_size": bool(np.all((tokens >= 0) & (tokens < self.config.vocab_size))),
            "loss_mask must be 0 or 1": bool(np.all((loss_mask == 0) | (loss_mask == 1))),
            "loss_mask must leave a target": bool(np.any(loss_mask)),
        }
        broken = [law for law, kept in laws.items() if not kept]
        if broken:
            raise ValueError(f"tokens {tokens.shape}, loss_mask {loss_mask.shape}: {'; '.join(broken)}")
