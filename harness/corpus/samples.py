"""Megatron's order of samples, so that a run can be compared step by step with one of Megatron-LM or mindformers.

The rows equal those of their GPTDataset and BlendedDataset for the same seed: documents are shuffled and joined, the
stream is cut into rows of S + 1 tokens that overlap in one token, and the rows are shuffled. Only requested rows are
read.

Source: megatron-core 0.16.1, datasets/gpt_dataset.py, blended_dataset.py, blended_megatron_dataset_builder.py and
helpers.cpp; mindformers 1.9.0, dataset/blended_datasets/. The two differ only in the number of samples that a part of a
blend is built for (`PARTS`).
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.base.errors import InputError
from harness.corpus.indexed import IndexedDataset

Index = npt.NDArray[np.integer[Any]]
SPLITS = 3  # train, validation, test
# The last epoch is shuffled separately if less than this part of its samples is used.
FINAL_EPOCH = 0.80
SURPLUS = 0.005

# The samples that a part of weight w is built for, of n in total, so that the blend does not run out.
PARTS: Mapping[str, Callable[[int, float], int]] = {
    "megatron": lambda n, w: math.ceil(math.ceil(n * w) * (1 + SURPLUS)),
    "mindformers": lambda n, w: math.ceil(n * w * (1 + SURPLUS)),
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How samples are drawn. `samples` is the number that the data set is built for; it determines the epochs."""

    seed: int
    seq_length: int
    samples: int
    split: str
    order: str


@dataclass(frozen=True)
class WeightedDataset:
    """A data set of a blend and its weight; None if weights follow from the sizes."""

    dataset: IndexedDataset
    weight: float | None


class Samples(Protocol):
    """Rows in a fixed order; `epochs` is how often a data set is started for them."""

    epochs: int

    def __len__(self) -> int: ...
    def rows(self, numbers: Index) -> npt.NDArray[np.int32]:
        """The token ids of samples by number [len(numbers), S + 1]."""


