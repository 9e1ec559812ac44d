"""Training over several ranks: each rank has its part of the model and of the rows, and all take the same step.

Loss and gradients are divided by the target tokens of the global batch, so they are plain sums over replicas and micro
batches. Before an update, a gradient is summed over replicas; over model-parallel ranks where each computed only its
heads' part; and over the two stages that hold a tied embedding. The clipping norm counts every parameter once over all
ranks.

A pipeline runs by `one_forward_one_backward`. A stage recomputes its forward pass from its kept input when the gradient
arrives. So each stage is a compiled cell, and ranks communicate between these cells.
"""

import functools
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from qwen3_model.collectives import Group, Sum, after, barrier, group, sums_in_order, transfers
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.gathered import Gathered, groups_within
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3_parallel import SharedNegativeLogLikelihood, Stage, StageModel
from qwen3_model.modeling_qwen3_train import Array, Qwen3Trainer
from qwen3_model.optimizer import AdamW, AdamWConfig
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.parallel_optimizer import SharedAdamW, SharedClip
from qwen3_model.pipeline_schedule import Action, one_forward_one_backward
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.schedule import ScheduleConfig
from qwen3_model.sharding import EMBEDDING, parts_of, take_parts
from qwen3_model.training_step import ForwardLoss, Gradients, UpdateStep, add, reset, value

PIECE = 1 << 22  # numbers in one sum of `whole`
OF_HEADS = ("q_norm.weight", "k_norm.weight")  # whole on every model-parallel rank, applied to its own heads only
NORMS = ("norm.weight",)  # under sequence parallelism also these, applied to the rank's own positions only


def _transfers(pair: Group | None) -> tuple[nn.Cell | None, nn.Cell | None]:
    """The cells that send to and receive from the other rank of a pair; none where there is no such stage."""
    return transfers(pair) if pair else (None, None)


class Ranks:
    """The communication groups of one rank, made in the order of `Groups`."""

    def __init__(self, layout: ParallelConfig, rank: int, tied: bool) -> None:
        self.where = where = layout.coordinates(rank)
        self.first, self.last = where.stage == 0, where.stage == layout.pipeline_stage - 1
        of_rank = layout.groups(rank, tied=tied)
        self.world, self.shards, self.replicas, self.model = (group(ranks, rank) for ranks in of_rank[:4])
        self.previous, self.next, self.tied = (
            group(ranks, rank) if ranks is not None else None for ranks in of_rank[4:]
        )


def has_partial_gradient(name: str, layout: ParallelConfig) -> bool:
    """Whether each model-parallel rank holds the whole parameter and computes a part of its gradient."""
    whole_embedding = name == EMBEDDING and layout.vocab_emb_dp
    own_positions = layout.use_seq_parallel and (name.endswith(NORMS) or whole_embedding)
    return layout.model_parallel > 1 and (name.endswith(OF_HEADS) or own_positions)


class Reduction(nn.Cell):
    """The gradients of a rank's backward pass -> the gradients by which its parameters are updated."""

    def __init__(self, names: Sequence[str], ranks: Ranks, layout: ParallelConfig) -> None:
        super().__init__(auto_prefix=False)
        partial = [self.is_partial(name, layout) for name in names]
        tied = [name == EMBEDDING and ranks.tied is not None for name in names]
        self.sum = self.build_sum(ranks.replicas)
        self.over_shards = sums_in_order(partial, Sum(ranks.shards))
        self.over_ends = sums_in_order(tied, Sum(ranks.tied or ranks.replicas))
        self.over_replicas = sums_in_order([self.reduces(name) for name in names], self.sum)
        self.each = ops.HyperMap()

    def build_sum(self, replicas: Group) -> nn.Cell:
        """The cell that reduces gradients and loss over replicas."""
        return Sum(replicas)

    def is_partial(self, name: str, layout: ParallelConfig) -> bool:
        """Whether the gradient of a parameter is summed over model-parallel ranks."""
        return has_partial_gradient(name, layout)

    def reduces(self, name: str) -> bool:
        """Whether the gradient of a parameter is reduced over replicas."""
        return True

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        reduced, before = self.over_shards(gradients, gradients[0])
        reduced, before = self.over_ends(reduced, before)
        reduced, before = self.over_replicas(reduced, before)
        return self.each(ops.partial(after, before), reduced)


