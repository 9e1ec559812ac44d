"""The memory of a rank in training: its state, and the activations that a step keeps for the backward pass.

Parameters, gradients and optimizer state are exact: they follow from shapes. Activations are the tensors that the
derivatives of `qwen3_model` need for one micro batch. In a pipeline (1F1B) a stage keeps the input of each micro batch
in flight, and computes its forward pass again; other trainers keep the activations of each. On Ascend also the buffers
of HCCL, for each group of ranks. Not counted: workspace of kernels, and fragmentation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.cases.case import Case
from harness.runners.profile import HCCL_BUFFER_MIB
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.parallel_config import Coordinates

BYTES = {"float32": 4, "bfloat16": 2}
STATISTICS = 2 * 8  # float32 numbers that the fused attention keeps for each query and head: a maximum and a sum, by 8
# Each group of ranks holds a buffer of HCCL_BUFFSIZE for what it sends and one for what it receives. MindSpore makes a
# group of all ranks by itself. Source: CANN 8.5, environment variable HCCL_BUFFSIZE.
BUFFERS_OF_A_GROUP, GROUPS_OF_MINDSPORE = 2, 1
SENT = 2  # of a stage: an output, and the gradient of one
MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes of a rank of one stage; all ranks of a stage hold the same amounts.

    `moments` are the optimizer's. `copies` are weights rounded to the compute dtype. `activations` are kept for the
    backward pass; `logits` are the last stage's, for head and loss. `scaled` are the clipped gradients, which exist
    after the activations are freed. `buffers` are HCCL's, of the rank with most groups.
    """

    stage: int
    layers: range
    parameters: int
    weights: int
    gradients: int
    moments: int
    copies: int
    activations: int
    logits: int
    scaled: int
    buffers: int

    @property
    def total(self) -> int:
        """The peak: in the backward pass, or in the update after it."""
        held = self.weights + self.gradients + self.moments + self.buffers
        return held + max(self.copies + self.activations + self.logits, self.scaled)


def layer_parameters(config: Qwen3Config, shards: int) -> int:
    """Parameters of one layer on one of its model-parallel ranks."""
    D, H = config.hidden_size, config.head_dim
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    shared = D * H * heads + 3 * D * config.intermediate_size
    return shared // shards + 2 * D + 2 * H


def stage_parameters(case: Case, stage: int) -> int:
    """Parameters of a rank of a stage. A tied head on another stage than the embedding is a second copy."""
    config, layout = case.model, case.parallel
    layers, last = layout.layers(config.num_hidden_layers)[stage], stage == layout.pipeline_stage - 1
    vocabulary = config.vocab_size * config.hidden_size
    count = len(layers) * layer_parameters(config, layout.model_parallel)
    if stage == 0:
        count += vocabulary if layout.vocab_emb_dp else vocabulary // layout.model_parallel
    if last:
        count += config.hidden_size
        if not config.tie_word_embeddings or layout.pipeline_stage > 1:
            count += vocabulary // layout.model_parallel
    return count


@dataclass(frozen=True, kw_only=True)
class LayerActivations:
    """Bytes that one layer keeps for the backward pass of one micro batch, on one rank.

    `written_out` is for the derivatives written out in `qwen3_model`. MindSpore counts those as part of the forward
    pass, so it keeps these bytes even with recomputation; `other` then exists for one layer at a time.
    """

    written_out: int
    other: int


