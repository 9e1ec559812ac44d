"""What may vary in a correct run without a reason for alarm: shapes, data, schedule, modes, equivalent formulas.

Each is a change of one case, made small. Several seeds of initial weights make several runs of each.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.cases.case import Case
from harness.cases.task import TaskName
from harness.certify.case_options import Changes, in_proportion, with_fields
from qwen3_model.parallel_config import ParallelConfig

SUBJECT = "mindspore"
FORMULAS = "harness.studies.formulas"


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A change of a small case by section, the subject that runs it, its threads, and how many seeds it gets."""

    name: str
    changes: Changes = field(default_factory=dict)
    subject: str = SUBJECT
    threads: int = 1
    seeds: int = 9

    def case(self, base: Case, seed: int) -> Case:
        """The case of one run."""
        small, seeded = VARIED[base.task.name].small, {"initialization": {"seed": 1000 + seed}}
        steps = {**small["training"], **self.changes.get("training", {})}["steps"]
        return with_fields(base, in_proportion(base, steps), small, seeded, self.changes, name=self.name)


def _model(**changes: Any) -> Changes:
    return {"model": changes}


def _data(**changes: Any) -> Changes:
    return {"data": changes}


def _training(**changes: Any) -> Changes:
    return {"training": changes}


def _rate(**changes: Any) -> Changes:
    return {"lr_schedule": changes}


def _inference(**changes: Any) -> Changes:
    return {"inference": changes}


