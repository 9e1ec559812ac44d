"""Defects of fine-tuning: which tokens of a conversation count, how it is rendered, and where a packed document ends.

Ids are those of the byte tokenizer with ChatML.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from harness.defects import defect
from harness.defects.planting import Array, ChangedModel, OtherBatches, exchange, layers
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3 import DocumentBoundaries, PlainAttention, Qwen3ForCausalLM
from qwen3_model.modeling_qwen3_train import Qwen3Trainer

EOD, BEGIN, END = 256, 257, 258  # of a document; of a message, its begin and its end
NEW_LINE = ord("\n")
SYSTEM = np.frombuffer(b"system\n", np.uint8)


class OtherAnswers(OtherBatches, ABC):
    """The loss counts the targets of `counted`."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return tokens, self.counted(tokens, loss_mask > 0).astype(loss_mask.dtype)

    @abstractmethod
    def counted(self, tokens: Array, answers: Array) -> Array:
        """The targets that count, of tokens [B, S + 1] and of the targets that are an answer's [B, S]."""


def later(x: Array) -> Array:
    """Each value one place to the right; nothing before the first."""
    moved: Array = np.pad(x, ((0, 0), (1, 0)))[:, :-1]
    return moved


@defect(
    area="finetune",
    imitates="A mask of the labels applied to the inputs, so that it is one place off",
    source="https://github.com/OpenRLHF/OpenRLHF/issues/973",
    reported="2025-04-17",
    since="2026-11-30",
)
class AnswerMaskShifted(OtherAnswers):
    """The mask is one place late: the first token of an answer does not count, and the one after its end does."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        return later(answers)


@defect(
    area="finetune",
    imitates="Training on whole conversations where only completions were to count",
    source="https://github.com/karpathy/nanochat/issues/570",
    reported="2026-02-27",
    since="2026-11-30",
)
class PromptCounted(OtherAnswers):
    """Every token of a conversation counts; padding does not."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        return tokens[:, 1:] != EOD


@defect(
    area="finetune",
    imitates="Padding whose labels are not the index that the loss ignores",
    source="https://github.com/huggingface/transformers/issues/24725",
    since="2026-11-30",
)
class PaddingCountedWithAnswers(OtherAnswers):
    """The padding after the last conversation of a row counts, besides the answers."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        return answers | ((tokens[:, 1:] == EOD) & (tokens[:, :-1] == EOD))


@defect(
    area="finetune",
    imitates="An end token that is also the padding and masked with it, so that a model never learns to stop",
    source="https://github.com/huggingface/trl/issues/976",
    reported="2023-11-09",
    since="2026-11-30",
)
class AnswerEndNotLearned(OtherAnswers):
    """The token that ends an answer does not count."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        return answers & (tokens[:, 1:] != END)


@defect(
    area="finetune",
    imitates="Answers marked up to the end of the turn, with the line break that no model writes",
    source="https://github.com/huggingface/transformers/pull/30650",
    since="2026-11-30",
)
class LineBreakAfterAnswerCounted(OtherAnswers):
    """The line break after an answer counts with it."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        return answers | (later(answers) & (tokens[:, :-1] == END))


@defect(
    area="finetune",
    imitates="A response template that begins at the role, so that the header counts as part of the answer",
    source="https://github.com/huggingface/trl/pull/4201",
    reported="2025-10-03",
    since="2026-11-30",
)
class AnswerHeaderCounted(OtherAnswers):
    """The line break between the role and the answer counts with the answer."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        before = np.pad(answers, ((0, 0), (0, 1)))[:, 1:]
        return answers | before


