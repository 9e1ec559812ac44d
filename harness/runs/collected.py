"""What a collected run leaves besides the files of any run: `harness.collect` writes it, `harness.evidence` reads it.

A collected run is one that a trainer made by itself, with the collector called once a step. Its trace has the form of
any other. It does not know its role, which it gets when it is judged; and it states what it did not collect.

    collected.json    when and where it ran, with a random number and a seal; depends on time and host
    rows/RANK.jsonl   of each step, the digest of each row that this rank read; at the end the digest of all lines
    parts/RANK.jsonl  of several ranks: the digest of each part of a weight that this rank holds, initial and final
    gradient.safetensors   only if it was given: sketches of the gradients of the first batch
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_json
from qwen3_model.parallel_config import Part

RUN = "collected"  # what the trace of a collected run calls its run
ARMS = ("train", "lr_zero", "resumed")  # what a run can be collected for; its name follows when it is judged
RECORD, RECORD_FORMAT = "collected.json", "certify-collected/1"
ROWS, FIRST_GRADIENT = "rows", "gradient.safetensors"
PARTS, PARTS_FORMAT = "parts", "certify-parts/1"
INITIAL_PARTS, FINAL_PARTS = "initial", "final"  # when a rank held the parts that it states
PREFIX = "collected:"  # of its runner, before the name of the trainer
TRAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # the name of a trainer
PROVENANCE = "collected"  # the key of a header's provenance that states how it was collected
REPORTING = "reporting"  # in it: the rank that wrote the trace
DEVICE = "device"  # in it: the device that the run states, as in its record
CODE = "code"  # in it: the digest of the code that collected
OMITTED = "omitted"  # in it: what was not collected, of these
GRAD_NORM, BATCHES, TOKENS = "grad_norm", "batches", "tokens"
WEIGHTS, ALIGNMENT, FINAL = "weights", "alignment", "final weights"
NOT_GIVEN = (GRAD_NORM, BATCHES)  # what a trainer may not have; without the others, that follows from what it gave
CAN_BE_OMITTED = frozenset({*NOT_GIVEN, WEIGHTS, ALIGNMENT})
SEAL = "seal"  # in the record: the digest of its other fields
DIGITS = 32  # of the digest of a row


def omitted(provenance: Mapping[str, Any]) -> frozenset[str]:
    """What a run states that it did not collect; nothing for a run of the harness. There is no run without losses."""
    stated = provenance.get(PROVENANCE)
    names = stated.get(OMITTED) if isinstance(stated, Mapping) else None
    return CAN_BE_OMITTED & frozenset(map(str, names)) if isinstance(names, list | tuple) else frozenset()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a collected run with its seal, in place of one that it has."""
    fields = {name: value for name, value in record.items() if name != SEAL}
    return {**fields, SEAL: digest_json(fields)}


def part_in_words(part: Part) -> str:
    """Which part of a tensor it is; one text for each part."""
    return f"part {part.index} of {part.of} along axis {part.axis}" if part.of > 1 else "the whole"


def check_shapes(tokens: npt.NDArray[Any], loss_mask: npt.NDArray[Any]) -> None:
    """Raises a ValueError where tokens and loss mask are not [B, S+1] and [B, S]."""
    if tokens.ndim != 2 or loss_mask.shape != (len(tokens), tokens.shape[1] - 1):
        shapes = f"{list(tokens.shape)} and loss mask {list(loss_mask.shape)}"
        raise ValueError(f"tokens {shapes} are not [B, S+1] and [B, S]")


def row_digest(tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> str:
    """Digest of one row: its tokens [S+1] and its loss mask [S], 0 or 1."""
    sha = hashlib.sha256(np.ascontiguousarray(tokens, "<i4").data)
    sha.update(np.ascontiguousarray(loss_mask, np.uint8).data)
    return sha.hexdigest()[:DIGITS]
