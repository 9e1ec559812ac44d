"""What recording a baseline takes: memory of each process of the reference, hours, and the bytes that travel.

The reference is Hugging Face's model in eager attention, sharded by FSDP2 as `harness.runners.torch_processes` does it.
Parameters, gradients and moments are exact: they follow from shapes. What autograd saves follows from the operations of
a layer, and is compared with what PyTorch saves at the width of Qwen3-8B by tests/parity/test_plan_of_a_reference.py.
Hours follow from matrix products and a speed. No run over several GPUs was measured.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.cases.case import Case
from harness.cases.runs_of_a_case import floor_runs, role, roles_of, runs_of
from harness.planning.memory import BYTES, layer_parameters
from harness.runs.sketches import BUCKETS, BUCKETS_OF_A_DECADE, BUCKETS_OF_FIRST_GRADIENT, DECADE_COUNT
from harness.runs.trace import Arm, Side
from qwen3_model.configuration_qwen3 import parameter_shapes

FLOAT32, FLOAT64 = 4, 8
# Of a token's logits: their logarithms of probabilities, and the derivatives by both, while the last exists.
TENSORS_OF_LOGITS = 3
LAYERS_WHOLE = 2  # the one that computes, and the next, which is gathered meanwhile
# Operations per second and GPU, times 10^12. Float32: measured, docs/measured.md: a step of qwen3-0.6b-fp32 takes
# 0.71 s on an H200. Bfloat16: not measured.
TERA = 1e12
SUSTAINED = {"float32": 7.0, "bfloat16": 20.0}
OF_FLOAT64 = 0.5
HOUR = 3600.0
# Measured at 0.6B, docs/design/sketches.md: drawing, updating, digesting and sketching of a probe; digesting and
# sketching of another run. They are made on a CPU, for each parameter.
PROBE_SECONDS, RUN_SECONDS = 250e-9, 60e-9
START_SECONDS = 10.0  # of a process, with compiling
# Of a file of tensors, the entry of one; of a trace, the digest of a tensor, of which it has those at start and at end,
# and a line. Measured.
ENTRY, DIGEST, LINE = 120, 170, 200
BYTES_OF_A_PARAMETER = {"reference": 8, "oracle": 16}  # of gradients and updates that are kept whole


@dataclass(frozen=True, kw_only=True)
class ReferenceMemory:
    """Bytes of a process of the reference on its device.

    `state` are its parts of parameters, gradients and moments. `whole` are parameters that are gathered, and gradients
    before they are shared: embedding, head, and a layer at a time. `copies` are weights rounded to the compute dtype.
    `saved` is what autograd keeps for the backward pass, `logits` what the loss keeps.
    """

    processes: int
    rows: int
    state: int
    whole: int
    copies: int
    saved: int
    logits: int

    @property
    def total(self) -> int:
        return self.state + self.whole + self.copies + self.saved + self.logits


@dataclass(frozen=True, kw_only=True)
class ReferencePlan:
    """What it takes to record a baseline with so many processes.

    `host` are the bytes of main memory of all processes together while they start: each reads the weights of a layer,
    or those outside all layers, before it leaves itself a part of them; the oracle in float64. `oracle` are the bytes
    of a process of the oracle. `hours` are those of all runs one after the other, and `bytes` those of the baseline.
    """

    memory: ReferenceMemory
    host: int
    oracle: int
    hours: float
    bytes: int


def plan_reference(case: Case, processes: int, tera: float | None = None) -> ReferencePlan:
    """The plan of a case; `tera`: how many times 10^12 operations a GPU makes in a second in the case's dtype."""
    speed = tera or SUSTAINED[case.precision.compute_dtype]
    return ReferencePlan(
        memory=memory_of_a_process(case, processes),
        host=processes * FLOAT64 * max(layer_parameters(case.model, 1), _outside(case)),
        oracle=_memory_of_the_oracle(case, processes),
        hours=sum(_hours(case, processes, speed * TERA, *known) for known in _recorded(case)),
        bytes=bytes_of_a_baseline(case),
    )