@defect(
    area="finetune",
    imitates="A last token that is cut off for the shift once by the data and again by the loss",
    source="https://github.com/huggingface/transformers/pull/37830",
    since="2026-11-30",
)
class LastAnswerTokenDropped(OtherAnswers):
    """The last target of a row that counts does not count."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        rows, places = np.arange(len(answers)), np.arange(answers.shape[1])
        last = np.where(answers, places, -1).max(axis=1)
        kept = answers.copy()
        kept[rows[last >= 0], last[last >= 0]] = False
        return kept


@defect(
    area="finetune",
    imitates="A mask of the last answer only, as for a single turn, in conversations of several",
    source="https://github.com/NVIDIA-NeMo/RL/pull/2268",
    since="2026-11-30",
)
class LastTurnOnly(OtherAnswers):
    """In each row only the last answer counts."""

    def counted(self, tokens: Array, answers: Array) -> Array:
        begins = np.cumsum(answers & ~later(answers), axis=1)
        return answers & (begins == begins[:, -1:])


@defect(
    area="finetune",
    imitates="A chat template that leaves out the message of the system",
    source="https://huggingface.co/docs/transformers/chat_templating",
    since="2026-11-30",
)
class SystemMessageLeftOut(OtherBatches):
    """Conversations are rendered without the message of the system; rows are filled up with padding."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        changed, counted = tokens.copy(), np.pad(loss_mask, ((0, 0), (1, 0)))
        for row, ids in enumerate(tokens):
            kept = np.ones(len(ids), np.bool_)
            for begin in np.flatnonzero(ids == BEGIN):
                if np.array_equal(ids[begin + 1 : begin + 1 + len(SYSTEM)], SYSTEM):
                    kept[begin : begin + int(np.argmax(ids[begin:] == END)) + 2] = False
            missing = np.count_nonzero(~kept)
            changed[row] = np.concatenate([ids[kept], np.full(missing, EOD, ids.dtype)])
            counted[row] = np.concatenate([counted[row][kept], np.zeros(missing, counted.dtype)])
        return changed, counted[:, 1:]


@defect(
    area="finetune",
    imitates="Answers that end with the base model's end of text where the chat model has a token of its own",
    source="https://github.com/hiyouga/LlamaFactory/issues/7454",
    reported="2025-03-24",
    since="2026-11-30",
)
class WrongEndToken(MindSporeSubject):
    """The target at the end of an answer is the end of a document; inputs are as they should be."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: Array) -> tuple[Array, Array]:
            inputs, targets = super().inputs_and_targets(tokens)
            return inputs, np.where(targets == END, EOD, targets)


@defect(
    area="finetune",
    imitates="Labels that are shifted neither by the data nor by the loss, because each relies on the other",
    source="https://github.com/huggingface/transformers/issues/27517",
    reported="2023-11-15",
    since="2026-11-30",
)
class AnswersNotShifted(MindSporeSubject):
    """The target of a position is its own token; the mask is as it should be."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: Array) -> tuple[Array, Array]:
            return tokens[:, :-1], tokens[:, :-1]


@defect(
    area="finetune",
    imitates="A mean over the answers of each row and then over the rows, which favours the tokens of short answers",
    source="https://github.com/huggingface/transformers/issues/24725",
    since="2026-11-30",
)
class RowsWeighAlike(MindSporeSubject):
    """The loss is the mean over rows of the mean over each row's answers."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            rows = np.count_nonzero(loss_mask.any(axis=1))
            for inputs, targets, mask, count in super().micro_batches(tokens, loss_mask):
                share = count / rows / ops.maximum(mask.sum(-1, keepdims=True), Tensor(1.0, ms.float32))
                yield inputs, targets, mask * share, count


@defect(
    area="finetune",
    imitates="Gradient accumulation that averages the means of micro-batches with unequal numbers of answer tokens",
    source="https://github.com/ml-explore/mlx-lm/pull/1413",
    reported="2026-06-18",
    since="2026-11-30",
)
class MicroBatchesWeighAlike(MindSporeSubject):
    """Each micro-batch divides by the answer tokens of its own."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            for inputs, targets, mask, _ in super().micro_batches(tokens, loss_mask):
                yield inputs, targets, mask, mask.sum() * self.gradient_accumulation_steps


