"""The sections of a case besides its data: model, precision, weights, optimizer, schedule, training, inference.

Each is a record of its own fields. What holds between two of them, `harness.cases.case` checks.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo

from harness.base.yaml_records import Record
from harness.cases.data import Data, DataSource
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.schedule import ConstantWithWarmup, CosineWithMinLr, ScheduleConfig
from qwen3_model.sizes import PUBLISHED, SMALL

RESUMED_STEPS = 6  # enough to show moments, schedule or order of batches that were not carried over


def _model_config(value: Any, info: ValidationInfo) -> Qwen3Config:
    if isinstance(value, Qwen3Config):
        return value
    if not isinstance(value, dict):
        raise ValueError("expected {size: NAME} or the keys of a Hugging Face config.json")
    if "size" not in value:
        return Qwen3Config.from_hf(value)
    sizes = {**SMALL, **PUBLISHED}
    if not isinstance(value["size"], str) or value["size"] not in sizes:
        raise ValueError(f"unknown size {value['size']!r}; known sizes: {', '.join(sizes)}")
    changes = {key: change for key, change in value.items() if key != "size"}
    return Qwen3Config.from_hf({**sizes[value["size"]].to_hf(), **changes})


def _precision(value: Any) -> PrecisionPolicy:
    if isinstance(value, PrecisionPolicy):
        return value
    known = PrecisionPolicy.__dataclass_fields__
    if not isinstance(value, dict) or (unknown := sorted(set(value) - set(known))):
        raise ValueError(f"unknown keys {unknown if isinstance(value, dict) else value!r}; known: {sorted(known)}")
    return PrecisionPolicy(**value)


ModelField = Annotated[
    Qwen3Config,
    PlainValidator(_model_config),
    PlainSerializer(lambda config: config.to_hf(), return_type=dict),
]
PrecisionField = Annotated[
    PrecisionPolicy,
    PlainValidator(_precision),
    PlainSerializer(lambda policy: dict(vars(policy)), return_type=dict),
]


class Checkpoint(DataSource):
    """Weights: those that the case's own steps train, those that it begins with, or those of a Hugging Face directory.
    `cut`: of that directory, only the layers and the ids that the case has."""

    kind: Literal["trained", "drawn", "huggingface"] = "trained"
    cut: bool = False


# What is drawn, measured and shown grows with these numbers, so they are checked before anything is allocated. The
# published rule is stated for 1000 to 5000 steps.
MOST_STEPS, MOST_REPEATS, MOST_ROWS = 100_000, 1000, 1 << 20


class Initialization(Record):
    """How the initial weights are drawn: matrices N(0, initializer_range), norm weights 1 + N(0, norm_std); or the
    checkpoint that they are read from.

    Norm weights of exactly one hide faults (such as exchanged q and k norms), so they vary a little.
    """

    seed: int = Field(default=42, ge=0, lt=2**32)
    norm_std: float = Field(default=0.05, ge=0)
    checkpoint: Checkpoint | None = None


class Optimizer(Record):
    type: Literal["AdamW"] = "AdamW"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)


class LrSchedule(Record):
    """Learning rate by step: linear warm-up from 0, then constant, or a cosine down to `lr_end`."""

    type: Literal["constant", "cosine"] = "constant"
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    lr_end: float = Field(default=0.0, ge=0)

    def over(self, steps: int) -> ScheduleConfig:
        """The schedule of a run of so many steps, as the model's record."""
        if self.type == "cosine":
            return CosineWithMinLr(
                peak=self.learning_rate, warmup_steps=self.warmup_steps, total_steps=steps, min_lr=self.lr_end
            )
        return ConstantWithWarmup(peak=self.learning_rate, warmup_steps=self.warmup_steps)


