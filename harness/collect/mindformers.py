"""A callback for mindformers' Trainer in GRAPH mode, registered by two lines of YAML:

    callbacks:
      - type: CertifyCollector
        directory: collected/run

mindformers finds it once this module is imported: `certify launch FILE.yaml --trainer mindformers` does that, and so
does one line at the top of `run_mindformer.py`: `import harness.collect.mindformers`.

`CertifyRows` is a data loader of the rows of a case, in its order, from the file of `certify data batches`, for a case
whose data are not Megatron's:

    data_loader: {type: CertifyRows, dataset_dir: batches.safetensors}

`CertifyCosine` is mindformers' cosine schedule in float64: see `harness.collect.mindformers_schedule`.

What versions name differently is in `VERSIONS`. Where the data sinks to the device, as on Ascend by default, no batch
passes the callback, and batches are not collected: set `runner_config.sink_mode: False` to collect them.
"""

import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindformers
import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindformers.dataset.base_dataset import BaseDataset
from mindformers.dataset.dataloader.blended_megatron_dataloader import is_dataset_built_on_rank
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindspore.communication import get_group_size, get_rank
from mindspore.dataset import GeneratorDataset
from mindspore.train.callback import Callback

from harness.base.errors import InputError
from harness.collect.collector import Collector, harmless
from harness.collect.files import mapped_tensors
from harness.collect.layouts import HeldPart, UnknownPart, held_parts
from harness.collect.mindformers_schedule import CertifyCosine
from harness.collect.mindspore_model import as_array, number
from harness.runs.alignment import MODEL_FIELDS, alignment
from harness.runs.collected import BATCHES, GRAD_NORM
from harness.runs.mindformers_model import FusedRows, as_asked, built_config, fused_rows
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.parallel_config import Part
from qwen3_model.sizes import PUBLISHED

__all__ = ["CertifyCollector", "CertifyCosine", "CertifyRows"]

