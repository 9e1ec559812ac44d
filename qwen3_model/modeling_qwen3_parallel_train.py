"""Training over several ranks: each rank has its part of the model and of the rows, and all take the same step.

How gradients become those of the global batch is in `reduction`, and how micro batches go through the stages of a
pipeline in `pipeline`. The clipping norm counts every parameter once over all ranks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from qwen3_model.collectives import Sum, barrier
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.gathered import AllRanks, Gathered
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3_parallel import SharedNegativeLogLikelihood, Stage, StageModel
from qwen3_model.modeling_qwen3_train import Array, Qwen3Trainer
from qwen3_model.optimizer import AdamW, AdamWConfig
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.parallel_optimizer import SharedAdamW, SharedClip
from qwen3_model.pipeline import Add, LastStage, StageBackward, StagePasses, Transfers
from qwen3_model.pipeline_schedule import one_forward_one_backward
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.reduction import Ranks, ReducedGradients, ReducedUpdate, Reduction
from qwen3_model.schedule import ScheduleConfig
from qwen3_model.sharding import counts, parts_of, take_parts
from qwen3_model.training_step import ForwardLoss, Gradients


class ParallelTrainer(Qwen3Trainer):
    """One rank of a model in training. Every rank gets the same global batches and the same whole weights."""

    def __init__(
        self,
        config: Qwen3Config,
        policy: PrecisionPolicy,
        optimizer: AdamWConfig,
        schedule: ScheduleConfig,
        *,
        layout: ParallelConfig,
        rank: int,
        **others: Any,
    ) -> None:
        self.layout, self.rank = layout, rank
        self.ranks = Ranks(layout, rank, tied=config.tie_word_embeddings)
        # micro_batch_num divides each accumulation part once more, for the stages.
        accumulated = others.pop("gradient_accumulation_steps", 1)
        self.micro_batch_num = layout.micro_batch_num
        self._begun: set[nn.Cell] = set()
        parts = accumulated * layout.micro_batch_num
        super().__init__(config, policy, optimizer, schedule, gradient_accumulation_steps=parts, **others)
        self._shapes = dict(parameter_shapes(config))
        self._sum_of_all = Sum(self.ranks.world)
        self._all_ranks = AllRanks(config, layout, rank, self._total)
        if layout.pipeline_stage > 1:
            self._build_stage()

    def build_model(self) -> StageModel:
        where, layout = self.ranks.where, self.layout
        stage = Stage(
            layers=layout.layers(self.config.num_hidden_layers)[where.stage],
            first=self.ranks.first,
            last=self.ranks.last,
            whole_embedding=layout.vocab_emb_dp,
            by_positions=layout.use_seq_parallel,
        )
        return StageModel(self.config, self.policy, stage, self.ranks.shards)

    def build_loss(self) -> nn.Cell:
        loss = TokenLoss()
        loss.negative_log_likelihood = SharedNegativeLogLikelihood(self.config.vocab_size, self.ranks.shards)
        return loss

    def build_gradients(self, parameters: ms.ParameterTuple) -> Gradients:
        self._reduction = self.build_reduction([parameter.name for parameter in parameters])
        return ReducedGradients(ForwardLoss(self.model, self.build_loss()), parameters, self._reduction)

    def build_optimizer(self, parameters: ms.ParameterTuple) -> AdamW:
        if not self.layout.enable_parallel_optimizer:
            return super().build_optimizer(parameters)
        return SharedAdamW(parameters, self.optimizer_config, self.ranks.replicas, self.decays)

    def build_reduction(self, names: Sequence[str]) -> Reduction:
        """The cell that sums the gradients over ranks."""
        return Reduction(names, self.ranks, self.layout)

    def build_clip(self, max_norm: float | None) -> nn.Cell:
        return SharedClip(max_norm, [self._counts(parameter.name) for parameter in self._parameters], self.ranks.model)

    def _counts(self, name: str) -> bool:
        """Whether this rank counts a parameter for the norm: exactly one of its holders does."""
        return counts(name, self.config, self.layout, self.rank)

    def _build_stage(self) -> None:
        if self.ranks.last:
            self._stage = LastStage(ForwardLoss(self.model, self.build_loss()), self._parameters)
        else:
            self._stage = StageBackward(self.model, self._parameters)
        self._sums = self._accumulate_step.sums
        self._update_step = ReducedUpdate(self._update_step, self._reduction)
        self._add = Add(self._sums)
        self._transfers = Transfers(self.ranks)

    def run(self, cell: nn.Cell, *arguments: Tensor) -> Any:
        """The result of a cell with sums over ranks; all ranks compile it before the first one runs it."""
        if cell not in self._begun:
            self._compile(cell, *arguments)
            self._begin(cell)
        return cell(*arguments)

    def _compile(self, cell: nn.Cell, *arguments: Tensor) -> None:
        if self._mode == ms.GRAPH_MODE:
            cell.compile(*arguments)

    def _total(self, numbers: Array) -> Array:
        """The sum over all ranks of float32 numbers."""
        total: Array = self.run(self._sum_of_all, Tensor(numbers)).asnumpy()
        return total

    def _begin(self, cell: nn.Cell) -> None:
        barrier(self.layout.world_size)
        self._begun.add(cell)

    def own_rows(self, batch: Array) -> Array:
        return np.split(batch, self.layout.data_parallel)[self.ranks.where.replica]

    def load_weights(self, tensors: Mapping[str, Array]) -> None:
        super().load_weights(take_parts(tensors, self.config, self.layout, self.rank))

    def apply_gradients(self, gradients: Mapping[str, Array]) -> None:
        super().apply_gradients(take_parts(gradients, self.config, self.layout, self.rank))

    def decayed(self) -> frozenset[str]:
        """The parameters to which weight decay applies, on any rank."""
        return self._all_ranks.on_any_rank(super().decayed())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Those of its own parameters by what it built of them; of other stages, those of the configuration."""
        built, own = super().shapes(), parts_of(self._shapes, self.config, self.layout, self.rank)
        return {**self._shapes, **{name: part.shape_of_whole(built[name]) for name, part in own}}

    def whole(self, parts: Mapping[str, Array]) -> Gathered:
        """The whole tensors of every rank's parts, on every rank, bit for bit: see `AllRanks.gathered`."""
        return self._all_ranks.gathered(parts)

    def checkpoint_part(self) -> tuple[ParallelConfig, int]:
        return self.layout, self.rank

    def _summed(self) -> Sequence[Tensor]:
        if self.layout.pipeline_stage == 1:
            return super()._summed()
        sums = ms.mutable(tuple(total + 0.0 for total in self._sums))
        reduced: Sequence[Tensor] = self.run(self._reduction, sums)
        return reduced

    def _accumulate(self, tokens: Array, loss_mask: Array) -> float:
        if self.layout.pipeline_stage == 1:
            return super()._accumulate(tokens, loss_mask)
        return self._through_the_stages(tokens, loss_mask)

    def compile_micro_batch(self, *batch: Tensor) -> None:
        """Compiles the cells that a micro batch runs, so that no rank waits for a compilation between two of them."""
        if self.layout.pipeline_stage == 1:
            super().compile_micro_batch(*batch)
            return
        inputs, *others = batch
        nothing = self._nothing(*inputs.shape)
        x = inputs if self._transfers.from_previous is None else nothing
        for transfer in self._transfers.all():
            self._compile(transfer, nothing)
        if self._transfers.to_next is None:
            self._compile(self._stage, x, *others)
        else:
            self._compile(self.model, x)
            self._compile(self._stage, x, nothing)

    def _nothing(self, rows: int, length: int) -> Tensor:
        """Zeros of the shape that stages send to each other."""
        own_length = length // (self.layout.model_parallel if self.layout.use_seq_parallel else 1)
        return Tensor(np.zeros((rows, own_length, self.config.hidden_size), np.float32))

    def _through_the_stages(self, tokens: Array, loss_mask: Array) -> float:
        """Runs the micro batches through this stage; adds gradients to the sums; the global batch's loss."""
        batches = list(self.micro_batches(tokens, loss_mask))
        nothing = self._nothing(*batches[0][0].shape)
        if self._stage not in self._begun:
            self.compile_micro_batch(*batches[0])
            self._begin(self._stage)
        passes = StagePasses(self.model, self._stage, self._add, self._transfers, batches, nothing)
        for action, number in one_forward_one_backward(
            self.ranks.where.stage, self.layout.pipeline_stage, len(batches)
        ):
            passes.take(action, number)
        # Every model-parallel rank of the last stage has its replica's part of the loss; the first one contributes it.
        contributes = self.ranks.last and self.ranks.where.shard == 0
        own = np.array([passes.loss if contributes else 0.0], np.float32)
        return float(self._total(own)[0])