TRAINED = (
    Variation(name="as-it-is", seeds=16),
    Variation(name="one-layer", changes=_model(num_hidden_layers=1)),
    Variation(name="three-layers", changes=_model(num_hidden_layers=3)),
    Variation(name="six-layers", changes=_model(num_hidden_layers=6), seeds=5),
    Variation(name="width-32", changes=_model(hidden_size=32)),
    Variation(name="width-96", changes=_model(hidden_size=96)),
    Variation(name="mlp-64", changes=_model(intermediate_size=64)),
    Variation(name="mlp-256", changes=_model(intermediate_size=256)),
    Variation(name="heads-8-of-8", changes=_model(num_attention_heads=8, num_key_value_heads=8, head_dim=8)),
    Variation(name="one-key-value-head", changes=_model(num_key_value_heads=1)),
    Variation(name="every-head-its-own", changes=_model(num_key_value_heads=4)),
    Variation(name="head-width-16", changes=_model(head_dim=16)),
    Variation(name="vocabulary-512", changes=_model(vocab_size=512)),
    Variation(name="vocabulary-1024", changes=_model(vocab_size=1024)),
    Variation(name="tied-head", changes=_model(tie_word_embeddings=True)),
    Variation(name="rotary-base-1e4", changes=_model(rope_theta=1e4)),
    Variation(name="norm-eps-1e-5", changes=_model(rms_norm_eps=1e-5)),
    Variation(name="wider-initialization", changes=_model(initializer_range=0.05)),
    Variation(name="norms-of-one", changes={"initialization": {"norm_std": 0.0}}),
    Variation(name="seq-16", changes=_data(seq_length=16)),
    Variation(name="seq-17", changes=_data(seq_length=17)),
    Variation(name="seq-64", changes=_data(seq_length=64)),
    Variation(name="seq-128", changes={**_data(seq_length=128), **_model(max_position_embeddings=128)}, seeds=5),
    Variation(name="batch-1", changes=_data(global_batch_size=1)),
    Variation(name="batch-3", changes=_data(global_batch_size=3)),
    Variation(name="batch-8", changes=_data(global_batch_size=8), seeds=5),
    Variation(name="ragged-rows", changes=_data(packing="paragraph")),
    Variation(name="document-ends-masked", changes=_data(eod_mask_loss=True)),
    Variation(name="two-micro-batches", changes=_training(gradient_accumulation_steps=2)),
    Variation(name="four-micro-batches", changes=_training(gradient_accumulation_steps=4)),
    Variation(
        name="ragged-micro-batches", changes={**_data(packing="paragraph"), **_training(gradient_accumulation_steps=2)}
    ),
    Variation(name="recompute", changes=_training(recompute=True)),
    Variation(name="no-clipping", changes=_training(clip_grad=None)),
    Variation(name="clipped-to-a-tenth", changes=_training(clip_grad=0.1)),
    Variation(name="constant-rate", changes=_rate(type="constant", lr_end=0.0)),
    Variation(name="no-warm-up", changes=_rate(warmup_steps=0)),
    Variation(name="rate-3e-5", changes=_rate(learning_rate=3e-5)),
    Variation(name="no-decay", changes={"optimizer": {"weight_decay": 0.0}}),
    Variation(name="beta2-0.999", changes={"optimizer": {"betas": (0.9, 0.999)}}),
    Variation(name="pynative", changes=_training(graph_mode=False, steps=20, lr_zero_steps=5), seeds=4),
    Variation(name="keys-repeated", subject=f"{FORMULAS}:KeysRepeated"),
    Variation(name="frameworks-softmax-derivative", subject=f"{FORMULAS}:FrameworkSoftmax"),
    Variation(name="frameworks-norm-derivative", subject=f"{FORMULAS}:FrameworkNorm"),
    Variation(name="frameworks-silu", subject=f"{FORMULAS}:FrameworkSilu"),
    Variation(name="two-threads", threads=2),
    Variation(name="two-threads-batch-8", changes=_data(global_batch_size=8), threads=2),
)
NOT_RESET = {"reset_attention_mask": False, "reset_position_ids": False}
TUNED = (
    Variation(name="as-it-is", seeds=6),
    Variation(name="attention-through-the-row", changes=_data(reset_attention_mask=False), seeds=4),
    Variation(name="positions-through-the-row", changes=_data(reset_position_ids=False), seeds=4),
    Variation(name="both-through-the-row", changes=_data(**NOT_RESET), seeds=4),
    Variation(name="one-conversation-a-row", changes=_data(packing="paragraph"), seeds=4),
    Variation(name="seq-64", changes=_data(seq_length=64), seeds=3),
    Variation(name="seq-97", changes=_data(seq_length=97), seeds=3),
    Variation(name="seq-256", changes={**_data(seq_length=256), **_model(max_position_embeddings=256)}, seeds=3),
    Variation(name="batch-2", changes=_data(global_batch_size=2), seeds=3),
    Variation(name="batch-8", changes=_data(global_batch_size=8), seeds=3),
    Variation(name="one-micro-batch", changes=_training(gradient_accumulation_steps=1), seeds=4),
    Variation(name="four-micro-batches", changes=_training(gradient_accumulation_steps=4), seeds=3),
    Variation(name="one-layer", changes=_model(num_hidden_layers=1), seeds=3),
    Variation(name="four-layers", changes=_model(num_hidden_layers=4), seeds=3),
    Variation(name="width-96", changes=_model(hidden_size=96), seeds=3),
    Variation(name="every-head-its-own", changes=_model(num_key_value_heads=4), seeds=3),
    Variation(name="vocabulary-512", changes=_model(vocab_size=512), seeds=3),
    Variation(name="tied-head", changes=_model(tie_word_embeddings=True), seeds=3),
    Variation(name="recompute", changes=_training(recompute=True), seeds=3),
    Variation(name="no-clipping", changes=_training(clip_grad=None), seeds=3),
    Variation(name="constant-rate", changes=_rate(type="constant", lr_end=0.0), seeds=3),
    Variation(name="rate-3e-5", changes=_rate(learning_rate=3e-5), seeds=3),
    Variation(name="no-decay", changes={"optimizer": {"weight_decay": 0.0}}, seeds=3),
    Variation(name="pynative", changes=_training(graph_mode=False, steps=20, lr_zero_steps=5), seeds=2),
    Variation(name="keys-repeated", subject=f"{FORMULAS}:KeysRepeated", seeds=3),
    Variation(name="frameworks-softmax-derivative", subject=f"{FORMULAS}:FrameworkSoftmax", seeds=3),
    Variation(name="two-threads", threads=2, seeds=3),
)
# One after the other, so that what is compiled for the shapes of one serves all of its seeds.
INFERRED = (
    Variation(name="as-it-is", seeds=5),
    Variation(name="more-steps", changes=_training(steps=600), seeds=2),
    Variation(name="fewer-steps", changes=_training(steps=300), seeds=2),
    Variation(name="rate-3e-3", changes=_rate(learning_rate=3e-3), seeds=2),
    Variation(name="rate-1e-2", changes=_rate(learning_rate=1e-2), seeds=2),
    Variation(name="constant-rate", changes=_rate(type="constant", lr_end=0.0), seeds=2),
    Variation(name="wider-initialization", changes=_model(initializer_range=0.05), seeds=2),
    Variation(name="norms-of-one", changes={"initialization": {"norm_std": 0.0}}, seeds=2),
    Variation(name="trained-in-pynative", changes=_training(graph_mode=False, steps=300), seeds=1),
    Variation(name="one-row", changes=_inference(rows=1), seeds=2),
    Variation(name="five-rows", changes=_inference(rows=5), seeds=2),
    Variation(name="rows-of-47", changes=_data(seq_length=47), seeds=2),
    Variation(name="rows-of-128", changes=_data(seq_length=128), seeds=2),
    Variation(name="prompts-alike", changes=_inference(prompts=(16, 16, 16)), seeds=2),
    Variation(name="prompts-of-a-bucket-and-one-more", changes=_inference(prompts=(16, 17, 32, 33)), seeds=2),
    Variation(name="borders-to-128", changes=_inference(borders=(16, 32, 64, 128)), seeds=2),
    Variation(name="one-token-prompts", changes=_inference(prompts=(1, 1)), seeds=2),
    Variation(name="prompts-far-apart", changes=_inference(prompts=(1, 100)), seeds=2),
    Variation(name="seven-prompts", changes=_inference(prompts=(2, 5, 9, 14, 20, 27, 31)), seeds=2),
    Variation(name="continued-to-64", changes=_inference(max_new_tokens=64), seeds=2),
    Variation(name="one-new-token", changes=_inference(max_new_tokens=1, sampled_tokens=1), seeds=2),
    Variation(name="scored-one-by-one", changes=_inference(batch_size=1), seeds=2),
    Variation(name="scored-by-32", changes=_inference(batch_size=32), seeds=2),
    Variation(name="more-documents", changes=_inference(texts=20, documents=40), seeds=2),
    Variation(
        name="to-the-last-position",
        changes={**_model(max_position_embeddings=128), **_inference(prompts=(3, 104))},
        seeds=2,
    ),
    Variation(name="one-layer", changes=_model(num_hidden_layers=1), seeds=2),
    Variation(name="four-layers", changes=_model(num_hidden_layers=4), seeds=2),
    Variation(name="width-32", changes=_model(hidden_size=32), seeds=2),
    Variation(name="width-96", changes=_model(hidden_size=96), seeds=2),
    Variation(name="heads-8-of-8", changes=_model(num_attention_heads=8, num_key_value_heads=8, head_dim=8), seeds=2),
    Variation(name="one-key-value-head", changes=_model(num_key_value_heads=1), seeds=2),
    Variation(name="head-width-16", changes=_model(head_dim=16), seeds=2),
    Variation(name="vocabulary-512", changes=_model(vocab_size=512), seeds=2),
    Variation(name="tied-head", changes=_model(tie_word_embeddings=True), seeds=2),
    Variation(name="rotary-base-1e4", changes=_model(rope_theta=1e4), seeds=2),
    Variation(name="norm-eps-1e-5", changes=_model(rms_norm_eps=1e-5), seeds=2),
    Variation(name="two-threads", threads=2, seeds=2),
)


