"""A training configuration of mindformers (its YAML) as the content of a case, field by field.

Takes the content of such a file; gives the content of a case and the handling of every field: copied into the case,
fixed to the only value that a case supports, or without effect on any number and why (`mindformers_fields.csv`, which
also has the names in Hugging Face and Megatron-LM). A field that is not given has the value that mindformers takes, or
must be given. Keys that are not in that table, and fields that contradict each other, are errors, reported all at once.

Source: mindformers 1.9.0: its configuration guide, `configs/qwen3/`, `trainer/base_trainer.py`; defaults
`tools/register/template.py`, `parallel_core/transformer_config.py`, `models/qwen3/configuration_qwen3.py`,
`core/optim/adamw.py`, `core/lr/lr_schedule.py`, `wrapper/wrapper.py`.
"""

import csv
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.base.errors import InputError
from harness.base.near_names import nearest
from harness.base.written import KeyPath, Problem, Written, refusal
from qwen3_model.configuration_qwen3 import Qwen3Config, Qwen3ConfigError

FIELDS = Path(__file__).parent / "mindformers_fields.csv"
DEFAULTS_OF = "mindformers 1.9.0"
REQUIRED = "required"
LOADER = "BlendedMegatronDatasetDataLoader"
LR_ZERO_STEPS = 20
UNTIED = "untie_embeddings_and_output_weights"
GRAPH_MODES = {0: True, 1: False}
# also by the second names under which mindformers registers them
SCHEDULES = {
    "ConstantWarmUpLR": "constant",
    "CosineWithWarmUpLR": "cosine",
    "constant_with_warmup": "constant",
    "cosine": "cosine",
}
ACTIVATIONS = {"swiglu": "silu", "silu": "silu"}
DATA, CONFIG, MODEL = "train_dataset", "train_dataset.data_loader.config", "model.model_config"
MODE = "run_mode"
SPEED_UP = "parallel_speed_up_json_path"
CLIPS = "runner_wrapper.use_clip_grad"
NARROW, WIDE = f"{MODEL}.residual_dtype", f"{MODEL}.fp32_residual_connection"
# Sections that a case does not have. Those of the second line are of mindformers 2.x alone.
SECTIONS = {"runner_config", "trainer", "runner_wrapper", "parallel_config", "train_dataset", "run_mode", "use_legacy"}
SECTIONS_OF_2 = {"training_args", "distribute_parallel_config", "checkpoint_config"}
EXPONENT = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d+")  # a number to everyone but YAML 1.1, which wants 1.0e-2
EXPERTS = r"moe_|num_experts|n_routed_experts|expert_num"  # keys of a model that is not dense
Fate = Literal["case", "only", "idle", "read"]
C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of mindformers: its place in a case, its other names, and how it is handled and why.

    `default` is what mindformers takes if the field is not given; None if that is not a fixed value. A `required`
    field must be given: mindformers has no default for it, or one of another model.
    """

    mindformers: str
    case: str
    hugging_face: str
    megatron: str
    fate: Fate
    about: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a file states: the content of a case, each field with its value, and the memory that a device may use.

    The lines of the case's content are those of the fields that it was made from.

    Attributes:
        case: The content of the case.
        fields: The given fields and their values.
        defaults: Where a field that shapes the case is not given: its dotted name and mindformers' default.
        notes: Sentences about fields that are given and have no effect.
        max_device_memory: Such as `58GB`.
        speed_up: The content of the file that `parallel_speed_up_json_path` names; None if there is no such file. It
            configures transfers.
    """

    case: Written
    fields: tuple[tuple[Field, Any], ...]
    defaults: Mapping[str, Any]
    notes: tuple[str, ...]
    max_device_memory: str | None
    speed_up: Mapping[str, Any] | None


@functools.cache
def known_fields() -> Mapping[str, Field]:
    """The table, by mindformers' dotted names."""
    with FIELDS.open(encoding="utf-8", newline="") as file:
        return {row["mindformers"]: _field(row) for row in csv.DictReader(file)}


