"""The inputs of both sides of a case, as files and digests: the record, and how to read the files.

`weights.safetensors` holds the initial weights under Hugging Face's names; large ones are in numbered files of that
name. `batches.safetensors` holds the tokens and loss masks of every step. `harness.corpus.draw` writes them.
`vocabulary.json` lists the ids that a cut vocabulary keeps, in their new order.
A case whose evidence is sketches keeps its weights only while it runs; `weights.json` holds the digest of each.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from harness.base.digest import digest_each, digest_json, digest_tensors
from harness.base.errors import EvidenceError, InputError
from harness.base.records import read_json
from harness.runs.drawing import spread

WEIGHTS = "weights.safetensors"
WEIGHTS_DIGESTS = "weights.json"
VOCABULARY = "vocabulary.json"
BATCHES = "batches.safetensors"
PROBE_UPDATES = 5
FILE_BYTES = 1 << 30  # of one file of tensors, unless a single one is larger
Array = npt.NDArray[Any]


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


def write_tensors(tensors: Mapping[str, Array], path: Path) -> None:
    """Writes tensors as one safetensors file.

    Raises:
        InputError: the file cannot be written, also because the disk is full.
    """
    try:
        save_file(dict(tensors), path)
    except (OSError, SafetensorError) as error:  # the library has no class of its own for a full disk
        raise InputError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from None


def write_in_files(tensors: Iterable[tuple[str, Array]], sizes: Iterable[int], path: Path) -> None:
    """Writes tensors, which are made one by one, as one safetensors file, or as numbered files of that name if they are
    large, and holds no more than one file of them. `sizes`: the bytes of each, in order.

    Raises:
        InputError: a file cannot be written, also because the disk is full.
    """
    count, held, written = _files(sizes), dict[str, Array](), 0
    for name, tensor in tensors:
        if held and sum(one.nbytes for one in held.values()) + tensor.nbytes > FILE_BYTES:
            written += 1
            write_tensors(held, path.with_stem(f"{path.stem}-{written:05d}-of-{count:05d}"))
            held = {}
        held[name] = tensor
    write_tensors(held, path.with_stem(f"{path.stem}-{count:05d}-of-{count:05d}") if count > 1 else path)


def _files(sizes: Iterable[int]) -> int:
    """The number of files of tensors of these sizes, in order."""
    count, held = 1, 0
    for size in sizes:
        if held and held + size > FILE_BYTES:
            count, held = count + 1, 0
        held += size
    return count


def read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file.

    Raises:
        EvidenceError: the file is missing, truncated or of another format.
    """
    with _readable(path):
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
        return tensors


class LazyTensors(Mapping[str, Array]):
    """The tensors of safetensors files by name, each read anew whenever it is asked for: no model is held whole.

    Raises:
        EvidenceError: a file is missing, truncated or of another format.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._where: dict[str, Any] = {}
        for path in paths:
            with _readable(path):
                file = safe_open(path, framework="numpy")
                self._where |= dict.fromkeys(file.keys(), (path, file))

    def __getitem__(self, name: str) -> Array:
        path, file = self._where[name]
        with _readable(path):
            tensor: Array = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        raise EvidenceError(f"The tensors {path} cannot be read: {error}.") from None
    except (
        KeyError,
        AttributeError,
        TypeError,
    ) as error:  # a dtype that NumPy does not have, as safetensors reports it
        raise EvidenceError(f"The tensors {path} cannot be read: NumPy has no type for {error}.") from None


def weights_files(path: Path) -> list[Path]:
    """The files of weights written to a path: itself, or numbered ones beside it."""
    numbered = sorted(path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"))
    return numbered if numbered and not path.is_file() else [path]


def read_weights(path: Path) -> LazyTensors:
    """Weights that `harness.corpus.draw` wrote to a path, or that a run left there.

    Raises:
        EvidenceError: a file is missing, truncated or of another format.
    """
    return LazyTensors(weights_files(path))


def check_batches(directory: Path, inputs: Inputs) -> None:
    """Checks that the batches of a directory are those that were drawn.

    Raises:
        EvidenceError: they cannot be read, or have another digest than `inputs` states.
    """
    if digest_tensors(read_tensors(directory / BATCHES)) != inputs.batches:
        raise EvidenceError(f"{directory / BATCHES} was changed since it was drawn.")


def read_inputs(directory: Path, inputs: Inputs) -> Mapping[str, Array]:
    """The initial weights of a directory, after a check that weights and batches are those that were drawn.

    Raises:
        EvidenceError: weights or batches cannot be read, or have another digest than `inputs` states.
    """
    check_batches(directory, inputs)
    weights = read_weights(directory / WEIGHTS)
    if digest_tensors(weights) != inputs.weights:
        raise EvidenceError(f"{directory / WEIGHTS} was changed since it was drawn.")
    return weights


def digests_of_weights(directory: Path, inputs: Inputs, *, kept: bool) -> dict[str, str]:
    """The digest of each initial weight: of the weights themselves if they were kept, or as `weights.json` lists them.

    Raises:
        EvidenceError: they cannot be read, or are not those of `inputs`.
    """
    path = directory / (WEIGHTS if kept else WEIGHTS_DIGESTS)
    found = digest_each(read_weights(path)) if kept else read_json(path)
    if not isinstance(found, dict) or digest_json(found) != inputs.weights:
        raise EvidenceError(f"{path} was changed since it was drawn.")
    return {str(name): str(digest) for name, digest in found.items()}


def seeded(label: str) -> np.random.RandomState:
    """A generator of its own for a label.

    `RandomState` and not `Generator`: NumPy never changes the stream of the former (NEP 19).
    """
    return np.random.RandomState(np.frombuffer(hashlib.sha256(label.encode()).digest(), dtype="<u4"))


class ProbeGradients(Mapping[str, Array]):
    """The float32 gradients that the optimizers of both sides get in an update, by name; each is drawn when it is asked
    for, so that no model is held whole. See `harness.runs.drawing.spread`."""

    def __init__(self, weights: Mapping[str, Array], seed: int, update: int) -> None:
        self._shapes = {name: weights[name].shape for name in weights}
        self._label = f"{seed}/gradient {update}"

    def __getitem__(self, name: str) -> Array:
        return self.elements(name, 0, math.prod(self._shapes[name])).reshape(self._shapes[name])

    def elements(self, name: str, first: int, count: int) -> Array:
        """Some elements of one of them, in the order of its rows."""
        return spread(f"{self._label}/{name}", (count,), first)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
