"""The memory of a rank in training: its state, and the activations that a step keeps for the backward pass.

Parameters, gradients and optimizer state are exact: they follow from shapes. Activations are the tensors that the
derivatives of `qwen3_model` need for one micro batch, times the micro batches in flight on a stage (1F1B). Not counted:
workspace of kernels and of collectives, and fragmentation.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.cases.case import Case
from qwen3_model.configuration_qwen3 import Qwen3Config

BYTES = {"float32": 4, "bfloat16": 2}
STATISTICS = 2 * 8  # float32 numbers that the fused attention keeps for each query and head: a maximum and a sum, by 8
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes of a rank of one stage; all ranks of a stage hold the same amounts.

    `moments` are the optimizer's. `copies` are weights rounded to the compute dtype. `activations` are kept for the
    backward pass; `logits` are the last stage's, for head and loss. `scaled` are the clipped gradients, which exist
    after the activations are freed.
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

    @property
    def total(self) -> int:
        """The peak: in the backward pass, or in the update after it."""
        held = self.weights + self.gradients + self.moments
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


def layer_activations(case: Case, fused: bool) -> LayerActivations:
    """The activations that a layer keeps, without its input."""
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
    scores = rows * (config.num_attention_heads // shards) * length * (4 * STATISTICS if fused else length * softmax)
    gate = tokens * F * compute
    inputs = 2 * tokens * D * compute + tokens * (2 * query + 2 * key) * compute  # of the projections and the attention
    return LayerActivations(
        written_out=normalized + gate + (0 if fused else scores), other=inputs + 3 * gate + (scores if fused else 0)
    )


def micro_rows(case: Case) -> int:
    """Rows of one micro batch."""
    layout = case.parallel
    parts = layout.micro_batch_num if layout.pipeline_stage > 1 else case.training.gradient_accumulation_steps
    return case.data.global_batch_size // (layout.data_parallel * parts)


def memory(case: Case, fused: bool) -> Iterator[StageMemory]:
    """The memory of each stage. `fused`: the attention keeps statistics of its scores instead of the probabilities."""
    config, layout, training = case.model, case.parallel, case.training
    parameter, compute = BYTES[case.precision.params_dtype], BYTES[case.precision.compute_dtype]
    tokens = micro_rows(case) * case.data.seq_length
    own = tokens // layout.model_parallel if layout.use_seq_parallel else tokens
    stream = own * config.hidden_size * BYTES[case.precision.residual_dtype]
    one_layer = layer_activations(case, fused)
    accumulates = layout.pipeline_stage > 1 or training.gradient_accumulation_steps > 1
    for stage, layers in enumerate(layout.layers(config.num_hidden_layers)):
        parameters = stage_parameters(case, stage)
        begun = min(layout.micro_batch_num, layout.pipeline_stage - stage)
        kept = len(layers) * begun * one_layer.written_out
        if training.recompute:
            kept += len(layers) * begun * stream + one_layer.other
        else:
            kept += len(layers) * begun * one_layer.other
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
            # logits, their probabilities and their gradient, always in float32
            logits=3 * tokens * (config.vocab_size // layout.model_parallel) * 4 if last else 0,
        )
