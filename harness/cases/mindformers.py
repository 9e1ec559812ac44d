"""A training configuration of mindformers (its YAML) as the content of a case, field by field.

Takes what such a file holds; gives the content of a case and the fate of every field: into the case, the only value
that a case can stand for, or without effect on any number and why (`mindformers_fields.csv`, which also says what each
is called in Hugging Face and Megatron-LM). A key that is not in that table is refused, and so are fields that
contradict each other, all at once.

Source: mindformers 1.9.0: its configuration guide, `configs/qwen3/`, `trainer/base_trainer.py`.
"""

import csv
import difflib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from harness.base.errors import InputError

FIELDS = Path(__file__).parent / "mindformers_fields.csv"
LOADER = "BlendedMegatronDatasetDataLoader"
LR_ZERO_STEPS = 20
UNTIED = "untie_embeddings_and_output_weights"
SCHEDULES = {"ConstantWarmUpLR": "constant", "CosineWithWarmUpLR": "cosine"}
ACTIVATIONS = {"swiglu": "silu", "silu": "silu"}
DATA, CONFIG, MODEL = "train_dataset", "train_dataset.data_loader.config", "model.model_config"
Fate = Literal["case", "only", "idle", "read"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of mindformers: where it goes in a case, its other names, and its fate with what that is about."""

    mindformers: str
    case: str
    hugging_face: str
    megatron: str
    fate: Fate
    about: str


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a file says: the content of a case, each field with its value, and the memory that a device may use."""

    case: Mapping[str, Any]
    fields: tuple[tuple[Field, Any], ...]
    max_device_memory: str | None


@functools.cache
def known_fields() -> Mapping[str, Field]:
    """The table, by mindformers' dotted names."""
    with FIELDS.open(encoding="utf-8", newline="") as file:
        return {row["mindformers"]: _field(row) for row in csv.DictReader(file)}


def _field(row: Mapping[str, str]) -> Field:
    rule, words = row["rule"], row["rule"].partition(": " if row["rule"].startswith("idle") else " ")
    fate: Any = words[0] if rule else "case"
    names = {name: row[name] for name in ("mindformers", "case", "hugging_face", "megatron")}
    return Field(**names, fate=fate, about=words[2])


def is_configuration(content: Any) -> bool:
    """Whether a YAML's content is a configuration of mindformers and no case."""
    return isinstance(content, dict) and isinstance(content.get("model"), dict) and "model_config" in content["model"]


def read_configuration(content: Mapping[str, Any], name: str, origin: str) -> Configuration:
    """The case that a configuration describes.

    Raises:
        InputError: every unknown key, unsupported value and contradiction, one a line.
    """
    given = dict(_leaves(content, ""))
    reader = _Reader(given)
    case = reader.case(name)
    if reader.problems:
        count = len(reader.problems)
        lines = "\n".join(f"  {problem}" for problem in reader.problems)
        raise InputError(f"{origin} cannot be read as a case ({count} problem{'s' * (count > 1)}):\n{lines}")
    known = known_fields()
    return Configuration(
        case=case,
        fields=tuple((known[path], value) for path, value in given.items()),
        max_device_memory=given.get("context.max_device_memory"),
    )


def _leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of each field; what the table has as a whole is one field."""
    if not isinstance(content, Mapping) or path in known_fields():
        yield path, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


class _Reader:
    """Reads the fields, and keeps every problem for the end."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        self._given = given

    def case(self, name: str) -> dict[str, Any]:
        """The content of the case, as far as it can be read."""
        case: dict[str, Any] = {"name": name, "title": f"{name}, from mindformers' configuration"}
        for path, value in self._given.items():
            self._take(path, value, case)
        sections = (self._training, self._lr_schedule, self._data, self._model, self._parallel, self._precision)
        for section in sections:
            name = section.__name__.removeprefix("_")
            case[name] = {**case.get(name, {}), **section()}
        low = case["precision"].get("compute_dtype") == "bfloat16"
        case["standards"] = ["official", "strict-bf16" if low else "strict-fp32"]
        return case

    def _get(self, path: str, default: Any = None) -> Any:
        return self._given.get(path, default)

    def _refuse(self, path: str, why: str) -> None:
        problem = f"{path}: {why}"
        if problem not in self.problems:
            self.problems.append(problem)

    def _take(self, path: str, value: Any, case: dict[str, Any]) -> None:
        known = known_fields().get(path)
        if known is None:
            near = difflib.get_close_matches(path, known_fields(), n=1)
            self._refuse(path, f"unknown key; did you mean {near[0]!r}?" if near else "unknown key")
            return
        if known.fate == "only":
            allowed = yaml.safe_load(f"[{known.about}]")
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
                self._refuse(path, f"{value!r} is not supported, only {known.about}")
        if known.case and known.fate in ("case", "only"):
            section, _, name = known.case.partition(".")
            case.setdefault(section, {})[name] = value

    def _number(self, path: str, default: int = 1) -> int:
        value = self._get(path, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self._refuse(path, f"{value!r} is no whole number above 0")
            return default
        return value

    @functools.cached_property
    def _rows(self) -> int:
        """Rows of a step."""
        replicas, stages = (self._number(f"parallel_config.{name}") for name in ("data_parallel", "pipeline_stage"))
        accumulated = self._number("runner_config.gradient_accumulation_steps")
        if stages > 1 and accumulated > 1:
            why = "without effect where pipeline_stage is above 1; raise parallel_config.micro_batch_num"
            self._refuse("runner_config.gradient_accumulation_steps", why)
        parts = self._number("parallel_config.micro_batch_num") if stages > 1 else accumulated
        return self._number("runner_config.batch_size") * replicas * parts

    @functools.cached_property
    def _samples(self) -> int:
        path = f"{DATA}.data_loader.sizes"
        sizes = self._get(path)
        if not isinstance(sizes, list) or len(sizes) != 3 or not all(isinstance(size, int) for size in sizes):
            self._refuse(path, "three numbers of rows: training, test, evaluation")
            return 0
        if any(sizes[1:]):
            self._refuse(path, "a case has rows for training alone")
        return int(sizes[0])

    @functools.cached_property
    def _steps(self) -> int:
        epochs, asked = self._number("runner_config.epochs"), self._get("lr_schedule.total_steps", -1)
        steps = epochs * (self._samples // self._rows)
        if asked not in (-1, None, steps):
            self._refuse(
                "lr_schedule.total_steps",
                f"{asked}, but {epochs} x {self._samples} rows in steps of {self._rows} are {steps}; -1 takes those",
            )
        return steps

    def _training(self) -> dict[str, Any]:
        graph = {0: True, 1: False}.get(self._get("context.mode", 0))
        if graph is None:
            self._refuse("context.mode", f"{self._get('context.mode')!r} is neither 0 (GRAPH) nor 1 (PYNATIVE)")
        clips = self._get("runner_wrapper.use_clip_grad", False)
        return {
            "steps": self._steps,
            "lr_zero_steps": max(1, min(LR_ZERO_STEPS, self._steps)),
            "clip_grad": self._get("runner_wrapper.max_grad_norm", 1.0) if clips else None,
            "graph_mode": graph is not False,
        }

    def _lr_schedule(self) -> dict[str, Any]:
        kind = self._get("lr_schedule.type")
        if kind not in SCHEDULES:
            self._refuse("lr_schedule.type", f"{kind!r} is not supported, only {', '.join(SCHEDULES)}")
        ratio, warmup = self._get("lr_schedule.warmup_ratio"), self._get("lr_schedule.warmup_steps")
        if ratio and warmup:
            self._refuse("lr_schedule.warmup_ratio", "contradicts warmup_steps; give one of them")
        return {"type": SCHEDULES.get(kind, "constant"), "warmup_steps": warmup or int((ratio or 0) * self._steps)}

    def _data(self) -> dict[str, Any]:
        path = f"{DATA}.data_loader.type"
        if self._get(path) != LOADER:
            self._refuse(path, f"{self._get(path)!r} is not supported, only {LOADER}")
        task, dataset = self._get("train_dataset_task.dataset_config"), self._tree(DATA)
        if task is not None and task != dataset:
            self._refuse("train_dataset_task.dataset_config", f"is not what {DATA} says")
        return {
            "corpus": {"kind": "megatron", "data_path": self._get(f"{CONFIG}.data_path")},
            "order": "mindformers",
            "num_samples": self._samples,
            "global_batch_size": self._rows,
        }

    def _tree(self, path: str) -> dict[str, Any]:
        """What was said under a path, nested as it was."""
        whole: dict[str, Any] = {}
        for name, value in self._given.items():
            if name.startswith(f"{path}."):
                *parents, last = name.removeprefix(f"{path}.").split(".")
                functools.reduce(lambda tree, part: tree.setdefault(part, {}), parents, whole)[last] = value
        return whole

    def _model(self) -> dict[str, Any]:
        activation = self._get(f"{MODEL}.hidden_act", "swiglu")
        if activation not in ACTIVATIONS:
            self._refuse(f"{MODEL}.hidden_act", f"{activation!r} is not supported, only {', '.join(ACTIVATIONS)}")
        tied, untied = self._get(f"{MODEL}.tie_word_embeddings"), self._get(f"{MODEL}.{UNTIED}")
        if tied is not None and untied is not None and tied == untied:
            self._refuse(f"{MODEL}.tie_word_embeddings", f"{tied} contradicts {UNTIED} {untied}")
        length, of_data = self._get(f"{MODEL}.seq_length"), self._get(f"{CONFIG}.seq_length")
        if length is not None and length != of_data:
            self._refuse(f"{MODEL}.seq_length", f"{length} contradicts {CONFIG}.seq_length {of_data}")
        known = (
            {} if tied is None and untied is None else {"tie_word_embeddings": tied if untied is None else not untied}
        )
        return {"hidden_act": ACTIVATIONS.get(activation, activation), **known}

    def _parallel(self) -> dict[str, Any]:
        replicas = self._number("parallel_config.data_parallel")
        ranks = (
            replicas * self._number("parallel_config.model_parallel") * self._number("parallel_config.pipeline_stage")
        )
        if self._get("use_parallel", True) is False and ranks > 1:
            self._refuse("use_parallel", f"False contradicts the {ranks} ranks of parallel_config")
        if self._get("parallel.parallel_mode", 1) == 0 and ranks > replicas:
            self._refuse("parallel.parallel_mode", "0 shares rows alone; 1 is needed where a model is shared")
        dealt = self._get("parallel.dataset_strategy")
        if dealt and not self._get("parallel.full_batch", False) and dealt[0][0] != replicas:
            self._refuse("parallel.dataset_strategy", f"{dealt[0][0]} contradicts data_parallel {replicas}")
        offset = self._get(f"{MODEL}.offset", 0)
        return {"offset": offset if isinstance(offset, list) else []}

    def _precision(self) -> dict[str, Any]:
        wide = self._get(f"{MODEL}.fp32_residual_connection", True)
        return {"residual_dtype": "float32" if wide else self._get(f"{MODEL}.compute_dtype", "float32")}