class Training(Record):
    steps: int = Field(ge=2, le=MOST_STEPS)
    clip_grad: float | None = Field(default=1.0, gt=0)
    gradient_accumulation_steps: int = Field(default=1, ge=1, le=MOST_ROWS)
    recompute: bool = False
    graph_mode: bool = True
    threads: int = Field(default=1, ge=1)  # of each run; another number may change the last bits
    lr_zero_steps: int = Field(default=20, ge=1)
    floor_repeats: int = Field(default=0, ge=0, le=MOST_REPEATS)
    checkpoint_every: int = Field(default=50, ge=1)
    # How many steps the oracle takes; None: all. "probe": only what its probe needs.
    oracle: Annotated[int, Field(ge=1)] | Literal["probe"] | None = None
    # Steps whose gradients and updates are compared tensor by tensor. With any, the others are looked at more briefly.
    examined_steps: tuple[Annotated[int, Field(ge=1)], ...] = ()
    # The step after which a run is resumed in a fresh process and goes on to the end; None: half of six steps.
    resume_after: Annotated[int, Field(ge=1)] | None = None
    step_timeout_s: float = Field(default=120.0, gt=0)
    start_timeout_s: float = Field(default=600.0, gt=0)

    def steps_of(self, arm: str) -> int:
        """The number of steps of the runs of an arm."""
        few = min(self.steps, RESUMED_STEPS)
        resumed = few if self.resume_after is None else self.steps
        shorter = {"lr_zero": self.lr_zero_steps, "resumed": resumed, "probe": 1, "alone_probe": 1, "taps": few}
        return shorter.get(arm, self.steps)


# As many as there are columns in the smallest buffer of `qwen3_model`, so that one is filled to its last column.
DECODED_TOKENS = 16


class Inference(Record):
    """The inference of a case.

    Every logit of `rows` rows of `data.seq_length` tokens is compared. Prompts of the lengths `prompts` are continued
    together, by `max_new_tokens` greedy tokens and `sampled_tokens` sampled ones. The evaluation has `texts` texts
    whose perplexity is measured, and `documents` documents for each scored task. None of them is in the training data
    of the weights.

    `borders` are lengths that an implementation rounds its buffers up to. After prompts of such a length, of one token
    less and of one more, and of the lengths `prompts`, `decoded_tokens` given tokens are decoded with a cache. Without
    borders none are.
    """

    weights: Checkpoint = Checkpoint()
    rows: int = Field(default=4, ge=1, le=MOST_ROWS)
    prompts: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(3, 17, 40, 64), min_length=2)
    max_new_tokens: int = Field(default=256, ge=1)
    sampled_tokens: int = Field(default=32, ge=1)
    borders: tuple[Annotated[int, Field(ge=2)], ...] = ()
    decoded_tokens: int = Field(default=DECODED_TOKENS, ge=1)
    texts: int = Field(default=100, ge=2, le=MOST_STEPS)
    documents: int = Field(default=1000, ge=2, le=MOST_STEPS)
    batch_size: int = Field(default=32, ge=1)

    @property
    def trains(self) -> bool:
        """Whether the case trains the weights for inference."""
        return self.weights.kind == "trained"

    @property
    def given_lengths(self) -> tuple[int, ...]:
        """The lengths of the prompts after which given tokens are decoded, ascending."""
        around = {border + by for border in self.borders for by in (-1, 0, 1)}
        return tuple(sorted(around.union(self.prompts))) if around else ()

    def problems(self, model: Qwen3Config, data: Data) -> list[str]:
        """What is not possible with the positions of this model, or with this corpus."""
        problems = []
        continued = max(self.prompts) + max(self.max_new_tokens, self.sampled_tokens)
        longest = max([continued, *(length + self.decoded_tokens for length in self.given_lengths)])
        if longest > model.max_position_embeddings:
            problems.append(
                f"prompts and their continuations reach position {longest}, model.max_position_embeddings is "
                f"{model.max_position_embeddings}"
            )
        if data.corpus.kind == "megatron":
            problems.append("data.corpus of kind 'megatron' has no text; an evaluation needs one")
        if data.cut_vocabulary:
            problems.append("data.cut_vocabulary: an evaluation is of the whole vocabulary")
        if data.packing != "concat":
            problems.append("data.packing 'paragraph' leaves no text that is not used for training")
        return problems
