"""The inputs that both sides of a case are handed, as files and by digest: the record, and how to read the files.

`weights.safetensors` holds the initial weights under Hugging Face's names, `batches.safetensors` the tokens and loss
masks of every step. `harness.corpus.draw` writes them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from harness.errors import EvidenceError

WEIGHTS = "weights.safetensors"
BATCHES = "batches.safetensors"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What both sides are handed: digests of weights and batches, and where the tokens came from."""

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
        EvidenceError: the file is missing, cut or of another format.
    """
    try:
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EvidenceError(f"The tensors {path} cannot be read: {error}.") from None
    return tensors
