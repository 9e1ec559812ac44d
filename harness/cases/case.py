"""The case: everything that fixes a run, and its digest.

Takes a YAML file, gives a frozen record, and reports all errors of the file at once. The digest does not cover what
does not change a run (name, title, time limits, paths of files); the standards have digests of their own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from harness.base.digest import digest_json
from harness.base.errors import InputError
from harness.base.near_names import did_you_mean
from harness.base.written import Problem, Written
from harness.base.yaml_records import Problems, Record, validated
from harness.cases.data import BYTE_VOCABULARY, Data
from harness.cases.mindformers import is_configuration, read_configuration
from harness.cases.sections import (
    DECODED_TOKENS,
    Checkpoint,
    Inference,
    Initialization,
    LrSchedule,
    ModelField,
    Optimizer,
    PrecisionField,
    Training,
)
from harness.cases.task import FINETUNE, PRETRAIN, TASKS, TaskField
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.precision_policy import PrecisionPolicy

CASES_DIR = Path(__file__).parent
DEFAULT_CASE = PRETRAIN.usual_case
SCORED_TASKS = 2  # of an evaluation: the last word of a passage, and its own ending among several


class Case(Record):
    """Everything that fixes a run. Build one with `load_case`; change one with `with_changes`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    task: TaskField = PRETRAIN
    model: ModelField
    precision: PrecisionField = PrecisionPolicy()
    initialization: Initialization = Initialization()
    data: Data
    optimizer: Optimizer = Optimizer()
    lr_schedule: LrSchedule
    training: Training
    parallel: ParallelConfig = ParallelConfig()
    inference: Inference | None = None
    # "sketches" for a model whose tensors are too large to keep: see harness.runs.sketches
    evidence: Literal["tensors", "sketches"] = "tensors"
    standards: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fields_agree(self) -> "Case":
        problems = [*self._task_problems(), *self._layout_problems(), *self._data_problems(), *self._step_problems()]
        if problems:
            raise Problems(problems)
        return self

    def _task_problems(self) -> Iterator[Problem]:
        for task in TASKS.values():
            if task.section and (self.task == task) != (getattr(self, task.section) is not None):
                yield _problem("task", f"task {task.name!r} and the section {task.section} belong together")
        if (self.task == FINETUNE) != self.data.corpus.of_conversations:
            yield _problem("data.corpus.kind", "a case of task 'finetune', and no other, reads conversations")
        if (start := self.initialization.checkpoint) is not None:
            if start.kind != "huggingface":
                yield _problem("initialization.checkpoint.kind", "initial weights are read from kind 'huggingface'")
            if self.inference is not None:
                yield _problem("initialization.checkpoint", "inference names its weights in inference.weights")
        if self.inference is not None:
            yield from (_problem("inference", one) for one in self.inference.problems(self.model, self.data))
            if self.parallel.world_size > 1:
                yield _problem("parallel", "an inference case has one rank")
            if self.inference.trains and self.evidence == "sketches":
                reason = "trained weights are part of the evidence; with evidence 'sketches' they are 'drawn' or read"
                yield _problem("inference.weights.kind", reason)

    def _layout_problems(self) -> Iterator[Problem]:
        rows, micro_batches = self.data.global_batch_size, self.training.gradient_accumulation_steps
        if rows % micro_batches:
            reason = f"{rows} is not a multiple of training.gradient_accumulation_steps {micro_batches}"
            yield _problem("data.global_batch_size", reason)
        if self.parallel.world_size > 1 and self.data.documents:
            reason = "reset_attention_mask and reset_position_ids are for one rank"
            yield _problem("data.reset_attention_mask", reason)
        layout = self.parallel.problems(self.model, rows=rows // micro_batches, seq_length=self.data.seq_length)
        for found in layout:
            first, *others = found.fields
            reason = f"{', '.join(others)}: {found.reason}" if others else found.reason
            yield _problem(f"parallel.{first}", f"{reason}. {found.fix}")

    def _data_problems(self) -> Iterator[Problem]:
        data, positions, vocabulary = self.data, self.model.max_position_embeddings, self.model.vocab_size
        if data.seq_length > positions:
            yield _problem("data.seq_length", f"{data.seq_length} exceeds model.max_position_embeddings {positions}")
        rows = data.global_batch_size * (1 if data.order == "mindformers" else self.training.steps)
        if data.num_samples is not None and data.num_samples < rows:
            yield _problem("data.num_samples", f"{data.num_samples} is below the {rows} rows that the steps take")
        tokenized_as_bytes = data.tokenizer.kind == "bytes" and data.corpus.kind != "megatron"
        if tokenized_as_bytes and vocabulary < BYTE_VOCABULARY:
            yield _problem("model.vocab_size", f"{vocabulary} is below the {BYTE_VOCABULARY} byte tokens")

    def _step_problems(self) -> Iterator[Problem]:
        schedule, steps = self.lr_schedule, self.training.steps
        if schedule.warmup_steps >= steps:
            reason = f"{schedule.warmup_steps} leaves none of the {steps} training.steps"
            yield _problem("lr_schedule.warmup_steps", reason)
        if schedule.lr_end > schedule.learning_rate:
            yield _problem("lr_schedule.lr_end", "it is above lr_schedule.learning_rate")
        if max(self.training.examined_steps, default=0) > steps:
            yield _problem("training.examined_steps", f"one is beyond the {steps} training.steps")
        if self.training.resume_after is not None and self.training.resume_after >= steps:
            yield _problem("training.resume_after", f"it leaves none of the {steps} training.steps")
        if self.training.lr_zero_steps > steps:
            yield _problem("training.lr_zero_steps", "it exceeds training.steps")

    def record(self) -> dict[str, Any]:
        """The case as plain JSON values, without the paths of this machine; without a layout for one rank, without
        inference for a training case, and without what was added later and is as it was before."""
        record = self.model_dump(mode="json")
        if self.parallel == ParallelConfig():
            del record["parallel"]
        if self.precision.fused:
            del record["precision"]["fused"]
        if self.evidence == "tensors":
            del record["evidence"]
        if self.training.oracle is None:
            del record["training"]["oracle"]
        if not self.training.examined_steps:
            del record["training"]["examined_steps"]
        if self.training.resume_after is None:
            del record["training"]["resume_after"]
        if self.training.threads == 1:
            del record["training"]["threads"]
        if self.inference is None:
            del record["inference"]
        else:
            if not self.inference.borders:
                del record["inference"]["borders"]
            if self.inference.decoded_tokens == DECODED_TOKENS:
                del record["inference"]["decoded_tokens"]
        if self.initialization.checkpoint is None:
            del record["initialization"]["checkpoint"]
        for named in (record["initialization"].get("checkpoint"), record.get("inference", {}).get("weights")):
            if named is not None:
                del named["path"]
                if not named["cut"]:
                    del named["cut"]
        for name in ("cut_vocabulary", "sweep_vocabulary", "reset_attention_mask", "reset_position_ids"):
            if not record["data"][name]:
                del record["data"][name]
        for source in ("corpus", "tokenizer"):
            del record["data"][source]["path"]
        for part in record["data"]["corpus"]["blend"]:
            del part["path"]
        return record

    def digest(self) -> str:
        """Digest of everything that changes a run."""
        record = self.record()
        for key in ("name", "title", "standards"):
            del record[key]
        for key in ("checkpoint_every", "step_timeout_s", "start_timeout_s", "floor_repeats"):
            del record["training"][key]
        return digest_json(record)

    @property
    def inference_section(self) -> Inference:
        """The section `inference`, in code for inference cases only."""
        assert self.inference is not None, f"{self.name} is a case of {self.task}"
        return self.inference

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint that its weights are read from; None if they are drawn."""
        if self.inference is None:
            return self.initialization.checkpoint
        return self.inference.weights if self.inference.weights.kind == "huggingface" else None

    def with_checkpoint(self, checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
        """The fields of a case of this task that reads its weights from a checkpoint, by section."""
        if self.inference is None:
            return {"initialization": {"checkpoint": checkpoint.model_dump()}}
        return {"inference": {"weights": checkpoint.model_dump()}}

    @property
    def trains_weights(self) -> bool:
        """Whether the judged weights come from a training run of this case that is not judged itself."""
        return self.inference is not None and self.inference.trains

    @property
    def takes_steps(self) -> bool:
        """Whether a model is trained in this case, be it judged or only what trains the weights."""
        return self.inference is None or self.inference.trains

    @property
    def has_learned(self) -> bool:
        """Whether the weights that answer come from training; of a case that trains, always."""
        return self.inference is None or self.inference.weights.kind != "drawn"

    def steps_of(self, side: str, arm: str) -> int:
        """The number of steps of the runs of a side and an arm: for an evaluation, the scored documents. The oracle
        scores only texts."""
        if arm != "infer" or self.inference is None:
            steps, oracle = self.training.steps_of(arm), self.training.oracle
            if side == "oracle" and oracle is not None:
                return min(steps, 1 if oracle == "probe" else oracle)
            return steps
        return self.inference.texts + (0 if side == "oracle" else SCORED_TASKS * self.inference.documents)

    def with_changes(self, **sections: Any) -> "Case":
        """The case with other sections, checked again.

        Raises:
            InputError: the changed case is not valid.
        """
        return parse_case({**self.model_dump(), **sections}, f"the changed case {self.name}")


def _problem(keys: str, message: str) -> Problem:
    return Problem(keys=tuple(keys.split(".")), message=message)


def parse_case(content: Any, origin: str) -> Case:
    """A case from its recorded content.

    Raises:
        InputError: every problem of the content, one a line.
    """
    return _case(Written(value=content, origin=origin))


def _case(written: Written) -> Case:
    if not isinstance(written.value, dict):
        raise InputError(
            f"{written.origin} is not a case: expected a YAML mapping. 'certify cases --show' prints an example."
        )
    return validated(Case, written, "case")


def check_trains(case: Case, what: str) -> None:
    """Checks that the task of a case is judged step by step; `what` states what needs such steps.

    Raises:
        InputError: the case has another task.
    """
    if not case.task.judges_steps:
        raise InputError(f"{what}; {case.name} is a case of {case.task.activity}.")


def shipped_cases() -> dict[str, Path]:
    """Name and file of each shipped case."""
    return {path.stem: path for path in sorted(CASES_DIR.glob("*.yaml"))}


def as_argument(name: str) -> str:
    """A case in a command, by the name of a shipped one; of any other the file is not known."""
    return name if name in shipped_cases() else "FILE.yaml"


def load_case(name_or_path: str) -> Case:
    """A shipped case by name, or any case by the path of its YAML file, which may be a configuration of mindformers.

    Raises:
        InputError: no such case, not YAML, or not valid.
    """
    written = read_case_file(name_or_path)
    return _case(read_configuration(written).case if is_configuration(written.value) else written)


def read_case_file(name_or_path: str) -> Written:
    """The content of the file that `load_case` reads: a case, or a configuration of mindformers.

    Raises:
        InputError: no such file, or not YAML.
    """
    from harness.base.yaml_files import read_yaml  # here: the process of a run reads none

    path = shipped_cases().get(name_or_path, Path(name_or_path))
    if not path.is_file():
        known = shipped_cases()
        near = [file for suffix in (".yaml", ".yml") if Path(file := name_or_path + suffix).is_file()]
        raise InputError(
            f"There is no case {name_or_path!r}: neither a shipped case ({', '.join(known)}) nor a file."
            + (f" Did you mean the file {near[0]}?" if near else did_you_mean(name_or_path, known))
        )
    return read_yaml(path)


def written_for_mindformers(name_or_path: str) -> bool:
    """Whether the file that `load_case` would read is a configuration of mindformers, which mindformers can train."""
    return is_configuration(read_case_file(name_or_path).value)
