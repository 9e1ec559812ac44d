"""A callback for mindformers' Trainer in GRAPH mode, registered by two lines of YAML:

    callbacks:
      - type: CertifyCollector
        directory: collected/run

mindformers finds it once this module is imported: `certify launch FILE.yaml --trainer mindformers` does that, and so
does one line at the top of `run_mindformer.py`: `import harness.collect.mindformers`.

What versions name differently is in `VERSIONS`. Where the data sinks to the device, as on Ascend by default, no batch
passes the callback, and batches are not collected: set `runner_config.sink_mode: False` to collect them.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mindformers
import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindspore.train.callback import Callback

from harness.collect.collector import Collector
from harness.collect.mindspore_model import as_array, number
from harness.runs.alignment import MODEL_FIELDS, alignment
from harness.runs.collected import BATCHES, GRAD_NORM
from harness.runs.mindformers_model import as_asked, built_config, fused_rows
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.sizes import PUBLISHED

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
        self._directory = directory or os.environ.get("CERTIFY_COLLECT") or "collected/run"
        self._arm, self._names = arm, names_of(mindformers.__version__)
        self._collector: Collector | None = None
        self._model: Any = None
        self._places: Mapping[str, Any] = {}
        self._norm_is_given = True

    def on_train_begin(self, run_context: Any) -> None:
        """Finds the model below the cell of a step, and begins."""
        about = run_context.original_args()
        steps = about.batch_num * about.epoch_num
        after = int(about.get("cur_step_num", 0) or 0) + int(about.get("initial_step", 0) or 0)
        rank, ranks = _rank_and_ranks()
        self._model, self._step = _model_of(about.train_network), about.train_network
        optimizer = about.optimizer or getattr(self._step, "optimizer", None)
        self._norm_is_given = bool(getattr(self._step, "use_clip_grad", True))
        sinks = bool(about.dataset_sink_mode)
        left = [*([BATCHES] if sinks else []), *([] if self._norm_is_given else [GRAD_NORM])]
        stated = self._alignment(optimizer)
        self._collector = Collector(
            self._directory,
            steps=steps,
            trainer=NAME,
            arm=self._arm,
            rank=rank,
            ranks=ranks,
            reporting=ranks - 1,  # of the last stage: it has the true loss
        )
        device = str(ms.get_context("device_target"))
        self._collector.begin(
            self._weights(),
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

    def on_train_step_end(self, run_context: Any) -> None:
        """One step: what it read, and what it returned."""
        about = run_context.original_args()
        if self._collector is None:
            return
        outputs = about.net_outputs
        if not isinstance(outputs, tuple | list) or len(outputs) not in self._names.outputs:
            outputs = (outputs, None, None, None, None)
        element = about.get("train_dataset_element")
        if element is not None and not about.dataset_sink_mode:
            self._collector.micro_batch(*_batch(element, self._names))
        rate = number(outputs[self._names.learning_rate])
        self._collector.step(
            loss=float(np.mean(as_array(outputs[self._names.loss]))),
            grad_norm=number(outputs[self._names.grad_norm]) if self._norm_is_given else None,
            learning_rate=float("nan") if rate is None else rate,
        )

    def on_train_end(self, run_context: Any) -> None:
        """The run is finished."""
        if self._collector is not None:
            self._collector.end(self._weights())

    def _weights(self) -> Iterator[tuple[str, Array]]:
        """By Hugging Face name; none where this rank does not hold all of them, or the version has no conversion."""
        if not self._places:
            return
        fused = {one.name: as_array(one) for one in self._model.trainable_params()}
        for name, place in self._places.items():
            yield name, fused[place.parameter][place.rows]

    def _alignment(self, optimizer: Any) -> dict[str, Any]:
        """As built, where the whole model is on this rank; nothing elsewhere."""
        if self._names.gpt is None or not hasattr(self._model, self._names.gpt) or _rank_and_ranks()[1] > 1:
            return {}
        config = built_config(getattr(self._model, self._names.gpt)())
        any_size = next(iter(PUBLISHED.values())).to_hf()  # for the fields that shape no parameter
        qwen3 = Qwen3Config.from_hf({**any_size, **{name: config[name] for name in MODEL_FIELDS}})
        shapes = dict(parameter_shapes(qwen3))
        self._places = dict(fused_rows(self._model, {name: np.empty((shape[0], 0)) for name, shape in shapes.items()}))
        decays = _decays(optimizer)
        step = self._step
        clips = bool(getattr(step, "use_clip_grad", False))
        return alignment(
            model=config,
            shapes={name: tuple(shape) for name, shape in shapes.items()},
            optimizer={
                "beta1": _short(optimizer.beta1),
                "beta2": _short(optimizer.beta2),
                "eps": _short(optimizer.eps),
                "weight_decay": _short(max(decays.values(), default=0.0)),
            },
            decayed=frozenset(name for name, place in self._places.items() if decays.get(place.parameter, 0.0) > 0),
            clip_grad=_short(step.clip_grad_norm.clip_norm) if clips else None,
            gradient_accumulation_steps=int(getattr(step, "micro_batch_num", 1) or 1),
        )


def _short(built: Any) -> float:
    """The shortest decimal number of which float32 makes what was built."""
    value = number(built)
    assert value is not None
    return as_asked(value, float(str(np.float32(value))))


def _decays(optimizer: Any) -> dict[str, float]:
    rates = optimizer.weight_decay
    every = rates if isinstance(rates, tuple | list) else [rates] * len(optimizer.parameters)
    return {one.name: float(number(rate) or 0.0) for one, rate in zip(optimizer.parameters, every, strict=True)}


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


def _rank_and_ranks() -> tuple[int, int]:
    return int(os.environ.get("RANK_ID", 0)), max(
        1, int(os.environ.get("RANK_SIZE", os.environ.get("MS_WORKER_NUM", 1)))
    )