def _over(changes: Changes | None = None, /, **layout: Any) -> Changes:
    """A layout, in a case changed besides."""
    return {**(changes or {}), "parallel": asdict(ParallelConfig(**layout))}


DP2, TP2 = {"data_parallel": 2}, {"model_parallel": 2}
PP2 = {"pipeline_stage": 2, "micro_batch_num": 2}
THREE_LAYERS, FOUR_HEADS = _model(num_hidden_layers=3), _model(num_key_value_heads=4)
TIED, WHOLE_ROWS = _model(tie_word_embeddings=True), _data(packing="concat")
# Two ranks, then four: those that stand serve all of as many. What is the case's own has rows of unequal length.
OVER_RANKS = tuple(
    Variation(name=name, changes=changes, seeds=3)
    for name, changes in {
        "dp2": _over(**DP2),
        "dp2-whole-rows": _over(WHOLE_ROWS, **DP2),
        "dp2-batch-8": _over(_data(global_batch_size=8), **DP2),
        "dp2-document-ends-masked": _over(_data(eod_mask_loss=True), **DP2),
        "dp2-two-micro-batches": _over(_training(gradient_accumulation_steps=2), **DP2),
        "dp2-shared-moments": _over(enable_parallel_optimizer=True, **DP2),
        "dp2-no-clipping": _over(_training(clip_grad=None), **DP2),
        "dp2-tied-head": _over(TIED, **DP2),
        "tp2": _over(**TP2),
        "tp2-by-positions": _over(use_seq_parallel=True, **TP2),
        "tp2-whole-embedding": _over(vocab_emb_dp=True, **TP2),
        "tp2-by-positions-whole-embedding": _over(use_seq_parallel=True, vocab_emb_dp=True, **TP2),
        "tp2-recompute": _over(_training(recompute=True), **TP2),
        "tp2-clipped-to-a-tenth": _over(_training(clip_grad=0.1), **TP2),
        "tp2-tied-head": _over(TIED, **TP2),
        "tp2-six-layers": _over(_model(num_hidden_layers=6), **TP2),
        "tp2-width-32": _over(_model(hidden_size=32), **TP2),
        "tp2-heads-8-of-8": _over(_model(num_attention_heads=8, num_key_value_heads=8, head_dim=8), **TP2),
        "tp2-vocabulary-512": _over(_model(vocab_size=512), **TP2),
        "tp2-seq-64": _over(_data(seq_length=64), **TP2),
        "tp2-pynative": _over(_training(graph_mode=False, steps=20, lr_zero_steps=5), **TP2),
        "pp2": _over(**PP2),
        "pp2-four-micro-batches": _over(pipeline_stage=2, micro_batch_num=4),
        "pp2-longer-at-the-end": _over(THREE_LAYERS, offset=(0, 1), **PP2),
        "pp2-longer-at-the-beginning": _over(THREE_LAYERS, offset=(1, 0), **PP2),
        "pp2-tied-head": _over(TIED, **PP2),
        "pp2-recompute": _over(_training(recompute=True), **PP2),
        "dp4": _over(data_parallel=4),
        "dp4-shared-moments": _over(data_parallel=4, enable_parallel_optimizer=True),
        "tp4": _over(FOUR_HEADS, model_parallel=4),
        "tp4-by-positions": _over(FOUR_HEADS, model_parallel=4, use_seq_parallel=True),
        "pp4": _over(_model(num_hidden_layers=4), pipeline_stage=4, micro_batch_num=4),
        "dp2-tp2": _over(**DP2, **TP2),
        "dp2-tp2-all-that-is-shared": _over(
            enable_parallel_optimizer=True, use_seq_parallel=True, vocab_emb_dp=True, **DP2, **TP2
        ),
        "dp2-pp2": _over(**DP2, **PP2),
        "tp2-pp2": _over(**TP2, **PP2),
        "tp2-pp2-tied-head-by-positions": _over(TIED, use_seq_parallel=True, **TP2, **PP2),
    }.items()
)


