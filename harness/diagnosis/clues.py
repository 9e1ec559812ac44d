"""The kind of fault that fits a wrong tensor: pure functions of the tensor and of the exact one.

A clue is a guess that fits the numbers, never a proof. It describes the tensor within the error that a correct tensor
may have. The first clue that fits is used.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.distance import tensor_difference
from harness.runs.places import TABLES
from harness.runs.taps import exact_loss

Array = npt.NDArray[Any]
# A guess explains a difference if at most a hundredth of it remains.
UNEXPLAINED = 0.01
# With fewer elements per factor, factors fit any tensor.
ELEMENTS_PER_FACTOR = 4
BASE_TOLERANCE = 1e-3  # relative, of a base computed from float32 tables
PARTLY = 0.5  # "only" means: at no more than half of the indices


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A wrong tensor and the tensors to compare it with.

    `allowed` is the largest relative error of a correct tensor; `inputs` are the subject's own tensors that this one is
    computed from; `elsewhere` are the exact values of the step's other tensors; `reference` is the reference's tensor.
    """

    name: str
    axes: tuple[str, ...]
    subject: Array
    exact: Array
    reference: Array
    allowed: float
    inputs: Mapping[str, Array] = field(default_factory=dict)
    elsewhere: Mapping[str, Array] = field(default_factory=dict)

    @property
    def difference(self) -> Array:
        return self.subject.astype(np.float64) - self.exact

    def fits(self, guess: Array) -> bool:
        """Whether the tensor is `guess` within the error of a correct one, or the guess explains the difference."""
        if guess.shape != self.subject.shape:
            return False
        left = float(np.linalg.norm(self.subject - guess))
        explained = left <= UNEXPLAINED * float(np.linalg.norm(self.difference))
        return explained or left <= min(self.allowed, 0.5) * float(np.linalg.norm(guess))


Clue = Callable[[Scene], str | None]


def clue(scene: Scene) -> str | None:
    """The first clue that fits the tensor, or None."""
    if scene.subject.shape != scene.exact.shape:
        return f"it has the shape {list(scene.subject.shape)} instead of {list(scene.exact.shape)}"
    return next((found for guess in CLUES if (found := guess(scene)) is not None), None)


def not_finite(scene: Scene) -> str | None:
    bad = ~np.isfinite(scene.subject)
    if not bad.any():
        return None
    first = np.unravel_index(int(np.argmax(bad)), bad.shape)
    where = ", ".join(f"{axis} {index}" for axis, index in zip(scene.axes, first, strict=False))
    return f"{int(bad.sum())} of {bad.size} elements are not finite{f', first at {where}' if where else ''}"


def zeros(scene: Scene) -> str | None:
    return "it is zero everywhere" if not scene.subject.any() and scene.exact.any() else None


def its_input(scene: Scene) -> str | None:
    """Bit for bit the same as an input."""
    for name, tensor in scene.inputs.items():
        if any(same.tobytes() == scene.subject.tobytes() for same in _laid_out_as(tensor, scene.subject)):
            return "it is identical to its input" if len(scene.inputs) == 1 else f"it is identical to its input {name}"
    return None


def _laid_out_as(tensor: Array, other: Array) -> Iterator[Array]:
    """A tensor in another's shape: heads split or joined, before positions or after."""
    if tensor.size != other.size:
        return
    if tensor.ndim == other.ndim == 4:
        swapped = np.ascontiguousarray(tensor.swapaxes(1, 2))
        if swapped.shape == other.shape:
            yield swapped
    yield tensor.reshape(other.shape)


def factor(scene: Scene) -> str | None:
    along = float((scene.subject * scene.exact).sum()) / max(float(np.square(scene.exact).sum()), 1e-300)
    if not math.isfinite(along) or abs(along - 1) <= scene.allowed or not scene.fits(along * scene.exact):
        return None
    if abs(along + 1) <= scene.allowed:
        return "it has the opposite sign"
    return f"{'every element' if scene.subject.size > 1 else 'it'} is {along:.6g} times what it should be"


def factors(scene: Scene) -> str | None:
    """A factor for each index of one axis."""
    for number, axis in enumerate(scene.axes):
        if scene.subject.size < ELEMENTS_PER_FACTOR * scene.subject.shape[number]:
            continue
        others = tuple(other for other in range(scene.subject.ndim) if other != number)
        squares = np.square(scene.exact).sum(others, keepdims=True)
        each = (scene.subject * scene.exact).sum(others, keepdims=True) / np.maximum(squares, 1e-300)
        if scene.fits(each * scene.exact):
            wrong = np.abs(each - 1) > scene.allowed
            what = f"each {axis} has a factor of its own, {each.min():.4g} to {each.max():.4g}"
            return what if wrong.mean() > PARTLY else _only(axis, np.flatnonzero(wrong), what="has another factor")
    return None


