"""What taps saw of a side, in the form of a dump of msprobe of level L0, which its tools read.

Places without a module of their own are the inputs of others, as in `dumped_modules`. Those that are neither are in no
dump of level L0, so they are omitted: the rotated query and key, the attention probabilities, and the loss.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.diagnosis.dumped_modules import PARTIAL, module_of
from harness.diagnosis.dumps import DUMP, TENSORS, statistics_of
from harness.runs.files import GRADIENT
from harness.runs.places import TABLES

Array = npt.NDArray[Any]
Framework = Literal["pytorch", "mindspore"]
Save = Callable[[Path, Array], None]
RANK = Path("step0") / "rank"
CONSTRUCT, STACK = "construct.json", "stack.json"
KINDS: Mapping[Framework, tuple[str, str, str, str]] = {
    "pytorch": ("Module", "torch.Tensor", "torch.float{}", "pt"),
    "mindspore": ("Cell", "mindspore.Tensor", "Float{}", "npy"),
}
CLASSES = (
    ("norm", "Qwen3RMSNorm"), ("embed_tokens", "Embedding"), ("rotary_emb", "Qwen3RotaryEmbedding"),
    ("self_attn", "Qwen3Attention"), ("mlp", "Qwen3MLP"), ("proj", "Linear"), ("lm_head", "Linear"),
)  # fmt: skip


def save_array(path: Path, tensor: Array) -> None:
    """As msprobe leaves a tensor of MindSpore."""
    np.save(path, tensor, allow_pickle=False)


def export(tensors: Mapping[str, Array], directory: Path, framework: Framework, save: Save) -> Path:
    """Writes the tensors of a tapped run below a directory, which must be new; returns the directory of the dump.

    Args:
        tensors: by the names of a tapped run.
        directory: for one side.
        framework: whose names and files.
        save: writes a tensor in the form of that framework.
    """
    place = directory / RANK
    (place / TENSORS).mkdir(parents=True)
    writer = _Writer(place, framework, save)
    for name, tensor in tensors.items():
        way, _, at = name.partition(".")
        if f"{way}." == GRADIENT:
            writer.parameter(at, tensor)
        elif way in ("forward", "backward") and "#" not in at:
            writer.place(way, at, tensor)
    content = {
        "task": "tensor",
        "level": "L0",
        "framework": framework,
        "dump_data_dir": str(place / TENSORS),
        "data": writer.data,
    }
    for file, value in ((DUMP, content), (CONSTRUCT, writer.parents()), (STACK, {})):
        (place / file).write_text(json.dumps(value, indent=1), encoding="utf-8")
    return place


class _Writer:
    def __init__(self, place: Path, framework: Framework, save: Save) -> None:
        self._place, self._save = place, save
        self._prefix, self._kind, self._dtype, self._suffix = KINDS[framework]
        self._modules: dict[str, str] = {}  # key of `forward` by module
        self.data: dict[str, Any] = {}

    def place(self, way: str, place: str, tensor: Array) -> None:
        """The value of a place, or the gradient of it."""
        found = module_of(place)
        if found is None or (way == "backward" and place.endswith(PARTIAL)):
            return
        module, taken = found
        if way == "forward":
            record = self._record(module, way, {"input_args": [], "input_kwargs": {}, "output": []})
            slot = "output" if taken == "output" else "input_args"
        else:
            record = self._record(module, way, {"input": [], "output": []})
            slot = "input" if taken == "output" else "output"
        values = [one[None] for one in tensor] if place == TABLES else [tensor]
        for number, value in enumerate(values):
            where = "input" if slot.startswith("input") else "output"
            record[slot].append(self._stated(f"{self._key(module, way)}.{where}.{number}", value))

    def parameter(self, name: str, tensor: Array) -> None:
        """The gradient of a parameter."""
        module, _, own = name.rpartition(".")
        key = self._key(module, "parameters_grad")
        self.data[key] = {own: [self._stated(f"{key}.{own}", tensor)]}

    def parents(self) -> dict[str, str | None]:
        """The module in which each lies."""
        return {key: self._parent(module) for module, key in self._modules.items()}

    def _parent(self, module: str) -> str | None:
        while module := module.rpartition(".")[0]:
            if module in self._modules:
                return self._modules[module]
        return None

    def _record(self, module: str, way: str, empty: dict[str, Any]) -> dict[str, Any]:
        key = self._key(module, way)
        if way == "forward":
            self._modules[module] = key
        record: dict[str, Any] = self.data.setdefault(key, empty)
        return record

    def _key(self, module: str, way: str) -> str:
        own = module.rpartition(".")[2]
        kind = next((name for end, name in CLASSES if own.endswith(end)), "Qwen3DecoderLayer")
        return f"{self._prefix}.{module}.{kind}.{way}.0"

    def _stated(self, name: str, tensor: Array) -> dict[str, Any]:
        file = f"{name}.{self._suffix}"
        self._save(self._place / TENSORS / file, np.ascontiguousarray(tensor))
        of_it = statistics_of(tensor)
        return {
            "type": self._kind,
            "dtype": self._dtype.format(8 * tensor.dtype.itemsize),
            "shape": list(tensor.shape),
            "Max": of_it.largest,
            "Min": of_it.smallest,
            "Mean": of_it.mean,
            "Norm": of_it.norm,
            "data_name": file,
        }
