"""Weights in Hugging Face's layout: one safetensors file, or shards with an index, loaded strictly into a cell.

Names are Hugging Face's on both sides, so a difference is an error that lists missing, unexpected and misshapen keys.
"""

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from mindspore import Parameter, nn

Tensors = Mapping[str, npt.NDArray[Any]]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_DTYPES: Mapping[str, type[np.generic]] = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
_BYTES: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
LONGEST_HEADER = 100_000_000  # as the library of safetensors has it
_LFS = b"version https://git-lfs"
_POINTER = "a Git LFS pointer, not the file; run 'git lfs pull' there"
_SAVE = "load it with transformers and write it with save_pretrained"
_OTHER_WEIGHTS = {
    "adapter_model*": "an adapter and no model: merge it into its model (merge_and_unload of peft), and save that",
    "pytorch_model*.bin": f"no safetensors file: {_SAVE}",
    "*.safetensors": f"not the file of a whole model: rename it if it is one, or {_SAVE}",
    "*.ckpt": "a checkpoint of MindSpore: convert it with mindformers to Hugging Face's safetensors",
    "*.gguf": "in the format of llama.cpp, not safetensors: give the model that it was made from",
}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class WeightsError(ValueError):
    """Weights that do not fit; `problems` holds every reason, the message lists them all."""

    def __init__(self, where: str, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{len(problems)} problem(s) with the weights in {where}:", *problems]))


def load_safetensors(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a file, of an index's shards, or of a directory that holds either; bfloat16 widened to float32.

    Raises:
        WeightsError: nothing to read, a shard that differs from the index, a file that is cut or is a Git LFS pointer,
            or a dtype that is not floating point.
    """
    path = _weights_file(Path(path))
    return _load_index(path) if path.name.endswith(".json") else _load_file(path)


def check_safetensors(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in the files that `load_safetensors` would read, by their headers and sizes alone.

    Raises:
        WeightsError: a file is missing, is cut, is a Git LFS pointer, or is no safetensors file, or a dtype is not of
            weights.
    """
    path = _weights_file(Path(path))
    weight_map = _weight_map(path) if path.name.endswith(".json") else None
    names = [path.name] if weight_map is None else sorted(set(weight_map.values()))
    problems, shapes = list[str](), dict[str, tuple[int, ...]]()
    for file in (path.parent / name for name in names):
        if not file.is_file():
            problems.append(f"missing shard: {file.name}")
        elif damage := _damage(file):
            problems.append(f"{file.name}: {damage}")
        else:
            entries = _header(file)
            problems += _dtype_problems({name: entry["dtype"] for name, entry in entries.items()})
            problems += [] if weight_map is None else _index_problems(file.name, weight_map, entries.keys())
            shapes |= {name: tuple(entry["shape"]) for name, entry in entries.items()}
    if problems:
        raise WeightsError(str(path), problems)
    return shapes


def shape_problems(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Every tensor that is missing, is not expected, or has another shape, as a sentence."""
    return [
        *(f"missing: {name} {wanted[name]}" for name in sorted(wanted.keys() - found.keys())),
        *(f"unexpected: {name} {found[name]}" for name in sorted(found.keys() - wanted.keys())),
        *(
            f"misshapen: {name} is {found[name]}, expected {wanted[name]}"
            for name in sorted(wanted.keys() & found.keys())
            if found[name] != wanted[name]
        ),
    ]


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the text that Git LFS keeps in place of a large file."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def _weights_file(path: Path) -> Path:
    directory = path
    if path.is_dir():
        single, index = path / SINGLE_FILE, path / INDEX_FILE
        if single.is_file() and index.is_file():
            both = f"{SINGLE_FILE} and {INDEX_FILE} are both there, and may hold two models: remove one of them"
            raise WeightsError(str(path), [both])
        path = index if index.is_file() else single
    if not path.is_file():
        raise WeightsError(str(path), ["no such file" + _instead(directory)])
    return path


def _instead(directory: Path) -> str:
    """What a directory without safetensors of a model holds, and what to do; empty if it holds nothing known."""
    for pattern, what in _OTHER_WEIGHTS.items():
        if found := sorted(directory.glob(pattern)):
            return f"; {found[0].name} is {what}"
    return ""


def _weight_map(index: Path) -> dict[str, str]:
    if is_lfs_pointer(index):
        raise WeightsError(str(index), [_POINTER])
    try:
        found = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_each_once)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(str(index), ["no JSON object with a weight_map that states each name once"]) from None
    names = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise WeightsError(str(index), ["weight_map: expected names of files next to it, by names of tensors"])
    return found


def _damage(path: Path) -> str | None:
    """What is wrong with a safetensors file by its header and size; None for a whole one.

    Source: the format of safetensors: 8 bytes with the header's size, the header as JSON, the data.
    """
    if is_lfs_pointer(path):
        return _POINTER
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return f"cut, or no safetensors file: it has {size:,} bytes and no whole header"
        if length > LONGEST_HEADER:
            return f"no safetensors file: its header would have {length:,} bytes"
        try:
            entries = list(_header(path).values())
            whole = 8 + length + max((entry["data_offsets"][1] for entry in entries), default=0)
            if not all(isinstance(entry["dtype"], str) and _is_shape(entry["shape"]) for entry in entries):
                raise ValueError
            if not _follow_each_other(entries):
                return "no safetensors file: its tensors do not lie one after the other, each as long as its shape"
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            return "no safetensors file: its header cannot be read"
    if size != whole:
        return f"it has {size:,} of {whole:,} bytes: the download is not complete" if size < whole else "it is too long"
    return None


def _header(path: Path) -> dict[str, Any]:
    """What the header states of each tensor."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=_each_once)
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: it states a name twice, or one that is no text.
    """
    for name, _ in pairs:
        name.encode()
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is stated twice")
    return dict(pairs)


def _follow_each_other(entries: Iterable[Mapping[str, Any]]) -> bool:
    """Whether tensors fill the data without a gap or an overlap, and each has the bytes of its shape and dtype."""
    end = 0
    for entry in sorted(entries, key=lambda one: tuple(one["data_offsets"])):
        first, last = entry["data_offsets"]
        width = _BYTES.get(entry["dtype"])
        if not type(first) is type(last) is int or first != end or last < first:
            return False
        if width is not None and last - first != math.prod(entry["shape"]) * width:
            return False
        end = last
    return True


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _dtype_problems(dtypes: Mapping[str, str]) -> list[str]:
    known = {*_DTYPES, "BF16"}
    return [f"{name}: dtype {kind} is not supported for weights" for name, kind in dtypes.items() if kind not in known]


def save_safetensors(tensors: Tensors, directory: str | Path, max_shard_size: int | str = "5GB") -> list[Path]:
    """The files written: `model.safetensors`, or numbered shards and their index when one file would be too large.

    `max_shard_size` is in bytes or, as in Hugging Face, "200KB", "50MB", "5GB". A tensor is never split.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(tensors, _bytes(max_shard_size)))
    if len(shards) == 1:
        return [_save_file(shards[0], directory / SINGLE_FILE)]
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    files = [_save_file(shard, directory / name) for shard, name in zip(shards, names, strict=True)]
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {key: name for shard, name in zip(shards, names, strict=True) for key in shard},
    }
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return [*files, directory / INDEX_FILE]


def load_into(cell: "nn.Cell", tensors: Tensors) -> None:
    """Puts every tensor into the parameter of a cell that has its name; see `set_parameters`."""
    set_parameters(cell.get_parameters(), tensors, type(cell).__name__)


def set_parameters(parameters: Iterable["Parameter"], tensors: Tensors, where: str) -> None:
    """Puts every tensor into the parameter of its name, in the parameter's dtype.

    Raises:
        WeightsError: with all missing, unexpected and misshapen keys; no parameter is then changed.
    """
    from mindspore import Tensor

    named = {parameter.name: parameter for parameter in parameters}
    wanted = {name: tuple(parameter.shape) for name, parameter in named.items()}
    if problems := shape_problems(wanted, {name: tensor.shape for name, tensor in tensors.items()}):
        raise WeightsError(where, problems)
    for name, parameter in named.items():
        parameter.set_data(Tensor(np.ascontiguousarray(tensors[name])).astype(parameter.dtype))


def _load_index(path: Path) -> dict[str, npt.NDArray[Any]]:
    weight_map = _weight_map(path)
    tensors: dict[str, npt.NDArray[Any]] = {}
    problems = []
    for name in sorted(set(weight_map.values())):
        if not (path.parent / name).is_file():
            problems.append(f"missing shard: {name}")
            continue
        shard = _load_file(path.parent / name)
        problems += _index_problems(name, weight_map, shard.keys())
        tensors |= shard
    if problems:
        raise WeightsError(str(path), problems)
    return tensors


def _index_problems(file: str, weight_map: Mapping[str, str], held: Set[str]) -> list[str]:
    """Where a shard and its index disagree."""
    listed = {name for name, of in weight_map.items() if of == file}
    return [
        *(f"{file}: lacks {name}, which the index lists" for name in sorted(listed - held)),
        *(f"{file}: holds {name}, which the index does not list" for name in sorted(held - listed)),
    ]


def _load_file(path: Path) -> dict[str, npt.NDArray[Any]]:
    if damage := _damage(path):
        raise WeightsError(str(path), [damage])
    try:
        records = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise WeightsError(str(path), [str(error)]) from None
    if problems := _dtype_problems({key: record["dtype"] for key, record in records}):
        raise WeightsError(str(path), problems)
    return {key: _array(record).reshape(record["shape"]) for key, record in records}


def _array(record: Mapping[str, Any]) -> npt.NDArray[Any]:
    if record["dtype"] == "BF16":
        # A bfloat16 is the upper half of a float32; numpy has no such dtype.
        upper = np.frombuffer(record["data"], dtype=np.uint16).astype(np.uint32)
        return (upper << 16).view(np.float32)
    return np.frombuffer(record["data"], dtype=_DTYPES[record["dtype"]]).copy()


def _save_file(tensors: Tensors, path: Path) -> Path:
    # metadata: transformers refuses a file that does not name the framework whose layout it has.
    write_safetensors({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path, {"format": "pt"})
    return path


def write_safetensors(tensors: Tensors, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes tensors as one safetensors file.

    Raises:
        OSError: it cannot be written, also because the disk is full; the error names the file.
    """
    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:  # the library has no class of its own for what the system reports
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number) if code else str(error), str(path)) from None


def _shards(tensors: Tensors, limit: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The tensors in order; a new shard starts before the tensor that would exceed the limit."""
    shard: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if shard and sum(held.nbytes for held in shard.values()) + tensor.nbytes > limit:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _bytes(size: int | str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMG]?)B?", str(size))
    if match is None:
        raise ValueError(f"max_shard_size: expected bytes or a size such as 5GB, got {size!r}")
    return int(match[1]) * _UNITS[match[2]]
