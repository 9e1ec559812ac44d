"""The content of a Megatron data set: counts, lengths, the range of its ids, and its first documents."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.base.errors import InputError
from harness.corpus.indexed import IndexedDataset


@dataclass(frozen=True, kw_only=True)
class LengthBin:
    """The number of documents with `least` to `most` tokens."""

    least: int
    most: int
    documents: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Counts over a data set; lengths are document lengths in tokens."""

    dtype: str
    documents: int
    empty_documents: int
    sequences: int
    tokens: int
    lowest_id: int
    highest_id: int
    shortest: int
    median: float
    mean: float
    longest: int
    histogram: tuple[LengthBin, ...]
    sha256: str


def inspect_indexed(dataset: IndexedDataset, vocab_size: int | None = None) -> Inspection:
    """Counts a data set's documents, sequences and tokens.

    Raises:
        InputError: an id is outside a vocabulary of `vocab_size`; the message names its position.
    """
    if vocab_size is not None and dataset.highest >= vocab_size:
        place = _first_beyond(dataset, vocab_size)
        document = int(np.searchsorted(np.cumsum(dataset.document_lengths), place, side="right"))
        raise InputError(
            f"{dataset.prefix}.bin holds the token id {dataset.tokens[place]} in document {document} (token {place} of "
            f"the file), outside the vocabulary of {vocab_size}: it was made with another tokenizer."
        )
    lengths = dataset.document_lengths
    return Inspection(
        dtype=dataset.dtype.name,
        documents=len(lengths),
        empty_documents=int((lengths == 0).sum()),
        sequences=len(dataset.lengths),
        tokens=len(dataset.tokens),
        lowest_id=dataset.lowest,
        highest_id=dataset.highest,
        shortest=int(lengths.min()),
        median=float(np.median(lengths)),
        mean=float(lengths.mean()),
        longest=int(lengths.max()),
        histogram=_histogram(lengths),
        sha256=dataset.sha256,
    )


def first_documents(dataset: IndexedDataset, documents: int, tokens: int) -> list[npt.NDArray[np.int32]]:
    """The beginnings of the first documents: at most `tokens` ids of each."""
    lengths = dataset.document_lengths[:documents]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return [
        np.asarray(dataset.tokens[start : start + min(length, tokens)], np.int32)
        for start, length in zip(starts, lengths, strict=False)
    ]


def _first_beyond(dataset: IndexedDataset, vocab_size: int) -> int:
    step = 1 << 20
    for start in range(0, len(dataset.tokens), step):
        beyond = np.flatnonzero(dataset.tokens[start : start + step] >= vocab_size)
        if len(beyond):
            return start + int(beyond[0])
    raise AssertionError("no id is outside the vocabulary, but the highest one is")


def _histogram(lengths: npt.NDArray[np.int64]) -> tuple[LengthBin, ...]:
    """Bins that double: 0, 1, 2-3, 4-7, and so on up to the longest document."""
    bins = np.where(lengths > 0, np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64) + 1, 0)
    counts = np.bincount(bins)
    edges = [(0, 0), *((1 << power, (1 << power + 1) - 1) for power in range(len(counts) - 1))]
    found = [LengthBin(least=a, most=b, documents=int(n)) for (a, b), n in zip(edges, counts, strict=True)]
    first = next(place for place, one in enumerate(found) if one.documents)
    return tuple(found[first:])