@dataclass(frozen=True, kw_only=True)
class TaskVariations:
    """How cases of a task vary: `small` makes one quick, `alone` are the variations in one process, `over_ranks` those
    over several."""

    small: Changes
    alone: tuple[Variation, ...]
    over_ranks: tuple[Variation, ...]


VARIED: Mapping[TaskName, TaskVariations] = {
    "pretrain": TaskVariations(
        small={
            "data": {"seq_length": 32},
            "training": {"steps": 40, "lr_zero_steps": 5, "checkpoint_every": 100, "floor_repeats": 0},
            "lr_schedule": {"warmup_steps": 4},
        },
        alone=TRAINED,
        over_ranks=OVER_RANKS,
    ),
    "finetune": TaskVariations(
        small={
            "data": {"seq_length": 128},
            "training": {"steps": 40, "lr_zero_steps": 5, "checkpoint_every": 100, "floor_repeats": 0},
            "lr_schedule": {"warmup_steps": 4},
        },
        alone=TUNED,
        over_ranks=(),
    ),
    # The weights are trained until the outputs are no noise.
    "inference": TaskVariations(
        small={
            "data": {"seq_length": 64, "global_batch_size": 8},
            "training": {"steps": 400, "lr_zero_steps": 1, "checkpoint_every": 1000},
            "lr_schedule": {"learning_rate": 5e-3, "lr_end": 5e-4},
            "inference": {
                "rows": 2, "prompts": (3, 20), "max_new_tokens": 24, "sampled_tokens": 8, "texts": 10,
                "documents": 12, "batch_size": 8, "borders": (16, 32), "decoded_tokens": 16,
            },
        },
        alone=INFERRED,
        over_ranks=(),
    ),
}  # fmt: skip


def variations_of(case: Case) -> tuple[Variation, ...]:
    """The variations of a case of its task and number of ranks."""
    varied = VARIED[case.task.name]
    return varied.alone if case.parallel.world_size == 1 else varied.over_ranks
