"""A training configuration of mindformers (its YAML) as the content of a case, field by field.

Takes the content of such a file; gives the content of a case and the handling of every field: copied into the case,
fixed to the only value that a case supports, or without effect on any number and why (`mindformers_fields.csv`, which
also has the names in Hugging Face and Megatron-LM). Keys that are not in that table, and fields that contradict each
other, are errors, reported all at once.

Source: mindformers 1.9.0: its configuration guide, `configs/qwen3/`, `trainer/base_trainer.py`.
"""

import csv
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.base.near_names import nearest
from harness.base.yaml_files import KeyPath, Problem, Written, parse_yaml, refusal

FIELDS = Path(__file__).parent / "mindformers_fields.csv"
LOADER = "BlendedMegatronDatasetDataLoader"
LR_ZERO_STEPS = 20
UNTIED = "untie_embeddings_and_output_weights"
GRAPH_MODES = {0: True, 1: False}
SCHEDULES = {"ConstantWarmUpLR": "constant", "CosineWithWarmUpLR": "cosine"}
ACTIVATIONS = {"swiglu": "silu", "silu": "silu"}
DATA, CONFIG, MODEL = "train_dataset", "train_dataset.data_loader.config", "model.model_config"
Fate = Literal["case", "only", "idle", "read"]
C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of mindformers: its place in a case, its other names, and how it is handled and why."""

    mindformers: str
    case: str
    hugging_face: str
    megatron: str
    fate: Fate
    about: str


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a file states: the content of a case, each field with its value, and the memory that a device may use.

    The lines of the case's content are those of the fields that it was made from.
    """

    case: Written
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


@functools.cache
def _allowed(about: str) -> list[Any]:
    """The values that the table lists, as YAML has them."""
    values: list[Any] = parse_yaml(f"[{about}]", str(FIELDS)).value
    return values


def is_configuration(content: Any) -> bool:
    """Whether a YAML's content is a configuration of mindformers and not a case."""
    return isinstance(content, dict) and isinstance(content.get("model"), dict) and "model_config" in content["model"]


def read_configuration(written: Written) -> Configuration:
    """The case that a configuration describes, named like its file.

    Raises:
        InputError: every unknown key, unsupported value and contradiction, with its line.
    """
    given = dict(_leaves(written.value, ""))
    reader = _Reader(given)
    case = reader.case(re.sub(r"[^a-z0-9._-]+", "-", Path(written.origin).stem.lower()).strip("._-") or "case")
    memory = reader.max_device_memory
    if reader.problems:
        raise refusal(written, "cannot be read as a case", list(reader.problems.values()))
    known = known_fields()
    fields = tuple((known[path], value) for path, value in given.items())
    return Configuration(
        case=Written(value=case, origin=written.origin, line_of=functools.partial(_line_of, written, fields)),
        fields=fields,
        max_device_memory=memory,
    )


def _line_of(written: Written, fields: tuple[tuple[Field, Any], ...], keys: KeyPath) -> int | None:
    """The line of the field that a value of the case was read from; the first one if several fields give it."""
    path = ".".join(map(str, keys))
    sources = (field.mindformers for field, _ in fields if field.case == path)
    return written.line_of(next(sources, "").split("."))


