"""Faults of gradients and clipping, written without knowledge of the criteria and planted in the default case.

certify power --defects benchmarks/faults_of_december/gradients.py --clean 0 --out faults.json
"""

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from harness.defects import defect
from harness.defects.clipping import WithClip
from harness.defects.gradients import OneChanged
from harness.defects.loss import WithLoss
from harness.defects.planting import Array, ChangedGradients, ChangedModel, WithGradients, WithOptimizer, exchange, low
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.derivatives import RMSNormalize
from qwen3_model.loss import TokenLoss
from qwen3_model.modeling_qwen3 import PlainAttention, Qwen3ForCausalLM, Qwen3MLP
from qwen3_model.optimizer import AdamW, AdamWConfig, ClipByGlobalNorm, decays
from qwen3_model.precision_policy import PrecisionPolicy


class LeavesGradient(AdamW):
    """Every 25 steps one gradient is added to that of the step before. The fourth scalar is the step."""

    def __init__(
        self, parameters: Sequence[Parameter], config: AdamWConfig, decays: Callable[[str], bool] = decays
    ) -> None:
        super().__init__(parameters, config, decays)
        self.number = [parameter.name for parameter in parameters].index("model.layers.0.self_attn.q_proj.weight")
        self.before = Parameter(ops.zeros_like(parameters[self.number]), name="gradient_before", requires_grad=False)

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        left = self.before * ops.cast(ops.equal(ops.floor_mod(scalars[3], 25.0), 0.0), ms.float32)
        gradient = gradients[self.number]
        changed = (*gradients[: self.number], gradient + left, *gradients[self.number + 1 :])
        ops.assign(self.before, gradient)
        return super().construct(changed, scale, scalars)


@defect(
    area="gradients",
    imitates="A buffer of gradients that is not zeroed after the step that writes a log",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html",
    since="2026-12-01",
)
class NotZeroedEveryTwentyFifth(MindSporeSubject):
    """In every 25th step the query projection of layer 0 is updated by the sum of its last two gradients."""

    class trainer(WithOptimizer):
        optimizer_cell = LeavesGradient

        def scalars(self, step: int) -> Array:
            return np.append(super().scalars(step), np.float32(step))


class ByFrequency(ChangedGradients):
    """Divides the gradient of a token's embedding by how often the token occurs in the batch."""

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        loss, gradients = self.grad(tokens_BS, targets_BS, mask_BS, count)
        ids = ops.arange(gradients[0].shape[0])
        occurs = ops.cast(ops.equal(ops.reshape(tokens_BS, (-1, 1)), ops.reshape(ids, (1, -1))), ms.float32)
        times = ops.maximum(ops.sum(occurs, 0), 1.0)
        return loss, (gradients[0] / ops.reshape(times, (-1, 1)), *gradients[1:])


@defect(
    area="gradients",
    imitates="scale_grad_by_freq=True of torch's embedding",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html",
    since="2026-12-01",
    place="model.embed_tokens.weight",
    direction="backward",
)
class EmbeddingGradientByFrequency(MindSporeSubject):
    """The gradient of each token's embedding is divided by how often the token occurs in the batch."""

    class trainer(WithGradients):
        gradients_cell = ByFrequency


class FirstOfTheGroup(PlainAttention):
    """Keys and values get the gradient of the first query head of their group only."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        self.repeats = True

    def repeat(self, x_BKSH: Tensor) -> Tensor:
        B, K, S, H = x_BKSH.shape
        first = ops.expand_dims(x_BKSH, 2)
        others = ops.broadcast_to(ops.stop_gradient(first), (B, K, self.groups - 1, S, H))
        return ops.reshape(ops.cat((first, others), 2), (B, K * self.groups, S, H))


@defect(
    area="gradients",
    imitates="A backward pass for grouped queries that writes the gradients of keys where it has to add them",
    source="https://arxiv.org/abs/2305.13245",
    since="2026-12-01",
    place="model.layers.1.self_attn",
    direction="backward",
)
class GroupGradientOfOneHead(MindSporeSubject):
    """In layer 1 keys and values get the gradient of one of the 2 query heads that share them."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[1].self_attn.attend = FirstOfTheGroup(self.config, self.policy)


class KeptLow(nn.Cell):
    """The product of two tensors, which are kept in bfloat16 for the derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.low = low()

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y

    def bprop(self, x: Tensor, y: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return dout * self.low(y), dout * self.low(x)


class KeepsLow(Qwen3MLP):
    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        self.product = KeptLow()

    def construct(self, hidden_BSD: Tensor) -> Tensor:
        return self.down_proj(self.product(self.silu(self.gate_proj(hidden_BSD)), self.up_proj(hidden_BSD)))


@defect(
    area="gradients",
    imitates="Activations that are computed again in bfloat16, because the context of precision is not restored",
    source="https://docs.pytorch.org/docs/stable/checkpoint.html",
    since="2026-12-01",
    place="model.layers.0.mlp",
    direction="backward",
)
class ActivationsKeptBfloat16(MindSporeSubject):
    """The derivative of the product of gate and up projection in layer 0 takes both rounded to bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.0.mlp", KeepsLow(self.config, self.policy))