NAME = "mindformers"
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the collector reads of a version: the places of its numbers in what a step returns, by how many it returns;
    the places of its data's columns; and the method that gives the model of the training graph.

    Source: mindformers 1.6.0, 1.7.0, 1.8.0, 1.9.0 and 2.1.0: wrapper/wrapper.py, models/qwen3/ and
    dataset/causal_language_model_dataset.py.
    """

    loss: int = 0
    overflow: int = 1
    learning_rate: int = 3
    grad_norm: int = 4
    outputs: tuple[int, ...] = (5, 7)
    columns: tuple[int, int, int] = (0, 1, 2)
    gpt: str | None = "get_gpt_model"


# By the beginning of a version. 1.6 trains Qwen3 by another graph, whose weights are not converted back here.
VERSIONS: Mapping[str, Names] = {
    "1.6": Names(gpt=None),
    "1.7": Names(),
    "1.8": Names(),
    "1.9": Names(),
    "2.": Names(),
}


def names_of(version: str) -> Names:
    """Those of a version; of an unknown one those of the newest that was tried."""
    return next((names for begin, names in VERSIONS.items() if version.startswith(begin)), VERSIONS["1.9"])


@MindFormerRegister.register(MindFormerModuleType.CALLBACK)
class CertifyCollector(Callback):
    """Collects one run of mindformers' Trainer; see `harness.collect.collector.Collector`.

    Args:
        directory: Where the run is collected; also `CERTIFY_COLLECT`.
        arm: `train`, or `lr_zero` for a run whose learning rate is 0 in every step.
    """

    def __init__(self, directory: str | None = None, arm: str = "train", **_: Any) -> None:
        super().__init__()
        self.directory = Path(directory or os.environ.get("CERTIFY_COLLECT") or "collected/run")
        self._arm, self._names = arm, names_of(mindformers.__version__)
        self.collector: Collector | None = None
        self._model: Any = None
        self._places: Mapping[str, FusedRows] = {}
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self._held: Sequence[HeldPart] | None = None
        self._norm_is_given = True
        self._share = ShareOfRank()

    def on_train_begin(self, run_context: Any) -> None:
        """Finds the model below the cell of a step, and begins."""
        about = run_context.original_args()
        steps = about.batch_num * about.epoch_num
        after = int(about.get("cur_step_num", 0) or 0) + int(about.get("initial_step", 0) or 0)
        rank, ranks = _rank_and_ranks()
        self._share = _share() if ranks > 1 else ShareOfRank()
        self._model, self._step = _model_of(about.train_network), about.train_network
        optimizer = about.optimizer or getattr(self._step, "optimizer", None)
        self._norm_is_given = bool(getattr(self._step, "use_clip_grad", True))
        sinks = bool(about.dataset_sink_mode)
        left = [*([BATCHES] if sinks else []), *([] if self._norm_is_given else [GRAD_NORM])]
        try:
            stated = self._alignment(optimizer)
        except Exception:  # another version may build them otherwise: then they are not collected
            traceback.print_exc()
            stated, self._places = {}, {}
        self.collector = Collector(
            self.directory,
            steps=steps,
            trainer=NAME,
            arm=self._arm,
            rank=rank,
            ranks=ranks,
            reporting=ranks - 1,  # of the last stage: it has the true loss
        )
        device = str(ms.get_context("device_target"))
        self._held = self._held_by_rank(rank) if ranks > 1 else None
        self.collector.begin(
            self._weights() if ranks == 1 else None,
            parts=self._parts(),
            alignment=stated,
            provenance={
                "mindformers": mindformers.__version__,
                "mindspore": ms.__version__,
                "device": device,
                "mode": "GRAPH" if ms.get_context("mode") == ms.GRAPH_MODE else "PYNATIVE",
                "replaced": list(getattr(mindformers, "certify_replaced", ())),
            },
            omitted=left,
            after=after,
            device=device,
        )

    @harmless
    def on_train_step_end(self, run_context: Any) -> None:
        """One step: what it read, and what it returned."""
        about = run_context.original_args()
        assert self.collector is not None
        outputs = about.net_outputs
        if not isinstance(outputs, tuple | list) or len(outputs) not in self._names.outputs:
            outputs = (outputs, None, None, None, None)
        element = about.get("train_dataset_element")
        if element is not None and not about.dataset_sink_mode and self._share.reads:
            tokens, mask = _batch(element, self._names)
            self.collector.micro_batch(tokens, mask, self._share.places(len(tokens)))
        rate = number(outputs[self._names.learning_rate])
        self.collector.step(
            loss=float(np.mean(as_array(outputs[self._names.loss]))),
            grad_norm=number(outputs[self._names.grad_norm]) if self._norm_is_given else None,
            learning_rate=float("nan") if rate is None else rate,
        )

    @harmless
    def on_train_end(self, run_context: Any) -> None:
        """The run is finished."""
        assert self.collector is not None
        self.collector.end(self._weights() if self.collector.ranks == 1 else None, parts=self._parts())

    def _weights(self) -> Iterator[tuple[str, Array]]:
        """By Hugging Face name; none where the version has no conversion."""
        if not self._places:
            return
        fused = {one.name: as_array(one) for one in self._model.trainable_params()}
        for name, place in self._places.items():
            yield name, fused[place.parameter][place.rows]

    def _parts(self) -> Iterator[tuple[str, Part, Array]] | None:
        """What this rank holds, by Hugging Face name, one parameter at a time; None where it is not known."""
        if self._held is None:
            return None
        parameters = {one.name: one for one in self._model.trainable_params()}
        return _read(self._held, parameters)

    def _held_by_rank(self, rank: int) -> Sequence[HeldPart] | None:
        """Which parts of the weights this rank holds; None, with the reason printed, where that is not certain."""
        try:
            return _held_parts(self._places, self._shapes, self._step, self._model.trainable_params(), rank)
        except Exception as error:  # another version may state its layouts otherwise: then weights are not collected
            print(f"Rank {rank} states no weights: {error or type(error).__name__}.", file=sys.stderr)
            return None

    def _alignment(self, optimizer: Any) -> dict[str, Any]:
        """As built; nothing where the version has no conversion. Over several ranks a cell is built whole on each: what
        divides it is the graph."""
        if self._names.gpt is None or not hasattr(self._model, self._names.gpt):
            return {}
        config = built_config(getattr(self._model, self._names.gpt)())
        any_size = next(iter(PUBLISHED.values())).to_hf()  # for the fields that shape no parameter
        qwen3 = Qwen3Config.from_hf({**any_size, **{name: config[name] for name in MODEL_FIELDS}})
        shapes = dict(parameter_shapes(qwen3))
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._places = dict(fused_rows(self._model, {name: np.empty((shape[0], 0)) for name, shape in shapes.items()}))
        decays = _decays(optimizer)
        step = self._step
        clips = bool(getattr(step, "use_clip_grad", False))
        return alignment(
            model=config,
            shapes=self._shapes,
            optimizer={
                "beta1": _short(optimizer.beta1),
                "beta2": _short(optimizer.beta2),
                "eps": _short(optimizer.eps),
                "weight_decay": _short(max(decays.values(), default=0.0)),
            },
            decayed=frozenset(name for name, place in self._places.items() if decays.get(place.parameter, 0.0) > 0),
            clip_grad=_short(step.clip_grad_norm.clip_norm) if clips else None,
            gradient_accumulation_steps=_accumulated(step),
        )


@MindFormerRegister.register(MindFormerModuleType.DATASET_LOADER)
class CertifyRows:
    """The rows of a case in its order: a data set with the columns that are asked for.

    Args:
        dataset_dir: The file that `certify data batches` wrote.
        column_names: Of `COLUMNS`.
        num_shards: How many replicas share the rows of a step; None: one.
        shard_id: The number of this one.
    """

    def __new__(
        cls,
        dataset_dir: str,
        column_names: Sequence[str],
        num_shards: int | None = None,
        shard_id: int | None = None,
        **_: Any,
    ) -> Any:
        rows = _RowsOfACase(Path(dataset_dir), column_names, num_shards or 1, shard_id or 0)
        return GeneratorDataset(rows, list(column_names), shuffle=False, num_parallel_workers=1)


# What a column holds of tokens [S+1] and loss mask [S], in mindformers' dtypes.
COLUMNS: Mapping[str, Callable[[Array, Array], Array]] = {
    "input_ids": lambda tokens, mask: np.array(tokens[:-1], np.int32),
    "labels": lambda tokens, mask: np.array(tokens[1:], np.int32),
    "loss_mask": lambda tokens, mask: np.array(mask, np.float32),
    "position_ids": lambda tokens, mask: np.arange(len(mask), dtype=np.int32),
}


class _RowsOfACase:
    def __init__(self, path: Path, columns: Sequence[str], replicas: int, replica: int) -> None:
        if unknown := sorted(set(columns) - set(COLUMNS)):
            raise InputError(f"CertifyRows has the columns {', '.join(COLUMNS)}, and not {', '.join(unknown)}.")
        found = mapped_tensors(path)
        if not {"tokens", "loss_mask"} <= set(found):
            raise InputError(f"{path} holds no tokens and loss masks. Write it: certify data batches")
        self._tokens, self._mask = (found[name][:, replica::replicas] for name in ("tokens", "loss_mask"))
        self._columns = [COLUMNS[name] for name in columns]

    def __len__(self) -> int:
        return int(self._tokens.shape[0] * self._tokens.shape[1])

    def __getitem__(self, index: int) -> tuple[Array, ...]:
        place = divmod(int(index), self._tokens.shape[1])
        return tuple(column(self._tokens[place], self._mask[place]) for column in self._columns)


def _short(built: Any) -> float:
    """The shortest decimal number of which float32 makes what was built."""
    value = number(built)
    assert value is not None
    return as_asked(value, float(str(np.float32(value))))


def _decays(optimizer: Any) -> dict[str, float]:
    rates = optimizer.weight_decay
    every = rates if isinstance(rates, tuple | list) else [rates] * len(optimizer.parameters)
    return {one.name: float(number(rate) or 0.0) for one, rate in zip(optimizer.parameters, every, strict=True)}


def _accumulated(step: Any) -> int:
    """How many micro batches are accumulated; those of a pipeline are of the layout."""
    if ms.get_auto_parallel_context("pipeline_stages") > 1:
        return 1
    return int(getattr(step, "micro_size", 1) or 1)


def _held_parts(
    places: Mapping[str, FusedRows],
    shapes: Mapping[str, Sequence[int]],
    step: Any,
    parameters: Sequence[Any],
    rank: int,
) -> list[HeldPart]:
    """Which parts of the weights are on a rank, by the layouts of the compiled graph, or by data parallelism alone.

    Raises:
        UnknownPart: that is not certain, or the parameters are not there yet.
    """
    if not places:
        raise UnknownPart("this version has no conversion of its weights")
    alone = not ms.get_auto_parallel_context("enable_parallel_optimizer")
    if alone and str(ms.get_auto_parallel_context("parallel_mode")) == "data_parallel":
        layouts = {one.name: _whole(one) for one in parameters}
    else:
        layouts = dict(step.parameter_layout_dict)
    if not layouts:
        raise UnknownPart("its graph states no layouts; a checkpoint that is loaded compiles it before the first step")
    # a stage that uses the embedding of another one has a copy of it, which MindSpore does not save either
    shared = {one.name for one in parameters if one.param_info.is_pipeline_shared_param}
    own = {name: layout for name, layout in layouts.items() if name not in shared}
    held = list(held_parts(places, shapes, own, rank, lambda group: (get_rank(group), get_group_size(group))))
    by_name = {one.name: one for one in parameters}
    for one in held:
        parameter = by_name[one.parameter]
        if parameter.has_init or tuple(parameter.shape) != one.shape:
            raise UnknownPart(f"{one.parameter} is not there yet, or has the shape {list(parameter.shape)}")
    return held


def _whole(parameter: Any) -> tuple[Any, ...]:
    """The layout of a parameter that every rank holds whole."""
    shape = list(parameter.shape)
    return [1], [-1] * len(shape), shape, 0, True, "", shape


def _read(held: Sequence[HeldPart], parameters: Mapping[str, Any]) -> Iterator[tuple[str, Part, Array]]:
    """The parts, of which those in one parameter follow each other: one parameter is held at a time."""
    for name, those in itertools.groupby(held, key=lambda one: one.parameter):
        local = as_array(parameters[name])
        for one in those:
            if local.shape != one.shape:
                raise ValueError(f"{name} has the shape {local.shape}, and had {one.shape} at the beginning")
            yield one.name, one.part, local[one.rows]


def _model_of(cell: Any) -> Any:
    """The outermost cell below the cell of a step that converts weights; the cell itself where there is none."""
    for _, one in cell.cells_and_names():
        if hasattr(one, "convert_weight_dict"):
            return one
    return cell


def _batch(element: Any, names: Names) -> tuple[Array, Array]:
    """Tokens [B, S+1] and loss mask [B, S] of the columns `input_ids`, `labels` and `loss_mask`."""
    inputs, labels, mask = (as_array(element[place]) for place in names.columns)
    return np.concatenate([inputs, labels[:, -1:]], axis=1), mask


@dataclass(frozen=True, kw_only=True)
class ShareOfRank:
    """Which rows of the global batch a rank reads: those of one replica of several, in turn. `reads`: whether it is
    given them; of ranks that share rows, mindformers may give them to one alone, and something else to the others."""

    replica: int = 0
    replicas: int = 1
    reads: bool = True

    def places(self, rows: int) -> list[int]:
        """The numbers in the global batch of the rows that this rank read, in order."""
        return [self.replica + self.replicas * row for row in range(rows)]


def _share() -> ShareOfRank:
    """As mindformers shares the rows of its data sets. MindSpore gives every nth row of a data set to a shard."""
    replica, replicas = BaseDataset._generate_shard_info()
    if replicas is None:  # every rank reads the whole batch
        return ShareOfRank(reads=not _rank_and_ranks()[0])
    return ShareOfRank(replica=replica, replicas=replicas, reads=is_dataset_built_on_rank())


def _rank_and_ranks() -> tuple[int, int]:
    return int(os.environ.get("RANK_ID", 0)), max(
        1, int(os.environ.get("RANK_SIZE", os.environ.get("MS_WORKER_NUM", 1)))
    )
