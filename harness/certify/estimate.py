"""How much memory the runs of a case take on this machine, before they start: what may run at once, and what cannot."""

import math

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.certify.case_options import cut
from harness.planning.memory import micro_rows
from harness.runs.places import places
from qwen3_model.configuration_qwen3 import parameter_shapes

GIB = 2**30
# Measured on a CPU, docs/measured.md: the probe of the subject of Qwen3-0.6B takes 22.8 GiB when it has taken its
# gradients out. The loss has several tensors of the size of its logits, MindSpore's most. A framework takes 1 GiB.
BYTES_OF_A_PARAMETER = 29
TENSORS_OF_LOGITS = 20
# Asked for answers, the oracle takes the most: weights in float64 beside those it was given, and logits in float64.
BYTES_OF_A_PARAMETER_ASKED = 12
TENSORS_OF_LOGITS_ASKED, FLOAT64 = 3, 8
FRAMEWORK = GIB
FLOAT32 = 4
BYTES_OF_AN_ELEMENT = 20
SAVED_BYTES_OF_A_PARAMETER = 3 * FLOAT32  # of a checkpoint: the parameter and its moments
KEPT_BYTES_OF_A_PARAMETER = 2 * FLOAT32
GATHERED = 2  # copies of the largest tensor while it is gathered
LEAST_DISK_GIB = 1
# What the runs of a case leave of each parameter. Source: docs/design/inputs.md counts the tensors of a bundle.
DISK_BYTES_OF_A_PARAMETER = 44
# Of sketched evidence: the weights, and two checkpoints while one replaces the other.
DISK_BYTES_WHILE_SKETCHED = 4 + 2 * 12
CUT_VOCABULARY = 4096


def memory_of_a_run(case: Case) -> float:
    """GiB of the largest run of a case with all of its ranks on this machine."""
    trained = _memory_in_training(case) if case.takes_steps else 0.0
    return trained if case.task.judges_steps else max(trained, _memory_asked(case))


def memory_of_the_host(case: Case, ranks: int) -> float:
    """GiB that so many ranks of a run take of the memory of their machine where devices hold what they train.

    A rank copies its parameters and moments when it saves a checkpoint. To state digests of whole tensors, it gathers
    one at a time. Where the case keeps tensors, every rank holds gradients and updated parameters of the whole model.
    """
    shared = case.parallel.world_size if ranks > 1 else 1
    kept = 0 if case.evidence == "sketches" else KEPT_BYTES_OF_A_PARAMETER * parameter_count(case)
    saved = SAVED_BYTES_OF_A_PARAMETER * parameter_count(case) / shared
    one = GATHERED * FLOAT32 * max(math.prod(shape) for _, shape in parameter_shapes(case.model))
    return ranks * (FRAMEWORK + saved + one + kept) / GIB


def disk_of_a_case(case: Case) -> float:
    """GiB that the runs of a case take of the disk while they are made."""
    each = DISK_BYTES_WHILE_SKETCHED if case.evidence == "sketches" else DISK_BYTES_OF_A_PARAMETER
    return LEAST_DISK_GIB + each * parameter_count(case) / GIB


def _memory_in_training(case: Case) -> float:
    logits = micro_rows(case) * case.data.seq_length * case.model.vocab_size * FLOAT32
    ranks = case.parallel.world_size * FRAMEWORK
    return (parameter_count(case) * BYTES_OF_A_PARAMETER + logits * TENSORS_OF_LOGITS + ranks) / GIB


def _memory_asked(case: Case) -> float:
    rows = max(case.inference_section.rows, case.inference_section.batch_size)
    logits = rows * case.data.seq_length * case.model.vocab_size * FLOAT64
    asked = parameter_count(case) * BYTES_OF_A_PARAMETER_ASKED + logits * TENSORS_OF_LOGITS_ASKED
    return (asked + FRAMEWORK) / GIB


def parameter_count(case: Case) -> int:
    """Numbers in all parameters of a case's model."""
    return sum(math.prod(shape) for _, shape in parameter_shapes(case.model))


def memory_of_a_diagnosis(case: Case) -> float:
    """GiB of the largest run of a diagnosis: of a run, and what is inside a step: value and gradient of each place, as
    the step keeps them and as they are taken out of it."""
    data = case.data
    elements = sum(math.prod(one.shape) for one in places(case.model, data.global_batch_size, data.seq_length))
    return memory_of_a_run(case) + elements * BYTES_OF_AN_ELEMENT / GIB


def runs_at_once(case: Case, wanted: int, memory: float) -> int:
    """How many of the wanted runs fit into so many GiB, at least one; all if the memory is not known (0)."""
    return wanted if not memory else max(1, min(wanted, int(memory / memory_of_a_run(case))))


def nearest(case: Case, memory: float) -> str | None:
    """The options that cut a case so that one of its runs fits into so many GiB; None if no cut does."""
    for vocabulary in (None, CUT_VOCABULARY):
        for layers in range(case.model.num_hidden_layers - 1, 0, -1):
            try:
                smaller = cut(case, layers, vocabulary)
            except InputError:
                continue
            if memory_of_a_run(smaller) <= memory:
                return f"--layers {layers}" + (f" --vocab {vocabulary}" if vocabulary else "")
    return None
