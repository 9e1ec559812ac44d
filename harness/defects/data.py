"""Defects of the data: the subject trains on other batches than the given ones, as with a faulty data loader.

A run records the digest of the given batch, so only the numbers can show the fault. A wrong order of the rows within a
batch is not in the catalogue: the loss is a mean over them.
"""

from abc import abstractmethod

import numpy as np

from harness.cases.case import Case
from harness.defects import defect
from harness.defects.planting import Array, OtherBatches
from harness.runners.protocol import Setting, Tensors


class Remembering(OtherBatches):
    """Keeps the previous batch, and repeats it in some steps."""

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        super().__init__(case, weights, setting)
        self.before: tuple[int, Array, Array] | None = None

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        before, self.before = self.before, (step, tokens, loss_mask)
        return (before[1], before[2]) if before and before[0] < step and self.repeats(step) else (tokens, loss_mask)

    @abstractmethod
    def repeats(self, step: int) -> bool: ...


@defect(
    area="data",
    imitates="A loader that returns one batch twice after a restart",
    source="https://docs.pytorch.org/docs/stable/data.html",
    since="2026-11-24",
)
class BatchRepeated(Remembering):
    """Step 3 trains on the batch of step 2."""

    def repeats(self, step: int) -> bool:
        return step == 3


@defect(
    area="data",
    imitates="A prefetch that is one batch behind",
    source="https://docs.pytorch.org/docs/stable/data.html",
    since="2026-11-24",
)
class BatchesLate(Remembering):
    """Every step but the first trains on the batch of the step before."""

    def repeats(self, step: int) -> bool:
        return True


@defect(
    area="data",
    imitates="A last batch that is filled up with earlier samples",
    source="https://docs.pytorch.org/docs/stable/data.html",
    since="2026-11-24",
)
class LastBatchReplaced(Remembering):
    """The last step trains on the previous batch; only that step can show it."""

    def repeats(self, step: int) -> bool:
        return step == self._case.training.steps


@defect(
    area="data",
    imitates="A batch that is filled up with its first sample, as a distributed sampler pads the remainder",
    source="https://github.com/pytorch/pytorch/blob/main/torch/utils/data/distributed.py",
    since="2026-11-24",
)
class LastRowReplaced(OtherBatches):
    """The last row of every batch is its first."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        rows = np.arange(len(tokens))
        rows[-1] = 0
        return tokens[rows], loss_mask[rows]


@defect(
    area="data",
    imitates="A sampler without a rank, so that both halves of the batch are the same",
    source="https://docs.pytorch.org/docs/stable/data.html",
    since="2026-11-24",
)
class RanksReadTheSame(OtherBatches):
    """The second half of every batch repeats the first."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        rows = np.arange(len(tokens)) % max(1, len(tokens) // 2)
        return tokens[rows], loss_mask[rows]


@defect(
    area="data",
    imitates="A sample that begins one token too late in its document",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
    since="2026-11-24",
)
class RowsShifted(OtherBatches):
    """Every row begins with its second token and ends with its first."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return np.roll(tokens, -1, axis=1), loss_mask


@defect(
    area="data",
    imitates="One damaged byte in a file of tokens",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py",
    since="2026-11-24",
)
class OneTokenOff(OtherBatches):
    """In step 3 the second token of the first row is off by one; all other steps are right."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        changed = tokens.copy()
        if step == 3:
            changed[0, 1] = abs(int(tokens[0, 1]) - 1)
        return changed, loss_mask


@defect(
    area="data",
    imitates="eod_mask_loss set on one side only, so that the target after the end of a document does not count",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
    since="2026-11-24",
)
class LineEndsMasked(OtherBatches):
    """Targets that follow a line's end do not count, as if it ended a document."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return tokens, loss_mask * (tokens[:, :-1] != ord("\n")).astype(loss_mask.dtype)


@defect(
    area="data",
    imitates="A pad token that is also the end-of-document token, so that none of its labels counts",
    source="https://github.com/huggingface/transformers/issues/23530",
    reported="2023-05-20",
    since="2026-11-24",
    case="qwen3-tied-fp32",
)
class EndOfDocumentNeverLearned(OtherBatches):
    """The end of a document is masked as a target, like the padding with the same id."""

    def batch(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return tokens, loss_mask * (tokens[:, 1:] != self.end).astype(loss_mask.dtype)

    end = 256