@defect(
    area="finetune",
    imitates="A loss divided by all positions of a batch, whatever the mask",
    source="https://huggingface.co/blog/gradient_accumulation",
    since="2026-11-30",
)
class DividedByAllPositions(MindSporeSubject):
    """The sum over answers is divided by the number of positions, with prompts and padding."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            for inputs, targets, mask, _ in super().micro_batches(tokens, loss_mask):
                yield inputs, targets, mask, Tensor(loss_mask.size, ms.float32)


class OtherDocuments(Qwen3Trainer):
    """Does not reset one of what the case resets; `kept` is that field of `Documents`."""

    kept: str

    def build_model(self) -> Qwen3ForCausalLM:
        assert self.documents is not None, "a case whose rows hold several documents"
        return Qwen3ForCausalLM(self.config, self.policy, dataclasses.replace(self.documents, **{self.kept: False}))


@defect(
    area="finetune",
    imitates="Packed rows with the causal mask alone, so that a conversation sees those before it",
    source="https://github.com/huggingface/transformers/pull/31629",
    since="2026-11-30",
    place="model.layers.0.self_attn",
    direction="forward",
)
class BoundaryLeaked(MindSporeSubject):
    """Attention goes beyond the beginning of a conversation; positions start again there."""

    class trainer(OtherDocuments):
        kept = "reset_attention_mask"


class CausalOnly(PlainAttention):
    """Takes a mask and does not use it."""

    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.masked(query_BNSH, key_BKSH, value_BKSH, self.causal_mask(query_BNSH.shape[2]))


@defect(
    area="finetune",
    imitates="A mask that does not reach every layer, as where some are recomputed or have another kind of attention",
    source="https://github.com/huggingface/transformers/pull/31629",
    since="2026-11-30",
    place="model.layers.1.self_attn",
    direction="forward",
)
class BoundaryLeakedInLastLayer(MindSporeSubject):
    """In the last layer attention goes beyond the beginning of a conversation."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            *_, (_, last) = layers(model)
            last.self_attn.attend = CausalOnly(self.config, self.policy)


class EndBeginsDocument(DocumentBoundaries):
    def document(self, tokens_BS: Tensor) -> Tensor:
        return ops.cumsum(self.ended(tokens_BS), 1)


class OtherBoundaries(ChangedModel):
    """Finds the documents of a row by another cell."""

    boundaries: type[DocumentBoundaries]

    def change(self, model: Qwen3ForCausalLM) -> None:
        assert self.documents is not None, "a case whose rows hold several documents"
        exchange(model, "model.boundaries", self.boundaries(self.documents))


@defect(
    area="finetune",
    imitates="Boundaries set before the end token and not after it",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
    since="2026-11-30",
    place="model.layers.0.self_attn",
    direction="forward",
)
class EndBelongsToNextDocument(MindSporeSubject):
    """The end of a conversation is the first token of the next one."""

    class trainer(OtherBoundaries):
        boundaries = EndBeginsDocument


class LateTables(DocumentBoundaries):
    def positions(self, own_BSS: Tensor) -> Tensor:
        places = ops.cumsum(ops.ones_like(own_BSS[:, :, 0]), 1) - 1.0
        within = ops.sum(own_BSS, -1) - 1.0
        return ops.cast(ops.where(within == 0.0, places, within), ms.int32)


@defect(
    area="finetune",
    imitates="Positions that are reset at the second token of a document",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
    since="2026-11-30",
    place="model.layers.0.self_attn",
    direction="forward",
)
class PositionsResetLate(MindSporeSubject):
    """The first token of a conversation still has the position that the row counts."""

    class trainer(OtherBoundaries):
        boundaries = LateTables


@defect(
    area="finetune",
    imitates="Packed rows whose positions count through",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
    since="2026-11-30",
    place="model.layers.0.self_attn",
    direction="forward",
    case="qwen3-tiny-sft-positions-fp32",
)
class PositionsNotReset(MindSporeSubject):
    """Positions count from the beginning of the row.

    Where attention is kept within a conversation this changes nothing but roundings, because only distances matter. So
    it is planted in a case whose attention goes through the row.
    """

    class trainer(OtherDocuments):
        kept = "reset_position_ids"
