"""A dump of msprobe in place of a tapped subject: its modules' tensors, or the statistics of them, as places of a step.

A dump is a directory with `dump.json`, and with `dump_tensor_data/` where it has tensors. It is of level L0 or mix: of
L1 it names operators and no modules. In `backward`, `input` is the gradient of a module's output, and `output` that of
its input. Source: dumps of mindstudio-probe 26.2.0 of PyTorch 2.13 and MindSpore 2.9.
"""

import math
import os
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_file
from harness.base.errors import InputError
from harness.base.foreign_json import parse_foreign
from harness.base.text import listed
from harness.cases.case import Case
from harness.comparison.distance import HALF_ULP
from harness.diagnosis.dumped_modules import PARTIAL, rows_of
from harness.runs.files import GRADIENT
from harness.runs.places import TABLES, TapPoint, places

DUMP, TENSORS = "dump.json", "dump_tensor_data"
LARGEST_BYTES, LARGEST_LENGTH = 1 << 30, 1 << 48
MODULE = re.compile(
    r"(?:Module|Cell)\.(?P<path>.+)\.[^.]+\.(?P<way>forward|backward|parameters_grad)(?:\.(?P<call>\d{1,9}))?"
)
ROUNDING = (("bfloat16", 2.0**-9), ("float16", 2.0**-12))
POSITION_FIRST = ".self_attention."  # mindformers' name, in whose tensors the position comes before the row
SHAPE = "shape"
HELD = {"input_args": list, "input_kwargs": dict, "parameters": dict}  # by the record of a call, if it has them
Array = npt.NDArray[Any]
Load = Callable[[Path], Array]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What msprobe states of a tensor: largest, smallest and mean element, and the 2-norm; `shape` is the tensor's.

    `rounding` is half a unit in the last place of a number of its dtype with fewer bits than float32, in which msprobe
    may round mean and norm; 0 of others.
    """

    shape: tuple[int, ...]
    largest: float
    smallest: float
    mean: float
    norm: float
    rounding: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Dump:
    """What a dump has of the places of a step, by the names of a tapped run: tensors, or statistics alone.

    `omitted` are modules with weights that no place has. `sha256` is the digest of its `dump.json`.
    """

    framework: str
    task: str
    level: str
    sha256: str
    tensors: Mapping[str, Array]
    statistics: Mapping[str, Statistics]
    omitted: tuple[str, ...]

    @property
    def described(self) -> str:
        """In words, in the place of a runner."""
        return f"dump of {self.framework} by msprobe ({self.task}, {self.level})"


def find_dump(directory: Path) -> Path:
    """The directory of `dump.json` under one that the user named.

    Raises:
        InputError: there is none, or several.
    """
    found = sorted(path.parent for path in directory.rglob(DUMP)) if directory.is_dir() else []
    if not found:
        raise InputError(
            f"{directory} holds no {DUMP}. Give the directory of a dump of msprobe, such as dump/step0/rank0."
        )
    if len(found) > 1:
        names = listed([str(path) for path in found[:4]])
        raise InputError(
            f"{directory} holds {len(found)} dumps: give the one of a rank and of a step, such as {names}."
        )
    return found[0]


def read_dump(directory: Path, case: Case, load: Load) -> Dump:
    """The places of a step of a case in a dump; `load` reads a tensor that PyTorch saved.

    Raises:
        InputError: it is no dump of modules, or none of them is a place.
    """
    content = _content(directory / DUMP)
    if content["level"] not in ("L0", "mix"):
        raise InputError(f"{directory / DUMP} is of level {content['level']}, which has no modules: dump L0 or mix.")
    every = _calls(content["data"])
    reader = _Reader(directory, case, load, position_first=any(POSITION_FIRST in f"{path}." for path, _ in every))
    tensors, statistics, omitted = dict[str, Array](), dict[str, Statistics](), dict[str, None]()
    for (path, way), calls in every.items():
        found = dict(reader.read(path, way, calls))
        tensors |= {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
        statistics |= {name: value for name, value in found.items() if isinstance(value, Statistics)}
        if way == "forward" and not list(rows_of(path)) and calls[0].get("parameters"):
            omitted[path] = None
    if not tensors and not statistics:
        raise InputError(
            f"{directory / DUMP} names no module of Qwen3 with a tensor or statistics (Max, Min, Mean, Norm). Was "
            "another model dumped, or with the summary mode md5?"
        )
    return Dump(
        framework=str(content["framework"]),
        task=str(content["task"]),
        level=str(content["level"]),
        sha256=digest_file(directory / DUMP),
        tensors=tensors,
        statistics={name: value for name, value in statistics.items() if name not in tensors},
        omitted=tuple(omitted),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path} has more than {LARGEST_BYTES:,} bytes.")
        content = parse_foreign(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from None
    keys = {"task": str, "level": str, "data": dict}
    if not isinstance(content, dict) or any(not isinstance(content.get(key), kind) for key, kind in keys.items()):
        raise InputError(f"{path} is no dump of msprobe: it needs {listed(list(keys))}.")
    return {"framework": "an unknown framework", **content}


def _calls(data: Mapping[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The records of each module by its path and direction, in the order of its calls."""
    found = dict[tuple[str, str], dict[int, dict[str, Any]]]()
    for name, record in data.items():
        if named := MODULE.fullmatch(name):
            _check_record(name, record)
            found.setdefault((named["path"], named["way"]), {})[int(named["call"] or 0)] = record
    return {key: [calls[number] for number in sorted(calls)] for key, calls in found.items()}