def _leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of each field; a mapping that is one entry of the table is one field."""
    if not isinstance(content, Mapping) or path in known_fields():
        yield path, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


class _Reader:
    """Reads the fields, and keeps every problem for the end."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.problems: dict[tuple[str, str], Problem] = {}  # each once, however often its field is read
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

    def _chosen(self, path: str, choices: Mapping[Any, C], default: Any = None, words: str = "") -> C:
        """The meaning of a field's value, one of some choices; if it is none, a problem and the first choice."""
        value = self._get(path, default)
        for one, choice in choices.items():
            if value == one and isinstance(value, bool) == isinstance(one, bool):
                return choice
        self._refuse(path, f"{value!r} is not supported, only {words or ', '.join(map(str, choices))}")
        return next(iter(choices.values()))

    def _flag(self, path: str, default: bool) -> bool:
        return self._chosen(path, {True: True, False: False}, default, "true, false")

    def _refuse(self, path: str, why: str) -> None:
        self.problems[path, why] = Problem(keys=tuple(path.split(".")), message=why)

    def _take(self, path: str, value: Any, case: dict[str, Any]) -> None:
        known = known_fields().get(path)
        if known is None:
            near = nearest(path, known_fields())
            self._refuse(path, f"unknown key; did you mean {near!r}?" if near else "unknown key")
            return
        if known.fate == "only":
            self._chosen(path, dict.fromkeys(_allowed(known.about)), words=known.about)
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
            self._refuse(path, "a case has rows only for training")
        return int(sizes[0])

    @functools.cached_property
    def _steps(self) -> int:
        epochs, stated = self._number("runner_config.epochs"), self._get("lr_schedule.total_steps", -1)
        steps = epochs * (self._samples // self._rows)
        if stated not in (-1, None, steps):
            self._refuse(
                "lr_schedule.total_steps",
                f"{stated}, but {epochs} x {self._samples} rows in steps of {self._rows} are {steps}; -1 takes those",
            )
        return steps

    def _training(self) -> dict[str, Any]:
        clips = self._flag("runner_wrapper.use_clip_grad", False)
        return {
            "steps": self._steps,
            "lr_zero_steps": max(1, min(LR_ZERO_STEPS, self._steps)),
            "clip_grad": self._get("runner_wrapper.max_grad_norm", 1.0) if clips else None,
            "graph_mode": self._chosen("context.mode", GRAPH_MODES, 0, "0 (GRAPH), 1 (PYNATIVE)"),
        }

    def _lr_schedule(self) -> dict[str, Any]:
        path = "lr_schedule.warmup_ratio"
        ratio, warmup = self._get(path) or 0, self._get("lr_schedule.warmup_steps")
        if ratio and warmup:
            self._refuse(path, "contradicts warmup_steps; give one of them")
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
            self._refuse(path, f"{ratio!r} is no number from 0 to 1")
            ratio = 0
        kind = self._chosen("lr_schedule.type", SCHEDULES)
        return {"type": kind, "warmup_steps": warmup or int(ratio * self._steps)}

    def _data(self) -> dict[str, Any]:
        path = f"{DATA}.data_loader.type"
        if self._get(path) != LOADER:
            self._refuse(path, f"{self._get(path)!r} is not supported, only {LOADER}")
        task, dataset = self._get("train_dataset_task.dataset_config"), self._tree(DATA)
        if task is not None and task != dataset:
            self._refuse("train_dataset_task.dataset_config", f"contradicts {DATA}")
        return {
            "corpus": {"kind": "megatron", "data_path": self._get(f"{CONFIG}.data_path")},
            "order": "mindformers",
            "num_samples": self._samples,
            "global_batch_size": self._rows,
        }

    def _tree(self, path: str) -> dict[str, Any]:
        """The fields under a path, nested as in the file."""
        whole: dict[str, Any] = {}
        for name, value in self._given.items():
            if name.startswith(f"{path}."):
                *parents, last = name.removeprefix(f"{path}.").split(".")
                functools.reduce(lambda tree, part: tree.setdefault(part, {}), parents, whole)[last] = value
        return whole

    def _model(self) -> dict[str, Any]:
        tied, untied = self._get(f"{MODEL}.tie_word_embeddings"), self._get(f"{MODEL}.{UNTIED}")
        if tied is not None and untied is not None and tied == untied:
            self._refuse(f"{MODEL}.tie_word_embeddings", f"{tied} contradicts {UNTIED} {untied}")
        length, of_data = self._get(f"{MODEL}.seq_length"), self._get(f"{CONFIG}.seq_length")
        if length is not None and length != of_data:
            self._refuse(f"{MODEL}.seq_length", f"{length} contradicts {CONFIG}.seq_length {of_data}")
        known = {} if tied is None else {"tie_word_embeddings": tied}
        if untied is not None:
            known = {"tie_word_embeddings": not self._flag(f"{MODEL}.{UNTIED}", True)}
        return {"hidden_act": self._chosen(f"{MODEL}.hidden_act", ACTIVATIONS, "swiglu"), **known}

    def _parallel(self) -> dict[str, Any]:
        replicas = self._number("parallel_config.data_parallel")
        ranks = (
            replicas * self._number("parallel_config.model_parallel") * self._number("parallel_config.pipeline_stage")
        )
        if not self._flag("use_parallel", True) and ranks > 1:
            self._refuse("use_parallel", f"False contradicts the {ranks} ranks of parallel_config")
        if self._get("parallel.parallel_mode", 1) == 0 and ranks > replicas:
            self._refuse("parallel.parallel_mode", "0 splits only the batch; 1 is needed to split a model")
        self._check_strategy(replicas)
        offset = self._get(f"{MODEL}.offset", 0)
        if not isinstance(offset, list) and offset != 0:
            self._refuse(f"{MODEL}.offset", f"{offset!r} is neither 0 nor a list with one number for each stage")
        return {"offset": offset if isinstance(offset, list) else []}

    def _check_strategy(self, replicas: int) -> None:
        path = "parallel.dataset_strategy"
        strategy = self._get(path)
        if not strategy or self._flag("parallel.full_batch", False):
            return
        if not isinstance(strategy, list) or not isinstance(strategy[0], list) or not strategy[0]:
            self._refuse(path, "expected a list of lists, such as [[1, 1], [1, 1]]")
        elif strategy[0][0] != replicas:
            self._refuse(path, f"{strategy[0][0]} contradicts data_parallel {replicas}")

    @functools.cached_property
    def max_device_memory(self) -> str | None:
        """The memory that a device may use, such as `58GB`."""
        value = self._get("context.max_device_memory")
        if value is None or isinstance(value, str):
            return value
        self._refuse("context.max_device_memory", f"{value!r} is no amount of memory; write it as 58GB")
        return None

    def _precision(self) -> dict[str, Any]:
        wide = self._flag(f"{MODEL}.fp32_residual_connection", True)
        return {"residual_dtype": "float32" if wide else self._get(f"{MODEL}.compute_dtype", "float32")}