class ReducedGradients(Gradients):
    """Loss and gradients of the global batch."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple, reduction: Reduction) -> None:
        super().__init__(forward, parameters)
        self.reduction = reduction
        self.each = ops.HyperMap()

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss, gradients = self.grad(tokens_BS, targets_BS, mask_BS, count)
        reduced = self.reduction(gradients)
        loss = self.reduction.sum(ops.depend(loss, reduced[0]))
        return loss, self.each(ops.partial(after, loss), reduced)


class StageBackward(nn.Cell):
    """The input of a stage and the gradient of its output -> the gradients of the input and of its parameters."""

    def __init__(self, model: StageModel, parameters: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.model, self.parameters, self.first = model, parameters, model.first
        by_input = not model.first  # tokens have no gradient
        self.grad = ops.GradOperation(get_all=by_input, get_by_list=True, sens_param=True)(model, parameters)

    def construct(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        found = self.grad(x, gradient)
        return (gradient, found) if self.first else (found[0][0], found[1])


class LastStage(nn.Cell):
    """The input of the last stage, with targets, mask and count -> loss, and the gradients of input and parameters."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.grad = ms.value_and_grad(forward, 0, parameters)

    def construct(
        self, x: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        loss, (of_input, of_parameters) = self.grad(x, targets_BS, mask_BS, count)
        return loss, of_input, of_parameters


class Add(nn.Cell):
    """Adds a micro batch's gradients to the sums."""

    def __init__(self, sums: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.sums = sums
        self.each = ops.HyperMap()

    def construct(self, gradients: tuple[Tensor, ...]) -> bool:
        self.each(add, self.sums, gradients)
        return True


class ReducedUpdate(UpdateStep):
    """The update by the sums of all ranks."""

    def __init__(self, update: UpdateStep, reduction: Reduction) -> None:
        super().__init__(update.sums, update.clip, update.optimizer)
        self.reduction = reduction

    def construct(self, scalars: Tensor) -> Tensor:
        gradients = self.reduction(self.each(value, self.sums))
        norm, scale = self.clip(gradients)
        norm = ops.depend(norm, self.optimizer(gradients, scale, scalars))
        self.each(reset, self.sums)
        return norm


class Transfers:
    """The cells by which a rank sends to the stages next to its own and receives from them, None where there is no such
    stage. On a CPU one cell does both."""

    to_previous: Any
    from_previous: Any
    to_next: Any
    from_next: Any

    def __init__(self, ranks: Ranks) -> None:
        self.to_previous, self.from_previous = _transfers(ranks.previous)
        self.to_next, self.from_next = _transfers(ranks.next)

    def all(self) -> list[nn.Cell]:
        """Each cell once."""
        every = (self.from_previous, self.to_previous, self.to_next, self.from_next)
        return [cell for cell in dict.fromkeys(every) if cell is not None]


class StagePasses:
    """The micro batches of a step on their way through a stage. Of each it keeps the input, from which the forward pass
    is computed again, until its gradient arrives.

    `batches` are inputs, targets, mask and count of each; `nothing` are zeros of the shape that stages send. `loss` is
    that of all micro batches which the last stage has seen.
    """

    def __init__(
        self,
        model: StageModel,
        stage: StageBackward | LastStage,
        add_: Add,
        transfers: Transfers,
        batches: Sequence[tuple[Tensor, ...]],
        nothing: Tensor,
    ) -> None:
        self._model, self._stage, self._add, self._transfers = model, stage, add_, transfers
        self._batches, self._nothing = batches, nothing
        self._inputs: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._gradients: dict[int, Tensor] = {}
        self.loss = np.float32(0)

    def take(self, action: Action, number: int) -> None:
        """Carries out an action of the schedule."""
        getattr(self, f"_{action}")(number)

    def _forward(self, number: int) -> None:
        inputs, *others = self._batches[number]
        receive = self._transfers.from_previous
        x = inputs if receive is None else receive(self._nothing)
        if self._transfers.to_next is not None:
            self._inputs[number], self._outputs[number] = x, self._model(x)
            return
        loss, self._gradients[number], of_parameters = self._stage(x, *others)
        self._add(ms.mutable(of_parameters))
        self.loss += loss.asnumpy()

    def _send(self, number: int) -> None:
        self._transfers.to_next(self._outputs.pop(number))

    def _receive(self, number: int) -> None:
        self._gradients[number] = self._transfers.from_next(self._nothing)

    def _backward(self, number: int) -> None:
        of_input = self._gradients.pop(number)
        if self._transfers.to_next is not None:
            of_input, of_parameters = self._stage(self._inputs.pop(number), of_input)
            self._add(ms.mutable(of_parameters))
        if self._transfers.to_previous is not None:
            self._transfers.to_previous(of_input)


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
        if name == EMBEDDING and not self.ranks.first:
            return False
        held = dict(parts_of([name], self.config, self.layout, self.rank))[name]
        return held.of > 1 or self.ranks.where.shard == 0

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
        return self._on_any_rank(super().decayed())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Those of its own parameters by what it built of them; of other stages, those of the configuration."""
        built, own = super().shapes(), parts_of(self._shapes, self.config, self.layout, self.rank)
        return {**self._shapes, **{name: part.shape_of_whole(built[name]) for name, part in own}}

    def whole(self, parts: Mapping[str, Array]) -> Gathered:
        """The whole tensors of every rank's parts, on every rank, bit for bit: see `Gathered`. A part of which each
        replica keeps some rows, as of the moments of a shared optimizer, is given by these.

        Bit patterns are summed in halves and in pieces of one size: nothing is rounded, and one sum is compiled. A
        tensor with different copies on two ranks becomes NaN throughout, and the log names it.
        """
        sizes = {name: math.prod(shape) for name, shape in self._shapes.items()}
        piece = min(sum(sizes.values()), PIECE)
        return Gathered(groups_within(sizes, piece), functools.partial(self._gather, parts, piece))

    def _gather(self, parts: Mapping[str, Array], piece: int, names: Sequence[str]) -> dict[str, Array]:
        """Whole tensors of some names, by sums over ranks of so many numbers each."""
        own = {name: (part, parts[name]) for name, part in parts_of(names, self.config, self.layout, self.rank)}
        sizes = [math.prod(self._shapes[name]) for name in names]
        bits = np.zeros(-(-sum(sizes) // piece) * piece, np.uint32)
        begins = itertools.accumulate(sizes, initial=0)
        places = {
            name: bits[begin : begin + size].reshape(self._shapes[name])
            for name, begin, size in zip(names, begins, sizes, strict=False)
        }
        for name, (part, kept) in own.items():
            held = self._rows_of(part.of_whole(places[name]), kept)
            alone = len(kept) < len(part.of_whole(places[name]))
            if (alone or self.ranks.where.replica == 0) and self._counts(name):  # one of its holders contributes it
                held[...] = np.ascontiguousarray(kept, np.float32).view(np.uint32)
        for begin in range(0, len(bits), piece):
            bits[begin : begin + piece] = self._sum_of_bits(bits[begin : begin + piece])
        found = {name: place.view(np.float32) for name, place in places.items()}
        differing = {
            name
            for name, (part, kept) in own.items()
            if self._rows_of(part.take(found[name]), kept).tobytes() != kept.tobytes()
        }
        for name in sorted(differing):
            print(f"rank {self.rank}: {name}: differs from its copy on another rank", flush=True)
        for name in self._on_any_rank(differing):
            found[name][...] = np.nan
        return found

    def _rows_of(self, held: Array, kept: Array) -> Array:
        """What this replica keeps of a part that this rank holds: its rows, or all of them."""
        begin = self.ranks.where.replica * len(kept) if len(kept) < len(held) else 0
        return held[begin : begin + len(kept)]

    def _sum_of_bits(self, bits: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """The sum over all ranks of bit patterns that are zero on all ranks but one. MCCL has no sum of integers."""
        halves = Tensor(np.stack([bits >> 16, bits & 0xFFFF]).astype(np.float32))
        high, low = self.run(self._sum_of_all, halves).asnumpy().astype(np.uint32)
        whole: npt.NDArray[np.uint32] = (high << np.uint32(16)) | low
        return whole

    def _on_any_rank(self, names: Collection[str]) -> frozenset[str]:
        """The parameters that at least one rank names."""
        flags = Tensor(np.array([name in names for name in self._shapes], np.float32))
        counted = self.run(self._sum_of_all, flags).asnumpy()
        return frozenset(name for name, count in zip(self._shapes, counted, strict=True) if count)

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
        own = Tensor([passes.loss if contributes else 0.0], ms.float32)
        return float(self.run(self._sum_of_all, own).asnumpy()[0])