class GptSamples:
    """The samples of one data set's training part.

    `samples` is the number to build for, or None for one epoch.

    Raises:
        InputError: the training part has too few tokens for one row.
    """

    def __init__(self, dataset: IndexedDataset, sampling: Sampling, samples: int | None) -> None:
        self._tokens, self._seq_length = dataset.tokens, sampling.seq_length
        sequences = training_part(len(dataset.lengths), sampling.split)
        per_epoch = int(dataset.lengths[sequences].sum(dtype=np.int64))
        if per_epoch <= sampling.seq_length:
            raise InputError(
                f"The training part of {dataset.prefix} has {per_epoch} tokens; one row of data.seq_length "
                f"{sampling.seq_length} needs {sampling.seq_length + 1}."
            )
        needed = 0 if samples is None else samples * sampling.seq_length + 1
        self.epochs = max(1, -(-needed // per_epoch))
        before_final = ((self.epochs - 1) * per_epoch - 1) // sampling.seq_length
        separate = self.epochs > 1 and (samples or 0) - before_final < int(
            FINAL_EPOCH * ((per_epoch - 1) // sampling.seq_length)
        )
        random = np.random.RandomState(sampling.seed)
        order = _shuffled_documents(sequences, self.epochs, separate, random)
        count = (self.epochs * per_epoch - 1) // sampling.seq_length
        self._shuffle = _shuffled_rows(before_final if separate else count, count, random)
        # the start of each document in the joined stream, and in the file
        lengths = dataset.lengths[order].astype(np.int64)
        self._begins = np.cumsum(lengths) - lengths
        starts = np.cumsum(dataset.lengths, dtype=np.int64) - dataset.lengths
        self._starts = starts[order]

    def __len__(self) -> int:
        return len(self._shuffle)

    def rows(self, numbers: Index) -> npt.NDArray[np.int32]:
        begins = self._shuffle[numbers].astype(np.int64) * self._seq_length
        places = begins[:, None] + np.arange(self._seq_length + 1)
        documents = np.searchsorted(self._begins, places, side="right") - 1
        rows: npt.NDArray[np.int32] = self._tokens[self._starts[documents] + places - self._begins[documents]]
        return rows.astype(np.int32)


class BlendedSamples:
    """The samples of several data sets; the next sample is of the data set that is furthest below its weight.

    Raises:
        InputError: a part is too small for one row.
    """

    def __init__(self, parts: Sequence[WeightedDataset], sampling: Sampling) -> None:
        weights = [part.weight for part in parts if part.weight is not None]
        shares, count = normalized(weights), sampling.samples
        if weights:
            sizes: list[int | None] = [PARTS[sampling.order](sampling.samples, share) for share in shares]
        else:
            sizes = [None] * len(parts)
        self._parts = [GptSamples(p.dataset, sampling, size) for p, size in zip(parts, sizes, strict=True)]
        if not weights:
            shares, count = [float(len(part)) for part in self._parts], min(count, sum(map(len, self._parts)))
        self.epochs = max(part.epochs for part in self._parts)
        self._shares, self._count = normalized(shares), count

    def __len__(self) -> int:
        return self._count

    def rows(self, numbers: Index) -> npt.NDArray[np.int32]:
        # a data set may be built for far more rows than a run uses
        part_of, sample_of = _blend(self._shares, int(numbers.max(initial=-1)) + 1)
        chosen, samples = part_of[numbers], sample_of[numbers]
        found: list[npt.NDArray[np.int32]] = []
        for index, part in enumerate(self._parts):
            needed = samples[chosen == index]
            if len(needed) and int(needed.max()) >= len(part):
                raise InputError(f"Part {index + 1} of the blend has {len(part)} samples, fewer than the blend needs.")
            found.append(part.rows(needed))
        rows = np.concatenate(found)
        back = np.empty(len(rows), np.int64)
        back[np.argsort(chosen, kind="stable")] = np.arange(len(rows))
        return rows[back]


def normalized(weights: Sequence[float]) -> list[float]:
    """Weights that add up to one."""
    array = np.array(weights, np.float64)
    found: list[float] = (array / np.sum(array)).tolist()
    return found


def training_part(sequences: int, split: str) -> npt.NDArray[np.int32]:
    """The sequences of the first of the three parts of a split such as `969, 30, 1`.

    Raises:
        InputError: the text is not a split, or leaves nothing to train on.
    """
    try:
        shares = [float(number) for number in re.findall(r"[.0-9]+", split)]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= SPLITS or not shares[0]:
        raise InputError(
            f"data.split {split!r} is not a split: give three numbers such as '969, 30, 1', the first above 0."
        )
    return np.arange(round(normalized(shares)[0] * float(sequences)), dtype=np.int32)


def _shuffled_documents(
    sequences: npt.NDArray[np.int32], epochs: int, separate: bool, random: np.random.RandomState
) -> npt.NDArray[np.int32]:
    together = np.tile(sequences, epochs - 1 if separate else epochs)
    random.shuffle(together)
    if not separate:
        return together
    last = sequences.copy()
    random.shuffle(last)
    return np.concatenate([together, last])


def _shuffled_rows(first: int, count: int, random: np.random.RandomState) -> npt.NDArray[np.int64]:
    """Shuffles the rows up to `first` among themselves, then the others."""
    parts = [np.arange(a, b, dtype=np.int64) for a, b in itertools.pairwise((0, first, count)) if b > a]
    for part in parts:
        random.shuffle(part)
    return np.concatenate(parts)


def _blend(shares: Sequence[float], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each of `count` samples, its part and its number within the part."""
    part, sample = np.empty(count, np.int64), np.empty(count, np.int64)
    used = [0] * len(shares)
    for number in range(count):
        deficits = [share * max(number, 1.0) - have for share, have in zip(shares, used, strict=True)]
        chosen = deficits.index(max(deficits))
        part[number], sample[number] = chosen, used[chosen]
        used[chosen] += 1
    return part, sample


def draw_samples(parts: Sequence[WeightedDataset], sampling: Sampling) -> Samples:
    """The samples of a data set or a blend; one data set with a weight is a blend of one.

    Raises:
        InputError: a data set is too small for one row.
    """
    if len(parts) == 1 and parts[0].weight is None:
        return GptSamples(parts[0].dataset, sampling, sampling.samples)
    return BlendedSamples(parts, sampling)