def _check_record(name: str, record: Any) -> None:
    """Refuses a record of a module that is none.

    Raises:
        InputError: it, or a part of it, is of another kind.
    """
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key) or kind(), kind) for key, kind in HELD.items()
    ):
        raise InputError(f"{DUMP}: {name} is no record of a module's call.")
    for one in _tensors(list(record.values())):
        lengths = one[SHAPE] or []
        if not isinstance(lengths, list) or not all(
            type(length) is int and 0 <= length < LARGEST_LENGTH for length in lengths
        ):
            raise InputError(f"{DUMP}: {name} has a tensor of the shape {str(lengths)[:40]}.")


@dataclass
class _Reader:
    directory: Path
    case: Case
    load: Load
    position_first: bool
    places: dict[str, TapPoint] = field(init=False)

    def __post_init__(self) -> None:
        data = self.case.data
        every = places(self.case.model, data.global_batch_size, data.seq_length)
        self.places = {place.name: place for place in every}

    def read(self, path: str, way: str, calls: Sequence[dict[str, Any]]) -> Iterator[tuple[str, Array | Statistics]]:
        """Name and value of each place that a module gives."""
        for place, taken in rows_of(path):
            if (point := self.places.get(place)) is None:
                continue
            if way == "parameters_grad":
                if taken == "output" and len(calls) == 1 and (weight := _first(calls[0].get("weight"))) is not None:
                    yield from self._named(f"{GRADIENT}{place}.weight", [weight], None)
            elif way == "forward":
                yield from self._forward(point, taken, calls)
            elif not place.endswith(PARTIAL) and point.gradient:
                # of the gradient, input and output are those of the backward pass
                given = [_first(call.get("input" if taken == "output" else "output")) for call in calls]
                yield from self._named(f"backward.{place}", given, point)

    def _forward(
        self, point: TapPoint, taken: str, calls: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[str, Array | Statistics]]:
        if point.name == TABLES:
            yield from self._tables(point, calls[0])
            return
        given = [_first(call.get("output") if taken == "output" else _inputs(call)) for call in calls]
        yield from self._named(f"forward.{point.name}", given, point)

    def _tables(self, point: TapPoint, call: dict[str, Any]) -> Iterator[tuple[str, Array | Statistics]]:
        """Cosines over sines, which a module returns as two tensors of a row."""
        both = [self._value(one) for one in _tensors(call.get("output"))[:2]]
        halves = [one for one in both if isinstance(one, np.ndarray) and 2 * one.size == _size(point)]
        if len(halves) == 2:
            yield f"forward.{TABLES}", np.stack([one.reshape(point.shape[1:]) for one in halves])

    def _named(
        self, name: str, given: Sequence[dict[str, Any] | None], point: TapPoint | None
    ) -> Iterator[tuple[str, Array | Statistics]]:
        """A place by its name with the value of all calls together, if each has one."""
        values = [self._value(one) if one is not None else None for one in given]
        if all(isinstance(one, np.ndarray) for one in values):
            yield name, _whole([np.asarray(one) for one in values], point, self.position_first)
        elif all(isinstance(one, Statistics) for one in values):
            yield name, _together([one for one in values if isinstance(one, Statistics)], point)

    def _value(self, record: dict[str, Any]) -> Array | Statistics | None:
        """The tensor of a record, or what it states of one."""
        if isinstance(file := record.get("data_name"), str):
            path = self.directory / TENSORS / Path(file).name
            if os.path.isfile(path):  # False also for a name that no file can have
                return self._tensor(path)
        numbers = [record.get(key) for key in ("Max", "Min", "Mean", "Norm")]
        if not all(isinstance(one, int | float) for one in numbers):
            return None
        largest, smallest, mean, norm = (_number(one) for one in numbers if one is not None)
        shape = tuple(record[SHAPE] or ())
        rounding = next((unit for name, unit in ROUNDING if name in str(record.get("dtype")).lower()), 0.0)
        return Statistics(shape=shape, largest=largest, smallest=smallest, mean=mean, norm=norm, rounding=rounding)

    def _tensor(self, path: Path) -> Array:
        try:
            # mapped: a header may state more than the file holds
            found = np.load(path, mmap_mode="r", allow_pickle=False) if path.suffix == ".npy" else self.load(path)
        except (OSError, ValueError, EOFError, OverflowError, SyntaxError, tokenize.TokenError) as error:
            raise InputError(f"{path} cannot be read: {error}.") from None
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiub":
            raise InputError(f"{path} holds no numbers.")
        return np.array(found, np.float64 if found.dtype == np.float64 else np.float32)