def vectors(scene: Scene) -> str | None:
    """A factor for each vector along the last axis, as a norm's scale is."""
    if scene.subject.ndim < 2 or scene.subject.shape[-1] < ELEMENTS_PER_FACTOR:
        return None
    squares = np.square(scene.exact).sum(-1, keepdims=True)
    each = (scene.subject * scene.exact).sum(-1, keepdims=True) / np.maximum(squares, 1e-300)
    if not scene.fits(each * scene.exact):
        return None
    end = "; epsilon, or the mean of its squares" if "norm" in scene.name.rpartition(".")[2] else ""
    return f"each vector has a factor of its own, {each.min():.4g} to {each.max():.4g}{end}"


def elsewhere(scene: Scene) -> str | None:
    for name, tensor in scene.elsewhere.items():
        if name != scene.name and tensor.shape == scene.subject.shape and scene.fits(tensor):
            return f"it holds the values of {name}"
    return None


def shifted(scene: Scene) -> str | None:
    for number, axis in enumerate(scene.axes):
        if "position" not in axis or scene.subject.shape[number] < 4:
            continue
        for by, word in ((1, "before"), (-1, "after")):
            moved = np.roll(scene.exact, by, number)
            inside = [slice(None)] * scene.subject.ndim
            inside[number] = slice(1, None) if by > 0 else slice(None, -1)
            here, there = scene.subject[tuple(inside)], moved[tuple(inside)]
            if tensor_difference(there, here)[0] <= scene.allowed:
                return f"each {axis} holds the values of the one {word} it"
    return None


