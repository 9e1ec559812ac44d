"""From the fields of a configuration to the sections of a case: what several fields give together, and where they
contradict each other."""

import functools
import re
from typing import Any

from harness.cases.mindformers.fields import CLIPS, CONFIG, DATA, MODEL, NARROW, UNTIED, WIDE
from harness.cases.mindformers.given import Given

LOADER = "BlendedMegatronDatasetDataLoader"
LR_ZERO_STEPS = 20
GRAPH_MODES = {0: True, 1: False}
# also by the second names under which mindformers registers them
SCHEDULES = {
    "ConstantWarmUpLR": "constant",
    "CosineWithWarmUpLR": "cosine",
    "CertifyCosine": "cosine",
    "constant_with_warmup": "constant",
    "cosine": "cosine",
}
ACTIVATIONS = {"swiglu": "silu", "silu": "silu"}


class Sections:
    """Reads the sections of a case from fields, and leaves every problem with them."""

    def __init__(self, fields: Given) -> None:
        self._fields = fields

    def case(self, name: str) -> dict[str, Any]:
        """The content of the case, as far as it can be read."""
        case = {"name": name, "title": f"{name}, from mindformers' configuration", **self._fields.copied()}
        sections = (self._training, self._lr_schedule, self._data, self._model, self._parallel, self._precision)
        for section in sections:
            name = section.__name__.removeprefix("_")
            case[name] = {**case.get(name, {}), **section()}
        low = case["precision"].get("compute_dtype") == "bfloat16"
        case["standards"] = ["official", "strict-bf16" if low else "strict-fp32"]
        return case

    @functools.cached_property
    def _rows(self) -> int:
        """Rows of a step."""
        replicas, stages = (
            self._fields.number(f"parallel_config.{name}") for name in ("data_parallel", "pipeline_stage")
        )
        accumulated = self._fields.number("runner_config.gradient_accumulation_steps")
        if stages > 1 and accumulated > 1:
            why = "without effect where pipeline_stage is above 1; raise parallel_config.micro_batch_num"
            self._fields.refuse("runner_config.gradient_accumulation_steps", why)
        if accumulated > 1 and not self._splits_models:
            why = "without effect where use_parallel is False or parallel.parallel_mode is 0; raise batch_size"
            self._fields.refuse("runner_config.gradient_accumulation_steps", why)
        parts = self._fields.number("parallel_config.micro_batch_num") if stages > 1 else accumulated
        return self._fields.number("runner_config.batch_size") * replicas * parts

    @functools.cached_property
    def _samples(self) -> int:
        path = f"{DATA}.data_loader.sizes"
        sizes = self._fields.get(path)
        if not isinstance(sizes, list) or len(sizes) != 3 or not all(type(size) is int for size in sizes):
            if self._fields.is_given(path):
                self._fields.refuse(path, "three numbers of rows: training, test, evaluation")
            return 0
        if any(sizes[1:]):
            self._fields.refuse(path, "a case has rows only for training")
        return int(sizes[0])

    @functools.cached_property
    def _steps(self) -> int:
        epochs, stated = self._fields.number("runner_config.epochs"), self._fields.get("lr_schedule.total_steps")
        steps = epochs * (self._samples // self._rows)
        if stated not in (-1, None, steps) and self._fields.is_given(f"{DATA}.data_loader.sizes"):
            self._fields.refuse(
                "lr_schedule.total_steps",
                f"{stated}, but {epochs} x {self._samples} rows in steps of {self._rows} are {steps}; -1 takes those",
            )
        return steps

    @property
    def _splits_models(self) -> bool:
        """Whether MindSpore runs in semi-automatic parallel mode."""
        return self._fields.get("use_parallel") is True and self._fields.get("parallel.parallel_mode") == 1

    def _training(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            "lr_zero_steps": max(1, min(LR_ZERO_STEPS, self._steps)),
            "clip_grad": self._fields.get("runner_wrapper.max_grad_norm") if self._clips() else None,
            "graph_mode": self._fields.chosen("context.mode", GRAPH_MODES, "0 (GRAPH), 1 (PYNATIVE)"),
        }

    def _clips(self) -> bool:
        """Whether gradients are clipped: by default only in the wrapper for pipeline stages, which mindformers takes
        for several stages whatever `type` says."""
        if self._fields.is_given(CLIPS):
            return self._fields.flag(CLIPS)
        stages, kind = self._fields.get("parallel_config.pipeline_stage"), self._fields.get("runner_wrapper.type")
        clips: bool = stages != 1 or kind == "MFPipelineWithLossScaleCell"
        self._fields.defaults[CLIPS] = clips
        return clips

    def _lr_schedule(self) -> dict[str, Any]:
        kind = self._fields.chosen("lr_schedule.type", SCHEDULES)
        return {"type": kind, "warmup_steps": self._warmup(kind)}

    def _warmup(self, kind: str) -> int:
        """The steps of the warm-up. As in mindformers, `warmup_steps` counts only without `warmup_ratio`."""
        path, other = "lr_schedule.warmup_ratio", "lr_schedule.warmup_steps"
        ratio, warmup = self._fields.get(path), self._fields.get(other)
        if ratio is None:
            if warmup is None:
                if kind == "constant" and self._fields.is_given("lr_schedule.type"):
                    self._fields.refuse(
                        path, f"missing: mindformers' {self._fields.get('lr_schedule.type')} needs it, or warmup_steps"
                    )
                self._fields.defaults[other] = 0
                return 0
            if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
                self._fields.refuse(other, f"{warmup!r} is no whole number from 0")
                return 0
            return warmup
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
            self._fields.refuse(path, f"{ratio!r} is no number from 0 to 1")
            return 0
        if warmup is not None:
            self._fields.notes.append(
                f"{other} {warmup!r} has no effect with warmup_ratio {ratio!r}, as in mindformers"
            )
        return int(ratio * self._steps)

    def _data(self) -> dict[str, Any]:
        path = f"{DATA}.data_loader.type"
        if self._fields.is_given(path) and self._fields.get(path) != LOADER:
            self._fields.refuse(path, f"{self._fields.get(path)!r} is not supported, only {LOADER}")
        task, dataset = self._fields.get("train_dataset_task.dataset_config"), self._tree(DATA)
        if task is not None and task != dataset:
            self._fields.refuse("train_dataset_task.dataset_config", f"contradicts {DATA}")
        return {
            "corpus": {"kind": "megatron", "data_path": self._fields.get(f"{CONFIG}.data_path")},
            "order": "mindformers",
            "num_samples": self._samples,
            "global_batch_size": self._rows,
            "eod": None if (end := self._fields.get(f"{CONFIG}.eod")) == -1 else end,  # -1: of no token
        }

    def _tree(self, path: str) -> dict[str, Any]:
        """The fields under a path, nested as in the file."""
        whole: dict[str, Any] = {}
        for name, value in self._fields.given.items():
            if name.startswith(f"{path}."):
                *parents, last = name.removeprefix(f"{path}.").split(".")
                functools.reduce(lambda tree, part: tree.setdefault(part, {}), parents, whole)[last] = value
        return whole

    def _model(self) -> dict[str, Any]:
        # mindformers' Qwen3 reads tie_word_embeddings alone
        tied, untied = self._fields.get(f"{MODEL}.tie_word_embeddings"), self._fields.get(f"{MODEL}.{UNTIED}")
        if untied is not None and tied == untied:
            taken = "" if self._fields.is_given(f"{MODEL}.tie_word_embeddings") else "mindformers' default "
            self._fields.refuse(f"{MODEL}.tie_word_embeddings", f"{taken}{tied} contradicts {UNTIED} {untied}")
        length, of_data = self._fields.get(f"{MODEL}.seq_length"), self._fields.get(f"{CONFIG}.seq_length")
        if of_data is not None and length not in (None, of_data):
            taken = "" if self._fields.is_given(f"{MODEL}.seq_length") else "mindformers' default "
            self._fields.refuse(f"{MODEL}.seq_length", f"{taken}{length} contradicts {CONFIG}.seq_length {of_data}")
        return {"hidden_act": self._fields.chosen(f"{MODEL}.hidden_act", ACTIVATIONS)}

    def _parallel(self) -> dict[str, Any]:
        replicas = self._fields.number("parallel_config.data_parallel")
        ranks = (
            replicas
            * self._fields.number("parallel_config.model_parallel")
            * self._fields.number("parallel_config.pipeline_stage")
        )
        if not self._fields.flag("use_parallel") and ranks > 1:
            taken = "" if self._fields.is_given("use_parallel") else "mindformers' default "
            self._fields.refuse("use_parallel", f"{taken}False contradicts the {ranks} ranks of parallel_config")
        if self._fields.get("parallel.parallel_mode") == 0:
            if ranks > replicas:
                self._fields.refuse("parallel.parallel_mode", "0 splits only the batch; 1 is needed to split a model")
            elif replicas > 1 and not self._fields.flag("parallel.gradients_mean"):
                self._fields.refuse(
                    "parallel.gradients_mean", "with parallel_mode 0 replicas add up their gradients: set it"
                )
        self._check_strategy(replicas)
        offset = self._fields.get(f"{MODEL}.offset")
        if not isinstance(offset, list) and offset != 0:
            self._fields.refuse(f"{MODEL}.offset", f"{offset!r} is neither 0 nor a list with one number for each stage")
        return {"offset": offset if isinstance(offset, list) else []}

    def _check_strategy(self, replicas: int) -> None:
        path = "parallel.dataset_strategy"
        strategy, whole = self._fields.get(path), self._fields.flag("parallel.full_batch")
        if whole and strategy in (None, "full_batch"):
            return
        if not isinstance(strategy, list) or not strategy or not all(isinstance(one, list) and one for one in strategy):
            if strategy is not None or self._splits_models:
                self._fields.refuse(path, "expected a list of lists, such as [[1, 1], [1, 1]]")
        elif not whole and strategy[0][0] != replicas:
            self._fields.refuse(path, f"{strategy[0][0]} contradicts data_parallel {replicas}")

    @functools.cached_property
    def max_device_memory(self) -> str | None:
        """The memory that a device may use, such as `58GB`."""
        value = self._fields.get("context.max_device_memory")
        if value is None or (isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*GB\s*", value)):
            return value
        self._fields.refuse("context.max_device_memory", f"{value!r} is no amount of memory; write it as 58GB")
        return None

    def _precision(self) -> dict[str, Any]:
        """The dtype of the residual stream. Until 1.7 it was stated itself; since then by a flag."""
        if not self._fields.is_given(NARROW):
            wide = self._fields.flag(WIDE)
            return {"residual_dtype": "float32" if wide else self._fields.get(f"{MODEL}.compute_dtype")}
        if self._fields.is_given(WIDE) and self._fields.flag(WIDE) != (self._fields.get(NARROW) == "float32"):
            self._fields.refuse(
                NARROW, f"{self._fields.get(NARROW)!r} contradicts fp32_residual_connection {self._fields.get(WIDE)}"
            )
        self._fields.defaults.pop(WIDE, None)
        return {"residual_dtype": self._fields.get(NARROW)}