class WithoutLastToken(RMSNormalize):
    def column_sum(self, x: Tensor) -> Tensor:
        return self.sum(x[:-1], 0)


@defect(
    area="gradients",
    imitates="A kernel for the gradient of a norm's weight that sums one row too few",
    source="https://github.com/NVIDIA/apex/blob/master/csrc/layer_norm_cuda_kernel.cu",
    since="2026-12-01",
    place="model.norm.weight",
    direction="backward",
)
class NormGradientWithoutLastToken(MindSporeSubject):
    """The gradient of the final norm's weight omits the last token of the batch, one of 256."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.norm.normalize = WithoutLastToken(self.config.rms_norm_eps)


class HalfBackward(nn.Cell):
    """Its input; the derivative is rounded to float16."""

    def construct(self, x: Tensor) -> Tensor:
        return x + 0.0

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (ops.cast(ops.cast(dout, ms.float16), ms.float32),)


class HalfGradient(TokenLoss):
    def __init__(self) -> None:
        super().__init__()
        self.half = HalfBackward()

    def construct(self, logits_BSV: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        return super().construct(self.half(logits_BSV), targets_BS, mask_BS, count)


@defect(
    area="gradients",
    imitates="Training in half precision without a loss scale",
    source="https://arxiv.org/abs/1710.03740",
    since="2026-12-01",
)
class LogitsGradientFloat16(MindSporeSubject):
    """The gradient of the logits is rounded to float16, whose step near zero is 6e-8."""

    class trainer(WithLoss):
        loss_cell = HalfGradient


class Shifted(OneChanged):
    prefix = "model.layers.1.self_attn.k_norm.weight"

    def of(self, gradient: Tensor) -> Tensor:
        return ops.cat((gradient[1:], gradient[:1]), 0)


@defect(
    area="gradients",
    imitates="A view into a buffer of gradients that starts one element too late",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/distributed/param_and_grad_buffer.py",
    since="2026-12-01",
    place="model.layers.1.self_attn.k_norm.weight",
    direction="backward",
)
class BufferOffsetByOne(MindSporeSubject):
    """Each element of the k norm of layer 1 has the gradient of the next element."""

    class trainer(WithGradients):
        gradients_cell = Shifted


class OfLargestElement(ClipByGlobalNorm):
    """The norm is the size of the largest element."""

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm = ops.amax(ops.stack([ops.amax(ops.abs(gradient)) for gradient in gradients]))
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)


@defect(
    area="clipping",
    imitates="norm_type=inf of torch's clip_grad_norm_",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
    since="2026-12-01",
)
class InfinityNorm(MindSporeSubject):
    """The norm of the gradients is the size of their largest element, so nothing is clipped."""

    class trainer(WithClip):
        clip_cell = OfLargestElement


class ClipsDecayed(AdamW):
    """The factor scales only the gradients of parameters that decay."""

    def construct(self, gradients: tuple[Tensor, ...], scale: Tensor, scalars: Tensor) -> bool:
        scaled = []
        for i in range(len(gradients)):
            scaled.append(gradients[i] * scale if self.decay_flags[i] else gradients[i])
        return super().construct(tuple(scaled), ops.ones_like(scale), scalars)


@defect(
    area="clipping",
    imitates="Clipping of the first of two parameter groups, by the norm of both",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html",
    since="2026-12-01",
)
class NormsNotClipped(MindSporeSubject):
    """Gradients of the norms' weights are not clipped; the norm is that of all gradients."""

    class trainer(WithOptimizer):
        optimizer_cell = ClipsDecayed


class SkipsSpikes(ClipByGlobalNorm):
    """The factor is 0 where the norm is above 3."""

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        norm, factor = super().construct(gradients)
        return norm, factor * ops.cast(ops.less_equal(norm, 3.0), ms.float32)


@defect(
    area="clipping",
    imitates="A guard against spikes that drops the gradients of a batch with a large norm",
    source="https://arxiv.org/abs/2204.02311",
    since="2026-12-01",
)
class SpikesSkipped(MindSporeSubject):
    """Where the norm is above 3 the gradients are zero, and the moments decay; the case only clips to 2."""

    class trainer(WithClip):
        clip_cell = SkipsSpikes