def memory_of_a_process(case: Case, processes: int) -> ReferenceMemory:
    """The largest amount at a time: in the backward pass of the last layer."""
    model = case.model
    layer = layer_parameters(model, 1)
    layers, parameters, outside = model.num_hidden_layers, _parameters(case), _outside(case)
    rows = rows_of_a_process(case, processes)
    saved_by_layer, tokens = saved_by_a_layer(case, rows), rows * case.data.seq_length
    stream = FLOAT32 * tokens * model.hidden_size
    last = stream * 3 if case.precision.compute_dtype == "float32" else stream * 5 // 2  # norm and head
    gathered = 2 * (outside + LAYERS_WHOLE * layer) + layer  # with their gradients, and those that are being shared
    compute = BYTES[case.precision.compute_dtype]
    linear = layers * (layer - 2 * model.hidden_size - 2 * model.head_dim) + model.vocab_size * model.hidden_size
    return ReferenceMemory(
        processes=processes,
        rows=rows,
        state=-(-4 * FLOAT32 * parameters // processes),
        whole=FLOAT32 * gathered if processes > 1 else 0,
        copies=0 if compute == FLOAT32 else compute * linear,
        saved=last + (layers * stream + saved_by_layer if case.training.recompute else layers * saved_by_layer),
        logits=TENSORS_OF_LOGITS * FLOAT32 * tokens * model.vocab_size,
    )


def rows_of_a_process(case: Case, processes: int) -> int:
    """Rows of a micro batch that the busiest process computes."""
    return -(-case.data.global_batch_size // case.training.gradient_accumulation_steps // processes)


def saved_by_a_layer(case: Case, rows: int, dtype: str | None = None) -> int:
    """Bytes of the tensors that autograd saves of one layer in eager attention, without parameters and their copies;
    `dtype`: of products, where it is not the case's.

    Of each token: the inputs of both norms and what they are scaled to, the inputs of the projections, queries and keys
    before and after their norms, queries, keys and values as the products take them, and four times the inner width of
    the MLP. Of each pair of tokens: the probabilities. In bfloat16 the inputs of products are rounded, each product its
    own copy; norms and probabilities stay float32.
    """
    model, length = case.model, case.data.seq_length
    width, inner = model.hidden_size, model.intermediate_size
    query, key = (heads * model.head_dim for heads in (model.num_attention_heads, model.num_key_value_heads))
    if (dtype or case.precision.compute_dtype) == "float32":
        of_a_token, of_a_pair = FLOAT32 * (6 * width + 6 * query + 2 * key + 4 * inner), FLOAT32
    else:
        of_a_token = FLOAT32 * (4 * width + 2 * query + 2 * key) + 2 * (5 * width + 4 * query + 4 * inner)
        of_a_pair = FLOAT32 + 2
    return rows * length * (of_a_token + of_a_pair * model.num_attention_heads * length)


def operations_of_a_step(case: Case) -> float:
    """Operations of the matrix products of a training step: forward, twice as much backward, and forward again where
    the layers are computed again."""
    model, tokens = case.model, case.data.global_batch_size * case.data.seq_length
    attention = 4 * model.num_hidden_layers * model.num_attention_heads * model.head_dim * case.data.seq_length
    return (4 if case.training.recompute else 3) * (2 * _parameters(case) + attention) * tokens


def bytes_of_a_baseline(case: Case) -> int:
    """Bytes of all files of a baseline, within a tenth or so."""
    shapes = [shape for _, shape in parameter_shapes(case.model)]
    kept = {name: known for name in roles_of(case) if (known := role(name, case)) and known[0] != "subject"}
    traces = sum(LINE * case.steps_of(*known) + 2 * DIGEST * len(shapes) for known in _recorded(case))
    tensors = sum(
        _left_by_a_probe(case, side, shapes) if arm == "probe" else _left_by_a_training(case, side, name, shapes)
        for name, (side, arm) in kept.items()
        if name in runs_of(case).kept or (side == "oracle" and arm == "train" and case.training.examined_steps)
    )
    return traces + tensors


def _left_by_a_probe(case: Case, side: Side, shapes: list[tuple[int, ...]]) -> int:
    """Gradients and updates."""
    if case.evidence != "sketches":
        return BYTES_OF_A_PARAMETER[side] * sum(map(math.prod, shapes)) + 2 * ENTRY * len(shapes)
    located = 8 * (DECADE_COUNT * (1 + BUCKETS_OF_A_DECADE) + 4)
    of_axes = sum((4 + 1) * sum(shape) for shape in shapes if len(shape) > 1)
    sketches = sum(_sketch(shape, BUCKETS_OF_FIRST_GRADIENT) + _sketch(shape, BUCKETS) + 48 for shape in shapes)
    return sketches + of_axes + located * len(shapes) + 10 * ENTRY * len(shapes)


def _left_by_a_training(case: Case, side: Side, name: str, shapes: list[tuple[int, ...]]) -> int:
    """Final parameters, and of the steps one number for each parameter and moment, and sketches of examined ones."""
    whole = FLOAT32 * sum(map(math.prod, shapes)) if side == "reference" else 0
    left = whole if case.evidence != "sketches" else sum(_sketch(shape, BUCKETS) for shape in shapes)
    examined = case.training.examined_steps
    if examined:
        left += len(shapes) * 16 * (case.steps_of(side, "train") + 1)
        left += sum(2 * len(examined) * _sketch(shape, BUCKETS) for shape in shapes)
        left += sum(_sketch(shape, BUCKETS_OF_FIRST_GRADIENT) + 24 for shape in shapes)
    return left + (1 + (4 + 2 * len(examined) if examined else 0)) * ENTRY * len(shapes)


def _sketch(shape: tuple[int, ...], buckets: int) -> int:
    return 8 * (1 + min(math.prod(shape), buckets))


def _recorded(case: Case) -> Iterator[tuple[Side, Arm]]:
    """Side and arm of each run that a baseline has."""
    for name in (*roles_of(case), *floor_runs(case)):
        known = role(name, case)
        if known is not None and known[0] != "subject":
            yield known


def _hours(case: Case, processes: int, speed: float, side: Side, arm: Arm) -> float:
    """Of one run: a probe of the reference takes its step twice. Some processes may have fewer rows, or none."""
    probes = arm == "probe"
    steps = case.steps_of(side, arm) + (probes and side == "reference")
    rows = case.data.global_batch_size
    if side == "oracle":
        rate = SUSTAINED["float32"] * TERA * OF_FLOAT64 * rows / -(-rows // processes)
    else:
        rate = speed * rows / case.training.gradient_accumulation_steps / rows_of_a_process(case, processes)
    tensors = _parameters(case) * (PROBE_SECONDS if probes else RUN_SECONDS)
    return (START_SECONDS + steps * operations_of_a_step(case) / rate + tensors) / HOUR


def _memory_of_the_oracle(case: Case, processes: int) -> int:
    """Weights and gradients in float64 and, where it is trained, moments; logits and layers of a row."""
    parameters, gathered = _parameters(case), 2 * memory_of_a_process(case, processes).whole
    tensors = 4 if case.training.oracle != "probe" else 2
    model, tokens = case.model, case.data.seq_length
    layers = 1 if case.training.recompute else model.num_hidden_layers
    stream = 0 if layers > 1 else model.num_hidden_layers * FLOAT64 * tokens * model.hidden_size
    saved = 2 * layers * saved_by_a_layer(case, 1, "float32") + stream
    return (
        -(-FLOAT64 * tensors * parameters // processes)
        + gathered
        + saved
        + TENSORS_OF_LOGITS * FLOAT64 * tokens * model.vocab_size
    )


def _outside(case: Case) -> int:
    """Parameters that are in no layer: embedding, last norm and head."""
    return _parameters(case) - case.model.num_hidden_layers * layer_parameters(case.model, 1)


def _parameters(case: Case) -> int:
    return sum(math.prod(shape) for _, shape in parameter_shapes(case.model))
