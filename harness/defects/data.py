"""Defects of the data: the subject trains on other batches than it is handed, as a wrong loader of its own would.

The batch that a run digests is the one that it was handed, so only the numbers can tell. A faulty order of the rows
within a batch is left out: the loss is a mean over them.
"""

from abc import abstractmethod

import numpy as np

from harness.cases.case import Case
from harness.defects import defect
from harness.defects.planting import Array, FedWrongly
from harness.runners.protocol import Setting, Tensors


class Remembering(FedWrongly):
    """Knows the batch before."""

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        super().__init__(case, weights, setting)
        self.before: tuple[int, Array, Array] | None = None

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        before, self.before = self.before, (step, tokens, loss_mask)
        return (before[1], before[2]) if before and before[0] < step and self.again(step) else (tokens, loss_mask)

    @abstractmethod
    def again(self, step: int) -> bool: ...


@defect(
    area="data",
    imitates="A loader that hands out one batch twice after it was started anew",
    source="https://docs.pytorch.org/docs/stable/data.html",
)
class BatchRepeated(Remembering):
    """Step 3 trains on the batch of step 2."""

    def again(self, step: int) -> bool:
        return step == 3


@defect(
    area="data",
    imitates="A prefetch that is one batch behind",
    source="https://docs.pytorch.org/docs/stable/data.html",
)
class BatchesLate(Remembering):
    """Every step but the first trains on the batch of the step before."""

    def again(self, step: int) -> bool:
        return True


@defect(
    area="data",
    imitates="A last batch that is filled up with samples that were seen already",
    source="https://docs.pytorch.org/docs/stable/data.html",
)
class LastBatchReplaced(Remembering):
    """The last step trains on the batch before; one step alone can show it."""

    def again(self, step: int) -> bool:
        return step == self._case.training.steps


@defect(
    area="data",
    imitates="A batch that is filled up with its first sample, as a distributed sampler fills up a rest",
    source="https://github.com/pytorch/pytorch/blob/main/torch/utils/data/distributed.py",
)
class LastRowReplaced(FedWrongly):
    """The last row of every batch is its first."""

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        rows = np.arange(len(tokens))
        rows[-1] = 0
        return tokens[rows], loss_mask[rows]


@defect(
    area="data",
    imitates="A sampler that was given no rank, so that each half of the batch is the same",
    source="https://docs.pytorch.org/docs/stable/data.html",
)
class RanksReadTheSame(FedWrongly):
    """The second half of every batch repeats the first."""

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        rows = np.arange(len(tokens)) % max(1, len(tokens) // 2)
        return tokens[rows], loss_mask[rows]


@defect(
    area="data",
    imitates="A sample that begins one token too late in its document",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
)
class RowsShifted(FedWrongly):
    """Every row begins with its second token and ends with its first."""

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return np.roll(tokens, -1, axis=1), loss_mask


@defect(
    area="data",
    imitates="One damaged byte in a file of tokens",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py",
)
class OneTokenOff(FedWrongly):
    """In step 3 the second token of the first row is the id before it; before and after, all is right."""

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        changed = tokens.copy()
        if step == 3:
            changed[0, 1] = abs(int(tokens[0, 1]) - 1)
        return changed, loss_mask


@defect(
    area="data",
    imitates="eod_mask_loss set on one side only, so that what follows the end of a document does not count",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
)
class LineEndsMasked(FedWrongly):
    """Targets that follow a line's end do not count, as if it ended a document."""

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return tokens, loss_mask * (tokens[:, :-1] != ord("\n")).astype(loss_mask.dtype)


@defect(
    area="data",
    imitates="A pad token that is also the end-of-document token, so that no label of it is left",
    source="https://github.com/huggingface/transformers/issues/23530",
    case="qwen3-tied-fp32",
)
class EndOfDocumentNeverLearned(FedWrongly):
    """The end of a document is masked as a target like the padding that has the same id."""

    def fed(self, step: int, tokens: Array, loss_mask: Array) -> tuple[Array, Array]:
        return tokens, loss_mask * (tokens[:, 1:] != self.end).astype(loss_mask.dtype)

    end = 256
