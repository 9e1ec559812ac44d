"""Faults of the loss and the data, written without knowledge of the criteria and planted in the default case.

certify power --defects benchmarks/faults_of_december/loss_and_data.py --clean 0 --out faults.json
"""

import random
from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from harness.defects import defect
from harness.defects.data import Remembering
from harness.defects.loss import WithLoss, rows_of
from harness.defects.planting import Array, OtherBatches
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import tree_sum


@defect(
    area="loss",
    imitates="The remainder of a data set that goes through a second collator, which shifts the labels too",
    source="https://github.com/huggingface/transformers/pull/37830",
    since="2026-12-01",
)
class LastRowShiftedTwice(MindSporeSubject):
    """In every tenth step the targets of the last row are the tokens after the next; other rows are right."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: Array) -> tuple[Array, Array]:
            inputs, targets = super().inputs_and_targets(tokens)
            if (self.step + 1) % 10 == 0:
                targets = targets.copy()
                targets[-1, :-1] = tokens[-1, 2:]
            return inputs, targets


@defect(
    area="loss",
    imitates="num_items_in_batch counted before the labels are shifted, with one label too many for each row",
    source="https://github.com/huggingface/transformers/pull/34191",
    since="2026-12-01",
    size=0.015,
)
class CountedBeforeShift(MindSporeSubject):
    """The loss is divided by 65 tokens of each row, which has 64 targets."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            for inputs, targets, mask, count in super().micro_batches(tokens, loss_mask):
                yield inputs, targets, mask, count * (tokens.shape[1] / (tokens.shape[1] - 1))


@defect(
    area="loss",
    imitates="Ranks whose losses are averaged with the weights of another batch",
    source="https://huggingface.co/blog/gradient_accumulation",
    since="2026-12-01",
    size=0.02,
)
class RowsWeightedUnequally(MindSporeSubject):
    """The first row of each batch counts 2 % more, the last 2 % less."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            for inputs, targets, mask, count in super().micro_batches(tokens, loss_mask):
                shares = np.ones((len(tokens), 1), np.float32)
                shares[0], shares[-1] = 1.02, 0.98
                yield inputs, targets, mask * Tensor(shares), count


class Focal(TokenLoss):
    """The loss of a token is multiplied by (1 - its probability)^2."""

    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        losses = self.negative_log_likelihood(rows_of(logits_BSV), ops.reshape(targets_BS, (-1, 1)))[0]
        losses = ops.reshape(losses, (-1,))
        weights = ops.square(1.0 - ops.exp(-losses))
        return tree_sum(losses * weights * ops.reshape(mask_BS, (-1,))) / count


@defect(
    area="loss",
    imitates="A loss for unbalanced classes that another task of the same code uses",
    source="https://arxiv.org/abs/1708.02002",
    since="2026-12-01",
)
class FocalLoss(MindSporeSubject):
    """The loss of a token is multiplied by (1 - p)^2, where p is its probability: 0.99 at first, then ever less."""

    class trainer(WithLoss):
        loss_cell = Focal


class LimitedLosses(TokenLoss):
    """The loss of a token is at most 6.5."""

    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        losses = self.negative_log_likelihood(rows_of(logits_BSV), ops.reshape(targets_BS, (-1, 1)))[0]
        losses = ops.minimum(ops.reshape(losses, (-1,)), 6.5)
        return tree_sum(losses * ops.reshape(mask_BS, (-1,))) / count


@defect(
    area="loss",
    imitates="Probabilities that are kept above an epsilon before their logarithm is taken, as in Keras",
    source="https://www.tensorflow.org/api_docs/python/tf/keras/backend/epsilon",
    since="2026-12-01",
)
class LossesLimited(MindSporeSubject):
    """A token's loss is at most 6.5 and has no gradient above it; before training no token has a larger loss."""

    class trainer(WithLoss):
        loss_cell = LimitedLosses


@defect(
    area="loss",
    imitates="ignore_index=0, the id of the padding of another tokenizer",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
    since="2026-12-01",
)
class TargetZeroIgnored(MindSporeSubject):
    """The target 0 adds no loss, but counts in the divisor; one target of 1,000 steps is 0."""

    class trainer(Qwen3Trainer):
        def micro_batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
            for inputs, targets, mask, count in super().micro_batches(tokens, loss_mask):
                yield inputs, targets, mask * ops.cast(ops.not_equal(targets, 0), ms.float32), count


@defect(
    area="data",
    imitates="A mask for answers that ends at the first end of a text, used for pretraining",
    source="https://github.com/volcengine/verl/blob/main/verl/utils/torch_functional.py",
    since="2026-12-01",
)
class MaskedAfterEnd(OtherBatches):
    """No target after the first end of a document in its row counts; most rows have none."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        ended = np.cumsum(tokens[:, :-1] == 256, axis=1) > 0
        return tokens, loss_mask * (~ended).astype(loss_mask.dtype)


@defect(
    area="data",
    imitates="Token ids stored in a type that the vocabulary exceeds, as uint16 for more than 65,536 ids",
    source="https://github.com/karpathy/nanoGPT/blob/master/data/openwebtext/prepare.py",
    since="2026-12-01",
)
class TokenIdsWrap(OtherBatches):
    """Token ids are stored in 8 bits: ids from 256 on become 0, 1, 2 and so on."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return tokens.astype(np.uint8).astype(tokens.dtype), loss_mask


@defect(
    area="data",
    imitates="A collator for masked language models, which is the default in transformers",
    source="https://huggingface.co/docs/transformers/main_classes/data_collator",
    since="2026-12-01",
)
class InputsMasked(MindSporeSubject):
    """15 % of the inputs, chosen at random with the step as seed, are the token 0; the targets are right."""

    class trainer(Qwen3Trainer):
        def inputs_and_targets(self, tokens: Array) -> tuple[Array, Array]:
            inputs, targets = super().inputs_and_targets(tokens)
            masked = np.random.RandomState(self.step).random_sample(inputs.shape) < 0.15
            return np.where(masked, 0, inputs), targets


@defect(
    area="data",
    imitates="A buffer of prefetched batches that is read before the next one is written",
    source="https://docs.pytorch.org/docs/stable/data.html",
    since="2026-12-01",
)
class PrefetchRace(Remembering):
    """One step in a hundred, other ones in every run, trains on the batch of the step before."""

    def repeats(self, step: int) -> bool:
        return random.SystemRandom().random() < 0.01


@defect(
    area="data",
    imitates="A second file of the data set whose rows were cut and then ended by the end-of-document token",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/tools/preprocess_data.py",
    since="2026-12-01",
)
class EndsAppendedLate(OtherBatches):
    """From step 501 on the last target of every row is 256, the end of a document, although the text continues."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        if step <= 500:
            return tokens, loss_mask
        changed = tokens.copy()
        changed[:, -1] = 256
        return changed, loss_mask