def layer_activations(case: Case, ascend: bool) -> LayerActivations:
    """The activations that a layer keeps, without its input.

    A fused norm keeps its input, where the plain one keeps the normalized rows. The fused SwiGLU keeps gate and up, and
    no sigmoid. The fused attention, which takes bfloat16 alone, keeps statistics of its scores.
    """
    config, layout, precision = case.model, case.parallel, case.precision
    compute, norm, softmax = (
        BYTES[name]
        for name in (precision.compute_dtype, precision.layernorm_compute_dtype, precision.softmax_compute_dtype)
    )
    rows, length, shards = micro_rows(case), case.data.seq_length, layout.model_parallel
    tokens, D, F = rows * length, config.hidden_size, config.intermediate_size // shards
    query, key = (
        heads * config.head_dim // shards for heads in (config.num_attention_heads, config.num_key_value_heads)
    )
    # Between the model-parallel regions of a layer each rank keeps its positions, or all of them.
    own = tokens // shards if layout.use_seq_parallel else tokens
    normalized = 2 * own * D * norm + tokens * (query + key) * norm
    fused = ascend and precision.fused
    by_statistics = fused and precision.compute_dtype == "bfloat16"
    of_a_row = 4 * STATISTICS if by_statistics else length * softmax
    scores = rows * (config.num_attention_heads // shards) * length * of_a_row
    gate = tokens * F * compute
    inputs = 2 * tokens * D * compute + tokens * (2 * query + 2 * key) * compute  # of the projections and the attention
    written_out = (0 if fused else normalized + gate) + (0 if by_statistics else scores)
    other = inputs + 3 * gate + (normalized if fused else 0) + (scores if by_statistics else 0)
    return LayerActivations(written_out=written_out, other=other)


def micro_rows(case: Case) -> int:
    """Rows of one micro batch."""
    layout = case.parallel
    parts = layout.micro_batch_num * case.training.gradient_accumulation_steps
    return case.data.global_batch_size // (layout.data_parallel * parts)


def hccl_buffers(case: Case, stage: int) -> int:
    """Bytes of HCCL's buffers on a rank of a stage; none in one process."""
    layout = case.parallel
    if layout.world_size == 1:
        return 0
    first_of_stage = layout.rank(Coordinates(stage=stage, replica=0, shard=0))
    groups = len(layout.groups(first_of_stage, tied=case.model.tie_word_embeddings).several) + GROUPS_OF_MINDSPORE
    return groups * BUFFERS_OF_A_GROUP * HCCL_BUFFER_MIB * MIB


def memory(case: Case, ascend: bool, *, stages_kept: bool = False) -> Iterator[StageMemory]:
    """The memory of each stage, on Ascend with its fused operators where the case has them, or on a CPU.

    `stages_kept`: that of a trainer whose stages keep the activations of each micro batch in flight, as mindformers',
    and do not compute their forward pass again.
    """
    config, layout, training = case.model, case.parallel, case.training
    parameter, compute = BYTES[case.precision.params_dtype], BYTES[case.precision.compute_dtype]
    tokens = micro_rows(case) * case.data.seq_length
    own = tokens // layout.model_parallel if layout.use_seq_parallel else tokens
    stream = own * config.hidden_size * BYTES[case.precision.residual_dtype]
    one_layer = layer_activations(case, ascend)
    accumulates = layout.pipeline_stage > 1 or training.gradient_accumulation_steps > 1
    for stage, layers in enumerate(layout.layers(config.num_hidden_layers)):
        parameters = stage_parameters(case, stage)
        begun = min(layout.micro_batch_num * training.gradient_accumulation_steps, layout.pipeline_stage - stage)
        whole = begun if stages_kept else 1  # micro batches whose activations are kept
        kept = len(layers) * whole * one_layer.written_out
        if training.recompute:
            kept += len(layers) * whole * stream + one_layer.other
        else:
            kept += len(layers) * whole * one_layer.other
        if layout.pipeline_stage > 1 and not stages_kept:
            kept += (begun + SENT) * stream
        copied = min(1, len(layers)) if training.recompute else len(layers)
        last = stage == layout.pipeline_stage - 1
        yield StageMemory(
            stage=stage,
            layers=layers,
            parameters=parameters,
            weights=parameters * parameter,
            gradients=parameters * parameter * (2 if accumulates else 1),
            moments=2 * parameters * 4 // (layout.data_parallel if layout.enable_parallel_optimizer else 1),
            copies=0 if compute == parameter else copied * layer_parameters(config, layout.model_parallel) * compute,
            activations=kept,
            scaled=parameters * parameter,
            buffers=hccl_buffers(case, stage) if ascend else 0,
            # logits, their probabilities and their gradient, always in float32
            logits=3 * tokens * (config.vocab_size // layout.model_parallel) * 4 if last else 0,
        )