def _number(stated: float) -> float:
    """A number of JSON, which may be an integer beyond any float."""
    try:
        return float(stated)
    except OverflowError:
        return math.nan


def _size(point: TapPoint) -> int:
    return math.prod(point.shape)


def _inputs(call: dict[str, Any]) -> list[Any]:
    return [*(call.get("input_args") or ()), *(call.get("input_kwargs") or {}).values()]


def _first(values: Any) -> dict[str, Any] | None:
    """The first tensor of a record, at any depth: a module may return a tuple, or a record of several."""
    return next(iter(_tensors(values)), None)


def _tensors(values: Any) -> list[dict[str, Any]]:
    found, left = list[dict[str, Any]](), [values]
    while left:
        value = left.pop()
        if isinstance(value, dict) and SHAPE in value:
            found.append(value)
        elif isinstance(value, dict | list):
            left += reversed(value.values() if isinstance(value, dict) else value)
    return found


def _whole(parts: Sequence[Array], point: TapPoint | None, position_first: bool) -> Array:
    """The tensor of a global batch from those of the calls: the rows one after the other, or of a call that was made
    again for the backward pass, the first."""
    if point is None or not point.shape:
        return parts[0]
    parts = [_rows_first(part, point) if position_first else part for part in parts]
    rows = point.axes.index("row") if "row" in point.axes else 0
    alike = len({(*part.shape[:rows], *part.shape[rows + 1 :]) for part in parts}) == 1
    if not alike or any(part.ndim != len(point.shape) for part in parts) or parts[0].shape[rows] == point.shape[rows]:
        return parts[0]
    return np.concatenate(parts, axis=rows)


def _rows_first(part: Array, point: TapPoint) -> Array:
    """A tensor with the row before the position, which mindformers has the other way around, but for its embedding."""
    if part.ndim != len(point.shape) or point.axes[:2] != ("row", "position") or not point.inputs:
        return part
    return np.ascontiguousarray(part.swapaxes(0, 1)) if part.shape[0] == point.shape[1] else part


def _together(parts: Sequence[Statistics], point: TapPoint | None) -> Statistics:
    """The statistics of all calls together, or of a call that was made again, those of the first."""
    sizes = [math.prod(part.shape) for part in parts]
    if len(parts) == 1 or point is None or sizes[0] == _size(point) or not sum(sizes):
        return parts[0]
    return Statistics(
        shape=(sum(sizes),),
        largest=max(part.largest for part in parts),
        smallest=min(part.smallest for part in parts),
        mean=math.fsum(size * part.mean for size, part in zip(sizes, parts, strict=True)) / sum(sizes),
        norm=math.hypot(*(part.norm for part in parts)),
        rounding=parts[0].rounding,
    )


def statistics_of(tensor: Array) -> Statistics:
    """What msprobe states of a tensor, in float64."""
    wide = tensor.astype(np.float64)
    return Statistics(
        shape=tensor.shape,
        largest=float(wide.max()),
        smallest=float(wide.min()),
        mean=float(wide.mean()),
        norm=float(np.linalg.norm(wide)),
    )


def statistics_error(exact: Array, found: Statistics) -> float:
    """The largest error of the statistics of a tensor: of the extremes relative to the largest magnitude, of the mean
    to the root mean square, of the norm to itself. Another number of elements or a number that is not finite gives NaN.

    No such error of a tensor is larger than its relative difference, but for that of an extreme in a single element. So
    what the reference's difference allows for the tensor holds for its statistics. msprobe sums in float32: of mean and
    norm, an error that a sum of so many rounded numbers has, or their own rounding, is subtracted.
    """
    size = exact.size
    numbers = (found.largest, found.smallest, found.mean, found.norm)
    if math.prod(found.shape) != size or not all(map(math.isfinite, numbers)):
        return math.nan
    own = statistics_of(exact)
    top = max(abs(own.largest), abs(own.smallest))
    if top == 0.0:
        return 0.0 if not any(numbers) else math.inf
    rms, summed = own.norm / math.sqrt(size), max(found.rounding, HALF_ULP * math.sqrt(size))
    extremes = max(abs(found.largest - own.largest), abs(found.smallest - own.smallest)) / top
    sums = max(abs(found.mean - own.mean) / rms, abs(found.norm - own.norm) / own.norm)
    return max(extremes, sums - summed, 0.0)