def exchanged(scene: Scene) -> str | None:
    """Halves of the last axis, and heads in another order."""
    width = scene.subject.shape[-1] if scene.subject.ndim else 1
    if width % 2 == 0 and scene.fits(np.roll(scene.exact, width // 2, -1)):
        return f"the halves of each {scene.axes[-1]} axis are exchanged"
    for number, axis in enumerate(scene.axes):
        if axis in ("head", "row") and scene.subject.shape[number] > 1:
            here, there = (np.moveaxis(a, number, 0) for a in (scene.subject, scene.exact))
            order = [int(np.argmin([float(np.linalg.norm(one - other)) for other in there])) for one in here]
            if order != list(range(len(order))) and scene.fits(np.moveaxis(there[order], 0, number)):
                return f"the {axis}s are in another order: {order}"
    return None


def rounded(scene: Scene) -> str | None:
    """Every element fits in a narrower type, and the reference's elements do not."""
    for name, is_of in (("bfloat16", _is_bfloat16), ("float16", _is_float16)):
        if is_of(scene.subject) and not is_of(scene.reference):
            return f"every element is a {name} number: rounded to {name}"
    return None


def _is_bfloat16(tensor: Array) -> bool:
    return not bool((np.ascontiguousarray(tensor, np.float32).view(np.uint32) & 0xFFFF).any())


def _is_float16(tensor: Array) -> bool:
    single = tensor.astype(np.float32)
    with np.errstate(over="ignore"):
        return bool(np.array_equal(single.astype(np.float16).astype(np.float32), single))


def rotated(scene: Scene) -> str | None:
    """A rotary embedding keeps the length of each pair of channels, for every angle."""
    if ".rotary_emb." not in scene.name:
        return None
    half = scene.subject.shape[-1] // 2
    lengths = [np.hypot(a[..., :half], a[..., half:]) for a in (scene.subject.astype(np.float64), scene.exact)]
    if tensor_difference(lengths[1], lengths[0])[0] <= scene.allowed:
        return "every pair of channels has the right length and a wrong angle: rope_theta, positions or direction"
    heads = [np.linalg.norm(a, axis=-1) for a in (scene.subject.astype(np.float64), scene.exact)]
    if tensor_difference(heads[1], heads[0])[0] <= scene.allowed:
        return "every head has the right length, but its pairs do not: other channels are paired"
    return None


def rotary_tables(scene: Scene) -> str | None:
    """Rotary tables with another base, or with positions that start again."""
    if scene.name != TABLES or scene.subject.shape[1] < 2 or scene.subject.shape[2] < 4:
        return None
    found, expected = _rotary_base(scene.subject), _rotary_base(scene.exact)
    if found and expected and abs(found / expected - 1) > BASE_TOLERANCE:
        return f"they are made with rope_theta {found:.6g} instead of {expected:.6g}"
    for every in range(1, scene.subject.shape[1]):
        if np.array_equal(scene.subject[:, every:], scene.subject[:, :-every]):
            return f"positions start again after every {every} tokens"
    return None


def _rotary_base(tables: Array) -> float | None:
    """theta, if the angle of each channel pair i of H / 2 at position 1 is theta^(-2i/H)."""
    half = tables.shape[2] // 2
    cosines, sines = tables[:, 1, 1:half].astype(np.float64)
    with np.errstate(all="ignore"):
        each = np.arctan2(sines, cosines) ** (-half / np.arange(1, half))
    base = float(np.median(each))
    return base if np.all(np.abs(each / base - 1) <= BASE_TOLERANCE) else None


def attention_weights(scene: Scene) -> str | None:
    """Attention weights: those above the diagonal, their sum, and a scale of the scores."""
    if not scene.name.endswith(".softmax") or scene.subject.ndim != 4 or scene.axes[0] != "row":
        return None
    future = np.triu(np.ones(scene.subject.shape[-2:], bool), 1)
    if np.abs(scene.subject[..., future]).max(initial=0.0) > 0:
        return "later positions have a weight: the causal mask is missing or incomplete"
    sums = scene.subject.sum(-1, dtype=np.float64)
    if np.abs(sums - 1).max() > max(scene.allowed, 1e-5):
        return f"the weights of a query sum to between {sums.min():.4g} and {sums.max():.4g}, not to 1"
    return _scaled_scores(scene, ~future)


def _scaled_scores(scene: Scene, visible: npt.NDArray[np.bool_]) -> str | None:
    """log p is the score minus a number per query, so a scale of the scores is a slope of one log p over the other."""
    logs = []
    for probabilities in (scene.subject.astype(np.float64), scene.exact):
        each = np.where(visible, np.log(np.maximum(probabilities, 1e-30)), 0.0)
        logs.append(np.where(visible, each - each.sum(-1, keepdims=True) / visible.sum(-1)[:, None], 0.0))
    slope = float((logs[0] * logs[1]).sum() / max(float(np.square(logs[1]).sum()), 1e-300))
    left = float(np.linalg.norm(logs[0] - slope * logs[1]))
    if abs(slope - 1) <= scene.allowed or left > UNEXPLAINED * float(np.linalg.norm(logs[0])):
        return None
    return f"every score is {slope:.6g} times what it should be before the softmax"


def partly(scene: Scene) -> str | None:
    """Wrong at some indices of an axis, right at all others."""
    for number, axis in enumerate(scene.axes):
        others = tuple(other for other in range(scene.subject.ndim) if other != number)
        errors = np.sqrt(np.square(scene.difference).sum(others))
        norms = np.sqrt(np.square(scene.exact).sum(others))
        wrong = errors > scene.allowed * np.maximum(norms, 1e-300)
        if wrong.any() and wrong.mean() <= PARTLY:
            return _only(axis, np.flatnonzero(wrong), what="is wrong")
    return None


def _only(axis: str, indices: Array, what: str) -> str:
    listed = ", ".join(str(int(index)) for index in indices[:5])
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"only {axis} {listed}{more} {what}"


# The most specific first: a factor of 1 for half of the channels is also "partly wrong".
CLUES: tuple[Clue, ...] = (
    not_finite, zeros, its_input, factor, elsewhere, shifted, exchanged, rounded, attention_weights, rotary_tables,
    rotated, factors, vectors, partly,
)  # fmt: skip


def loss_clue(loss: float, logits: Array, tokens: Array, mask: Array, allowed: float) -> str | None:
    """How a wrong loss follows from right logits, or None."""
    inputs, targets, ones = tokens[:, :-1], tokens[:, 1:], np.ones_like(mask)
    counted, every = float(mask.sum()), float(mask.size)
    further = np.concatenate([tokens[:, 2:], tokens[:, -1:]], 1)
    rows = [exact_loss(*row, max(float(row[2].sum()), 1.0)) for row in zip(logits, targets, mask, strict=True)]
    guesses = {
        "each token is its own target: the targets are not shifted": exact_loss(logits, inputs, mask, counted),
        "targets are shifted twice": exact_loss(logits, further, mask, counted),
        "masked targets are counted: the loss mask is not used": exact_loss(logits, targets, ones, every),
        "it is divided by all targets, masked ones included": exact_loss(logits, targets, mask, every),
        "it is a sum, not divided by the number of targets": exact_loss(logits, targets, mask, 1.0),
        "it is the mean of the means of the rows": float(np.mean(rows)),
        "it has the opposite sign": -exact_loss(logits, targets, mask, counted),
    }
    fitting = [words for words, guess in guesses.items() if abs(loss - guess) <= max(allowed, 1e-6) * abs(guess)]
    return fitting[0] if fitting else None
