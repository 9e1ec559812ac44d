"""Random tensors that are the same bits on every machine, and of which any part can be drawn alone.

A counter-based generator gives 64-bit words by label and position. Everything made of them is sums of whole numbers and
single operations that IEEE 754 rounds exactly: no logarithm, exponential or cosine, whose last bit differs from one C
library to the next.

Source: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox 4x64); J. O. Irwin, Biometrika
19 (1927), for the sum of uniform numbers.
"""

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

WORDS_OF_A_COUNT = 4  # words for each value of Philox's counter
PIECE = 1 << 20  # elements that are drawn at a time: bounds the memory
PARTS = 4  # numbers of 16 bits in a word
SUMMED = 2 * PARTS  # numbers of 16 bits that a nearly normal number is the sum of
MEAN = SUMMED * (2**16 - 1) // 2
DEVIATION = math.sqrt(SUMMED * (2.0**32 - 1) / 12)
# Gradients of real models span six decades; an epsilon or a bias correction shows at the small ones.
BINADES = 20
Array = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]


def words(label: str, begin: int, count: int) -> Words:
    """The words `begin` to `begin + count` of a label's sequence of 2^258."""
    key = int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], "little")
    counter, skipped = divmod(begin, WORDS_OF_A_COUNT)
    drawn: Words = np.random.Philox(key=key, counter=counter).random_raw(skipped + count)
    return drawn[skipped:]


def normal(label: str, shape: tuple[int, ...], deviation: float, mean: float = 0.0) -> npt.NDArray[np.float32]:
    """Nearly normal numbers, float32: each the sum of eight uniform ones, so within 4.9 standard deviations.

    Its kurtosis is 2.85, where that of a normal number is 3.
    """
    scale, middle = np.float32(deviation / DEVIATION), np.float32(mean)

    def some(begin: int, count: int) -> Array:
        parts = _parts(words(label, 2 * begin, 2 * count)).reshape(count, SUMMED)
        drawn: Array = _sum(parts, SUMMED, -MEAN).astype(np.float32) * scale + middle
        return drawn

    return _filled(shape, some)


def spread(label: str, shape: tuple[int, ...], first: int = 0) -> npt.NDArray[np.float32]:
    """Numbers of either sign over six decades below 1, float32: the sum of three uniform ones, times a power of two
    from 1 to 2^-19 that is drawn for each. They are those of the sequence from `first` on."""
    powers = np.float32(1.0) / (1 << np.arange(BINADES)).astype(np.float32) / np.float32(3 * 2**16)

    def some(begin: int, count: int) -> Array:
        parts = _parts(words(label, first + begin, count))
        odd = 2 * _sum(parts, PARTS - 1, 0) - (PARTS - 1) * (2**16 - 1)
        drawn: Array = odd.astype(np.float32) * powers[(parts[:, PARTS - 1].astype(np.uint32) * BINADES) >> 16]
        return drawn

    return _filled(shape, some)


def _parts(drawn: Words) -> npt.NDArray[np.uint16]:
    return drawn.astype("<u8").view("<u2").reshape(-1, PARTS)


def _sum(parts: npt.NDArray[np.uint16], count: int, start: int) -> npt.NDArray[np.int32]:
    """The sum of the first columns: far quicker than over an axis as short as this."""
    total = np.full(len(parts), start, np.int32)
    for column in range(count):
        total += parts[:, column]
    return total


def _filled(shape: tuple[int, ...], some: Callable[[int, int], Array]) -> npt.NDArray[np.float32]:
    """A tensor of what `some` gives for a beginning and a count, on both cores of a small machine."""
    flat = np.empty(math.prod(shape), np.float32)

    def fill(begin: int) -> None:
        end = min(begin + PIECE, len(flat))
        flat[begin:end] = some(begin, end - begin)

    pieces = range(0, len(flat), PIECE)
    if len(pieces) == 1:
        fill(0)
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fill, pieces))
    return flat.reshape(shape)