def _field(row: Mapping[str, str]) -> Field:
    rule, words = row["rule"], row["rule"].partition(": " if row["rule"].startswith("idle") else " ")
    fate: Any = words[0] if rule else "case"
    names = {name: row[name] for name in ("mindformers", "case", "hugging_face", "megatron")}
    required = row["default"] == REQUIRED
    default = None if required else _values(row["default"])
    return Field(**names, fate=fate, about=words[2], default=default, required=required)


@functools.cache
def _allowed(about: str) -> list[Any]:
    """The values that the table lists, as YAML has them."""
    values: list[Any] = _values(f"[{about}]")
    return values


def _values(text: str) -> Any:
    from harness.base.yaml_files import parse_yaml  # here: the process of a run reads none

    return parse_yaml(text, str(FIELDS)).value


def is_configuration(content: Any) -> bool:
    """Whether a YAML's content is a configuration of mindformers and not a case."""
    if not isinstance(content, dict):
        return False
    model = content.get("model")
    nested = isinstance(model, dict) and bool({"model_config", "arch"} & set(model))
    return nested or bool((SECTIONS | SECTIONS_OF_2) & set(map(str, content)))


def read_configuration(written: Written) -> Configuration:
    """The case that a configuration describes, named like its file.

    Raises:
        InputError: it is of another model or of mindformers 2.x; or every unknown key, missing key, unsupported value
            and contradiction, with its line.
    """
    _check_kind(written)
    given = dict(_leaves(written.value, ""))
    reader = _Reader(given)
    case = reader.case(re.sub(r"[^a-z0-9._-]+", "-", Path(written.origin).stem.lower()).strip("._-") or "case")
    memory, speed_up = reader.max_device_memory, reader.speed_up(written.origin)
    if reader.problems:
        # of another mode the mode alone says what is wrong
        of_mode = [problem for problem in reader.problems.values() if problem.keys == (MODE,) and MODE in given]
        raise refusal(written, "cannot be read as a case", of_mode or list(reader.problems.values()))
    known = known_fields()
    fields = tuple((known[path], value) for path, value in given.items())
    return Configuration(
        case=Written(value=case, origin=written.origin, line_of=functools.partial(_line_of, written, fields)),
        fields=fields,
        defaults=dict(reader.defaults),
        notes=tuple(reader.notes),
        max_device_memory=memory,
        speed_up=speed_up,
    )


