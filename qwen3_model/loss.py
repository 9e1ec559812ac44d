"""The masked token loss."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from qwen3_model.derivatives import NegativeLogLikelihood
from qwen3_model.optimizer import tree_sum


class TokenLoss(nn.Cell):
    """sum over tokens of mask * -log softmax(logits)[target], divided by `count`; float32.

    `count` is the global batch's, so the losses of micro-batches add up to the loss of the batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.negative_log_likelihood = NegativeLogLikelihood()

    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        logits = ops.cast(ops.reshape(logits_BSV, (-1, logits_BSV.shape[-1])), ms.float32)
        losses = self.negative_log_likelihood(logits, ops.reshape(targets_BS, (-1, 1)))[0]
        return tree_sum(ops.reshape(losses, (-1,)) * ops.reshape(mask_BS, (-1,))) / count
