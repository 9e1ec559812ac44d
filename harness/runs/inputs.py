"""The inputs of both sides of a case, as files and digests: the record, and how to read the files.

`weights.safetensors` holds the initial weights under Hugging Face's names, `batches.safetensors` the tokens and loss
masks of every step. `harness.corpus.draw` writes them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from harness.base.digest import digest_tensors
from harness.base.errors import EvidenceError

WEIGHTS = "weights.safetensors"
BATCHES = "batches.safetensors"
PROBE_UPDATES = 5
# Gradients of real models span many orders of magnitude; an epsilon or a bias correction shows at the small ones.
PROBE_DECADES = 6


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The inputs of both sides: digests of weights and batches, and the source of the tokens."""

    weights: str
    batches: str
    corpus: str
    corpus_sha256: str
    corpus_tokens: int
    tokenizer_sha256: str | None
    epochs: int
    parameters: int
    target_tokens: int


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file.

    Raises:
        EvidenceError: the file is missing, truncated or of another format.
    """
    try:
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EvidenceError(f"The tensors {path} cannot be read: {error}.") from None
    return tensors


def read_inputs(directory: Path, inputs: Inputs) -> dict[str, npt.NDArray[Any]]:
    """The initial weights of a directory, after a check that weights and batches are those that were drawn.

    Raises:
        EvidenceError: weights or batches cannot be read, or have another digest than `inputs` states.
    """
    for name, drawn in ((BATCHES, inputs.batches), (WEIGHTS, inputs.weights)):
        tensors = read_tensors(directory / name)
        if digest_tensors(tensors) != drawn:
            raise EvidenceError(f"{directory / name} was changed since it was drawn.")
    return tensors


def seeded(label: str) -> np.random.RandomState:
    """A generator of its own for a label.

    `RandomState` and not `Generator`: NumPy never changes the stream of the former (NEP 19).
    """
    return np.random.RandomState(np.frombuffer(hashlib.sha256(label.encode()).digest(), dtype="<u4"))


def probe_gradients(weights: Mapping[str, npt.NDArray[Any]], seed: int, update: int) -> dict[str, npt.NDArray[Any]]:
    """The float32 gradients that both sides' optimizers get, by name: normal, each element with a scale of its own
    between 1e-6 and 1."""
    gradients = {}
    for name, weight in weights.items():
        random = seeded(f"{seed}/gradient {update}/{name}")
        scale = 10.0 ** (-PROBE_DECADES * random.random_sample(weight.shape))
        gradients[name] = (scale * random.standard_normal(weight.shape)).astype(np.float32)
    return gradients