def _check_kind(written: Written) -> None:
    """Rejects what is no training configuration of Qwen3 in the form of mindformers 1.x, in one sentence.

    Raises:
        InputError: it is of another model, or in the form of mindformers 2.x.
    """
    content, origin = written.value, written.origin
    if newer := sorted(SECTIONS_OF_2 & set(map(str, content))):
        raise InputError(
            f"{origin} has the section {newer[0]}: it is in the form of mindformers 2.x. Only the form of 1.x is read, "
            "with use_legacy: False, such as configs/qwen3/pretrain_qwen3_32b_4k.yaml."
        )
    model = _mapping(content.get("model"))
    of_model, arch = _mapping(model.get("model_config")), _mapping(model.get("arch")).get("type")
    kinds = [arch, of_model.get("type"), of_model.get("model_type"), *_listed(of_model.get("architectures"))]
    other = [str(kind) for kind in kinds if kind is not None and not str(kind).lower().startswith("qwen3for")]
    other = [kind for kind in other if kind.lower() not in ("qwen3", "qwen3config")]
    other += ["a model of experts"] if any(re.match(EXPERTS, str(key)) for key in of_model) else []
    if other:
        name = _mapping(content.get("trainer")).get("model_name")
        named = f" ({name})" if name else ""
        raise InputError(
            f"{origin} is a configuration of {other[0]}{named}, not of Qwen3, and only Qwen3 can be certified. "
            "Start from mindformers' configs/qwen3/pretrain_qwen3_32b_4k.yaml."
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def speed_up_file(ascend_config: Any, origin: str) -> Path | None:
    """The file that `parallel_speed_up_json_path` of `context.ascend_config` names: from this directory, as mindformers
    opens it, or next to the configuration `origin`. None if it is not given or not there."""
    stated = _mapping(ascend_config).get(SPEED_UP)
    if not isinstance(stated, str) or not stated:
        return None
    places = (Path(stated), Path(origin).parent / Path(stated).name)
    return next((place for place in places if place.is_file()), None)


def _line_of(written: Written, fields: tuple[tuple[Field, Any], ...], keys: KeyPath) -> int | None:
    """The line of the field that a value of the case was read from; the first one if several fields give it, or parts
    of it. A part of a value has the line of the whole one."""
    names = list(map(str, keys))
    for end in range(len(names), 0, -1):
        path = ".".join(names[:end])
        for field, _ in fields:
            if field.case == path or (end > 1 and field.case.startswith(f"{path}.")):
                return written.line_of(field.mindformers.split("."))
    return written.line_of([])


def _leaves(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted path and value of each field; a mapping that is one entry of the table is one field."""
    if not isinstance(content, Mapping) or path in known_fields():
        yield path, content if path == f"{CONFIG}.data_path" else _with_numbers(content)
        return
    if path and not content:
        yield path, content  # an empty section
    for key, value in content.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _with_numbers(value: Any) -> Any:
    """A value in which numbers such as 1e-2 are numbers: YAML 1.1 reads text."""
    if isinstance(value, list):
        return [_with_numbers(one) for one in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def _unknown(path: str, value: Any) -> str:
    """The message about a key that the table does not have."""
    inside = [name.removeprefix(f"{path}.") for name in known_fields() if name.startswith(f"{path}.")]
    if inside:
        return f"{value!r:.40} is not a section with keys such as {inside[0]}"
    section, _, last = path.rpartition(".")
    named = [name for name in known_fields() if name.rpartition(".")[2] == last]
    beside = {name.rpartition(".")[2]: name for name in known_fields() if name.rpartition(".")[0] == section}
    near = (nearest(path, named) or named[0]) if named else beside.get(nearest(last, beside) or "")
    return f"unknown key; did you mean {near!r}?" if near else "unknown key"


class _Reader:
    """Reads the fields, and keeps every problem for the end."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.problems: dict[tuple[str, str], Problem] = {}  # each once, however often its field is read
        self.defaults: dict[str, Any] = {}  # of fields that shape the case
        self.notes: list[str] = []
        self._given = given
        self._from_directory = self._read_directory()

    def _read_directory(self) -> dict[str, Any]:
        """The fields of the model in `pretrained_model_dir`, which the file itself may override."""
        path = self._given.get("pretrained_model_dir")
        if path in (None, ""):
            return {}
        try:
            config = Qwen3Config.from_hf(Path(str(path)))
        except Qwen3ConfigError as error:
            self._refuse("pretrained_model_dir", "; ".join(error.problems))
            return {}
        named = {f"{MODEL}.{name}": value for name, value in config.to_hf().items()}
        return {name: value for name, value in named.items() if name in known_fields()}

    def case(self, name: str) -> dict[str, Any]:
        """The content of the case, as far as it can be read."""
        case: dict[str, Any] = {"name": name, "title": f"{name}, from mindformers' configuration"}
        for path, value in self._given.items():
            self._take(path, value, case)
        for path, value in self._from_directory.items():
            if path not in self._given:
                self._take(path, value, case)
        self._take_defaults(case)
        sections = (self._training, self._lr_schedule, self._data, self._model, self._parallel, self._precision)
        for section in sections:
            name = section.__name__.removeprefix("_")
            case[name] = {**case.get(name, {}), **section()}
        low = case["precision"].get("compute_dtype") == "bfloat16"
        case["standards"] = ["official", "strict-bf16" if low else "strict-fp32"]
        return case

    def _is_given(self, path: str) -> bool:
        return path in self._given or path in self._from_directory

    def _get(self, path: str) -> Any:
        """The value of a field; if it is not given, what mindformers takes."""
        if path in self._given:
            return self._given[path]
        return self._from_directory.get(path, known_fields()[path].default)

    def _chosen(self, path: str, choices: Mapping[Any, C], words: str = "") -> C:
        """The meaning of a field's value, one of some choices; if it is none, a problem and the first choice."""
        value = self._get(path)
        for one, choice in choices.items():
            if value == one and isinstance(value, bool) == isinstance(one, bool):
                return choice
        only = words or ", ".join(map(str, choices))
        if self._is_given(path):
            self._refuse(path, f"{value!r} is not supported, only {only}")
        elif not known_fields()[path].required:
            self._refuse(path, f"missing: mindformers takes {value!r}, which is not supported, only {only}")
        return next(iter(choices.values()))

    def _flag(self, path: str) -> bool:
        return self._chosen(path, {True: True, False: False}, "true, false")

    def _refuse(self, path: str, why: str) -> None:
        self.problems[path, why] = Problem(keys=tuple(path.split(".")), message=why)

    def _take(self, path: str, value: Any, case: dict[str, Any]) -> None:
        known = known_fields().get(path)
        if known is None:
            self._refuse(path, _unknown(path, value))
            return
        if known.fate == "only":
            self._chosen(path, dict.fromkeys(_allowed(known.about)), words=known.about)
        if known.case and known.fate in ("case", "only"):
            section, _, name = known.case.partition(".")
            case.setdefault(section, {})[name] = value

    def _take_defaults(self, case: dict[str, Any]) -> None:
        """Every field that is not given: mindformers' default, or a problem."""
        for path, known in known_fields().items():
            if self._is_given(path):
                continue
            if known.required:
                # the model may be in a directory that cannot be read, which is a problem of its own
                if not (path.startswith(MODEL) and self._get("pretrained_model_dir")):
                    self._refuse(path, "missing: a configuration of Qwen3's training states it")
            elif known.default is not None:
                if known.case and known.fate != "idle":
                    self.defaults[path] = known.default
                if known.fate != "read":
                    self._take(path, known.default, case)

    def _number(self, path: str) -> int:
        value = self._get(path)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self._refuse(path, f"{value!r} is no whole number above 0")
            return 1
        return value

    @functools.cached_property
    def _rows(self) -> int:
        """Rows of a step."""
        replicas, stages = (self._number(f"parallel_config.{name}") for name in ("data_parallel", "pipeline_stage"))
        accumulated = self._number("runner_config.gradient_accumulation_steps")
        if stages > 1 and accumulated > 1:
            why = "without effect where pipeline_stage is above 1; raise parallel_config.micro_batch_num"
            self._refuse("runner_config.gradient_accumulation_steps", why)
        if accumulated > 1 and not self._splits_models:
            why = "without effect where use_parallel is False or parallel.parallel_mode is 0; raise batch_size"
            self._refuse("runner_config.gradient_accumulation_steps", why)
        parts = self._number("parallel_config.micro_batch_num") if stages > 1 else accumulated
        return self._number("runner_config.batch_size") * replicas * parts

    @functools.cached_property
    def _samples(self) -> int:
        path = f"{DATA}.data_loader.sizes"
        sizes = self._get(path)
        if not isinstance(sizes, list) or len(sizes) != 3 or not all(type(size) is int for size in sizes):
            if self._is_given(path):
                self._refuse(path, "three numbers of rows: training, test, evaluation")
            return 0
        if any(sizes[1:]):
            self._refuse(path, "a case has rows only for training")
        return int(sizes[0])

    @functools.cached_property
    def _steps(self) -> int:
        epochs, stated = self._number("runner_config.epochs"), self._get("lr_schedule.total_steps")
        steps = epochs * (self._samples // self._rows)
        if stated not in (-1, None, steps) and self._is_given(f"{DATA}.data_loader.sizes"):
            self._refuse(
                "lr_schedule.total_steps",
                f"{stated}, but {epochs} x {self._samples} rows in steps of {self._rows} are {steps}; -1 takes those",
            )
        return steps

    @property
    def _splits_models(self) -> bool:
        """Whether MindSpore runs in semi-automatic parallel mode."""
        return self._get("use_parallel") is True and self._get("parallel.parallel_mode") == 1

    def _training(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            "lr_zero_steps": max(1, min(LR_ZERO_STEPS, self._steps)),
            "clip_grad": self._get("runner_wrapper.max_grad_norm") if self._clips() else None,
            "graph_mode": self._chosen("context.mode", GRAPH_MODES, "0 (GRAPH), 1 (PYNATIVE)"),
        }

    def _clips(self) -> bool:
        """Whether gradients are clipped: by default only in the wrapper for pipeline stages, which mindformers takes
        for several stages whatever `type` says."""
        if self._is_given(CLIPS):
            return self._flag(CLIPS)
        stages, kind = self._get("parallel_config.pipeline_stage"), self._get("runner_wrapper.type")
        clips: bool = stages != 1 or kind == "MFPipelineWithLossScaleCell"
        self.defaults[CLIPS] = clips
        return clips

    def _lr_schedule(self) -> dict[str, Any]:
        kind = self._chosen("lr_schedule.type", SCHEDULES)
        return {"type": kind, "warmup_steps": self._warmup(kind)}

    def _warmup(self, kind: str) -> int:
        """The steps of the warm-up. As in mindformers, `warmup_steps` counts only without `warmup_ratio`."""
        path, other = "lr_schedule.warmup_ratio", "lr_schedule.warmup_steps"
        ratio, warmup = self._get(path), self._get(other)
        if ratio is None:
            if warmup is None:
                if kind == "constant" and self._is_given("lr_schedule.type"):
                    self._refuse(
                        path, f"missing: mindformers' {self._get('lr_schedule.type')} needs it, or warmup_steps"
                    )
                self.defaults[other] = 0
                return 0
            if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
                self._refuse(other, f"{warmup!r} is no whole number from 0")
                return 0
            return warmup
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
            self._refuse(path, f"{ratio!r} is no number from 0 to 1")
            return 0
        if warmup is not None:
            self.notes.append(f"{other} {warmup!r} has no effect with warmup_ratio {ratio!r}, as in mindformers")
        return int(ratio * self._steps)

    def _data(self) -> dict[str, Any]:
        path = f"{DATA}.data_loader.type"
        if self._is_given(path) and self._get(path) != LOADER:
            self._refuse(path, f"{self._get(path)!r} is not supported, only {LOADER}")
        task, dataset = self._get("train_dataset_task.dataset_config"), self._tree(DATA)
        if task is not None and task != dataset:
            self._refuse("train_dataset_task.dataset_config", f"contradicts {DATA}")
        return {
            "corpus": {"kind": "megatron", "data_path": self._get(f"{CONFIG}.data_path")},
            "order": "mindformers",
            "num_samples": self._samples,
            "global_batch_size": self._rows,
            "eod": None if (end := self._get(f"{CONFIG}.eod")) == -1 else end,  # -1: of no token
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
        # mindformers' Qwen3 reads tie_word_embeddings alone
        tied, untied = self._get(f"{MODEL}.tie_word_embeddings"), self._get(f"{MODEL}.{UNTIED}")
        if untied is not None and tied == untied:
            taken = "" if self._is_given(f"{MODEL}.tie_word_embeddings") else "mindformers' default "
            self._refuse(f"{MODEL}.tie_word_embeddings", f"{taken}{tied} contradicts {UNTIED} {untied}")
        length, of_data = self._get(f"{MODEL}.seq_length"), self._get(f"{CONFIG}.seq_length")
        if of_data is not None and length not in (None, of_data):
            taken = "" if self._is_given(f"{MODEL}.seq_length") else "mindformers' default "
            self._refuse(f"{MODEL}.seq_length", f"{taken}{length} contradicts {CONFIG}.seq_length {of_data}")
        return {"hidden_act": self._chosen(f"{MODEL}.hidden_act", ACTIVATIONS)}

    def _parallel(self) -> dict[str, Any]:
        replicas = self._number("parallel_config.data_parallel")
        ranks = (
            replicas * self._number("parallel_config.model_parallel") * self._number("parallel_config.pipeline_stage")
        )
        if not self._flag("use_parallel") and ranks > 1:
            taken = "" if self._is_given("use_parallel") else "mindformers' default "
            self._refuse("use_parallel", f"{taken}False contradicts the {ranks} ranks of parallel_config")
        if self._get("parallel.parallel_mode") == 0:
            if ranks > replicas:
                self._refuse("parallel.parallel_mode", "0 splits only the batch; 1 is needed to split a model")
            elif replicas > 1 and not self._flag("parallel.gradients_mean"):
                self._refuse("parallel.gradients_mean", "with parallel_mode 0 replicas add up their gradients: set it")
        self._check_strategy(replicas)
        offset = self._get(f"{MODEL}.offset")
        if not isinstance(offset, list) and offset != 0:
            self._refuse(f"{MODEL}.offset", f"{offset!r} is neither 0 nor a list with one number for each stage")
        return {"offset": offset if isinstance(offset, list) else []}

    def _check_strategy(self, replicas: int) -> None:
        path = "parallel.dataset_strategy"
        strategy, whole = self._get(path), self._flag("parallel.full_batch")
        if whole and strategy in (None, "full_batch"):
            return
        if not isinstance(strategy, list) or not strategy or not all(isinstance(one, list) and one for one in strategy):
            if strategy is not None or self._splits_models:
                self._refuse(path, "expected a list of lists, such as [[1, 1], [1, 1]]")
        elif not whole and strategy[0][0] != replicas:
            self._refuse(path, f"{strategy[0][0]} contradicts data_parallel {replicas}")

    @functools.cached_property
    def max_device_memory(self) -> str | None:
        """The memory that a device may use, such as `58GB`."""
        value = self._get("context.max_device_memory")
        if value is None or (isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*GB\s*", value)):
            return value
        self._refuse("context.max_device_memory", f"{value!r} is no amount of memory; write it as 58GB")
        return None

    def _precision(self) -> dict[str, Any]:
        """The dtype of the residual stream. Until 1.7 it was stated itself; since then by a flag."""
        if not self._is_given(NARROW):
            wide = self._flag(WIDE)
            return {"residual_dtype": "float32" if wide else self._get(f"{MODEL}.compute_dtype")}
        if self._is_given(WIDE) and self._flag(WIDE) != (self._get(NARROW) == "float32"):
            self._refuse(NARROW, f"{self._get(NARROW)!r} contradicts fp32_residual_connection {self._get(WIDE)}")
        self.defaults.pop(WIDE, None)
        return {"residual_dtype": self._get(NARROW)}

    def speed_up(self, origin: str) -> Mapping[str, Any] | None:
        """The content of the file that configures transfers; `origin` is the configuration's own name."""
        stated = _mapping(self._get("context.ascend_config")).get(SPEED_UP)
        path = speed_up_file(self._get("context.ascend_config"), origin)
        if path is None:
            if stated:
                self.notes.append(
                    f"{SPEED_UP} names {stated!r}, which is not there: it decides how transfers are fused"
                )
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            content = error
        if not isinstance(content, dict):
            self._refuse("context.ascend_config", f"{SPEED_UP}: {path} holds no JSON object: {content}"[:300])
            return None
        return content
