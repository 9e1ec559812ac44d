"""Which parts of Hugging Face's tensors a rank of MindSpore's graph holds, from the layouts of its parameters.

Once a training graph is compiled over several ranks, its cell states for each parameter of this rank's stage the matrix
of devices, which of its dimensions each axis is divided over, the shape on this rank and the whole shape
(`Cell.parameter_layout_dict`). A rank's part of a fused parameter is its rows from one to another, of which each tensor
in it has some. The parallel optimizer divides the first axis of a rank's part once more, over the ranks of a group.
What is not exactly one of several equal parts along one axis is not known here, and nothing is stated then.

Source: mindspore 2.9.0, `mindspore/parallel/_tensor.py` (`_load_tensor_by_layout`) and `Parameter.init_data`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.runs.mindformers_model import FusedRows
from qwen3_model.parallel_config import Part

Layouts = Mapping[str, Sequence[Any]]  # by the name of a parameter of this rank's stage
Groups = Callable[[str], tuple[int, int]]  # the number of this rank in a group of that name, and the group's size


class UnknownPart(Exception):
    """Which part of a tensor this rank holds is not known, with the reason."""


@dataclass(frozen=True, kw_only=True)
class HeldPart:
    """A part of a Hugging Face tensor on this rank: which part, and its rows in this rank's part of a parameter, whose
    shape is `shape`."""

    name: str
    part: Part
    parameter: str
    rows: npt.NDArray[np.int64]
    shape: tuple[int, ...]


def held_parts(
    places: Mapping[str, FusedRows], shapes: Mapping[str, Sequence[int]], layouts: Layouts, rank: int, groups: Groups
) -> Iterator[HeldPart]:
    """What a rank holds of each tensor, in the order of their parameters; nothing of those of other stages.

    Args:
        places: Where each tensor lies in the whole parameters.
        shapes: Of the whole tensors, by name.
        layouts: Of the parameters of this rank's stage.
        rank: The number of this rank.
        groups: The place of this rank in a group of ranks.

    Raises:
        UnknownPart: a part of a tensor is not one of several equal parts along one axis.
    """
    lengths: dict[str, int] = {}
    for place in places.values():
        lengths[place.parameter] = lengths.get(place.parameter, 0) + len(place.rows)
    for name, place in sorted(places.items(), key=lambda item: item[1].parameter):
        if place.parameter in layouts:
            whole = (lengths[place.parameter], *shapes[name][1:])
            parts = division(place.parameter, layouts[place.parameter], whole, rank, groups)
            yield from _held(name, place, whole, parts)


def _held(name: str, place: FusedRows, whole: tuple[int, ...], parts: tuple[Part, ...]) -> Iterator[HeldPart]:
    shape = tuple(length // part.of for length, part in zip(whole, parts, strict=True))
    first = parts[0].index * shape[0]
    (rows,) = np.nonzero((first <= place.rows) & (place.rows < first + shape[0]))
    if not len(rows):
        return
    found = [_of_rows(name, rows, len(place.rows)), *parts[1:]]
    divided = [part for part in found if part.of > 1]
    if len(divided) > 1:
        raise UnknownPart(f"{name} is divided along {len(divided)} axes")
    yield HeldPart(
        name=name,
        part=divided[0] if divided else Part(),
        parameter=place.parameter,
        rows=place.rows[rows] - first,
        shape=shape,
    )


def _of_rows(name: str, rows: npt.NDArray[np.int64], length: int) -> Part:
    """Which part of a tensor some of its rows are."""
    count, first = len(rows), int(rows[0])
    if rows[-1] - first != count - 1 or length % count or first % count:
        raise UnknownPart(f"{name}: {count} of its {length} rows are on this rank, and they are no equal part of it")
    return Part(index=first // count, of=length // count)


def division(
    parameter: str, layout: Sequence[Any], whole: tuple[int, ...], rank: int, groups: Groups
) -> tuple[Part, ...]:
    """Of each axis of a parameter, the part that a rank holds.

    Raises:
        UnknownPart: the layout is of another form, or of another shape.
    """
    if len(layout) < 7:
        raise UnknownPart(f"the layout of {parameter} has {len(layout)} fields")
    devices, axes, shape, _, uniform, group, full = layout[:7]
    if not uniform or any(not isinstance(axis, int) for axis in axes):
        raise UnknownPart(f"{parameter} is not divided into equal parts, or one of its axes over several dimensions")
    parts = tuple(_along(place, axis, devices, rank) for place, axis in enumerate(axes or [-1] * len(whole)))
    own = tuple(length // part.of for length, part in zip(whole, parts, strict=False))
    if len(parts) != len(whole) or tuple(full) != whole or tuple(shape) != own:
        raise UnknownPart(f"{parameter} has the shape {list(shape)} of {list(full)}, and {list(own)} was expected")
    if group:  # the shape of the layout is the one before
        index, of = groups(group)
        parts = (Part(index=parts[0].index * of + index, of=parts[0].of * of), *parts[1:])
    if any(length % part.of for length, part in zip(whole, parts, strict=True)):
        raise UnknownPart(f"{parameter} of the shape {list(whole)} is not divided into equal parts")
    return parts


def _along(place: int, axis: int, devices: Sequence[int], rank: int) -> Part:
    """The part along an axis that is divided over a dimension of the devices, counted from the last one; -1: whole."""
    if axis == -1:
        return Part()
    after = int(np.prod(devices[len(devices) - axis :], dtype=np.int64))
    of = int(devices[-axis - 1])
    return Part(axis=place, index=rank // after % of, of=of) if of > 1 else Part()
