"""Defects of the precision: the right mathematics, with a rounding that is not in the case."""

from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, bfloat16, exchange, layers, low
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.modeling_qwen3 import (
    Precision,
    Projection,
    Qwen3ForCausalLM,
    Qwen3Linear,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import ClipByGlobalNorm, tree_sum
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.training_step import AccumulateStep, Gradients


def round_products(cell: nn.Cell) -> None:
    """Makes every projection within the cell round its operands and its result."""
    for _, part in cell.cells_and_names():
        if isinstance(part, Projection):
            part.round = low()


@defect(
    area="precision",
    imitates="An operator on a list of operators that may run in low precision",
    source="https://docs.pytorch.org/docs/stable/amp.html",
    since="2026-11-24",
    place="model.layers.1.mlp.gate_proj",
    direction="forward",
)
class OneLayerBfloat16(MindSporeSubject):
    """The products of one layer's MLP are in bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            round_products(model.model.layers[1].mlp)


@defect(
    area="precision",
    imitates="Autocast left on in a run that is meant to be float32",
    source="https://docs.pytorch.org/docs/stable/amp.html",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_proj",
    direction="forward",
)
class AllProductsBfloat16(MindSporeSubject):
    """Every projection is in bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            round_products(model)


class ElevenBits(nn.Cell):
    """The nearest number of 11 significant bits, by Veltkamp's splitting."""

    def construct(self, x: Tensor) -> Tensor:
        large = x * 8193.0
        return large - (large - x)


class RoundedOperands(Qwen3Linear):
    def construct(self, x: Tensor) -> Tensor:
        return self.project(self.operand(x), self.operand(self.weight))


@defect(
    area="precision",
    imitates="TF32 or HF32 on by default: operands of 11 bits under the name of float32",
    source="https://docs.pytorch.org/docs/stable/notes/cuda.html",
    since="2026-11-24",
    place="lm_head",
    direction="forward",
    size=0.0005,
)
class HeadProductTf32(MindSporeSubject):
    """The operands of the head's product have 11 significant bits."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            head = RoundedOperands(self.config.hidden_size, self.config.vocab_size, self.config, self.policy)
            head.operand = ElevenBits()
            exchange(model, "lm_head", head)


@defect(
    area="precision",
    imitates="A norm computed in the precision of its input",
    source="https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/qwen3/modeling_qwen3.py",
    since="2026-11-24",
    place="model.layers.0.input_layernorm",
    direction="forward",
)
class NormsBfloat16(MindSporeSubject):
    """Inputs and outputs of every norm are rounded to bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, cell in model.cells_and_names():
                if isinstance(cell, Qwen3RMSNorm):
                    cell.round = low()


@defect(
    area="precision",
    imitates="One norm that is missing in an exception list",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    since="2026-11-24",
    place="model.layers.1.self_attn.k_norm",
    direction="forward",
)
class OneNormBfloat16(MindSporeSubject):
    """Inputs and outputs of one k norm are rounded to bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[1].self_attn.k_norm.round = low()


@defect(
    area="precision",
    imitates="Softmax in the precision of the scores, without the cast to float32",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class SoftmaxBfloat16(MindSporeSubject):
    """Inputs and outputs of the attention's softmax are rounded to bfloat16 in every layer."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend.round_softmax = low()


@defect(
    area="precision",
    imitates="fp32_residual_connection off",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py",
    since="2026-11-24",
    place="model.layers.0",
    direction="forward",
)
class ResidualBfloat16(MindSporeSubject):
    """Each layer's residual stream is rounded to bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.residual = low()


class RoundedResult(Qwen3Linear):
    def construct(self, x: Tensor) -> Tensor:
        return self.result(super().construct(x))


@defect(
    area="precision",
    imitates="Logits that are not cast up before the loss",
    source="https://arxiv.org/abs/1710.03740",
    since="2026-11-24",
    place="lm_head",
    direction="forward",
)
class LogitsBfloat16(MindSporeSubject):
    """The logits are rounded to bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            head = RoundedResult(self.config.hidden_size, self.config.vocab_size, self.config, self.policy)
            head.result = low()
            exchange(model, "lm_head", head)


@defect(
    area="precision",
    imitates="Rotary embedding applied after the cast to low precision",
    source="https://github.com/NVIDIA/Megatron-LM/issues/744",
    since="2026-11-24",
    place="model.rotary_emb",
    direction="forward",
)
class RotaryBfloat16(MindSporeSubject):
    """Sines, cosines and the rotated queries and keys are rounded to bfloat16."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.rotary_emb.round = low()
            for _, layer in layers(model):
                layer.self_attn.round_rotary = low()


class RoundedFrequencies(Qwen3RotaryEmbedding):
    @staticmethod
    def inverse_frequencies(config: Qwen3Config) -> npt.NDArray[np.float32]:
        return bfloat16(Qwen3RotaryEmbedding.inverse_frequencies(config))


@defect(
    area="precision",
    imitates="A buffer of frequencies that is cast with the model",
    source="https://github.com/EleutherAI/gpt-neox/issues/1003",
    reported="2023-07-27",
    since="2026-11-24",
    place="model.rotary_emb",
    direction="forward",
)
class RotaryFrequenciesBfloat16(MindSporeSubject):
    """The frequencies of the rotary embedding are rounded to bfloat16; the error grows with the position."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.rotary_emb", RoundedFrequencies(self.config, self.policy))


class LowNorm(ClipByGlobalNorm):
    def __init__(self, max_norm: float | None) -> None:
        super().__init__(max_norm)
        self.low = low()

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        squares = [ops.reshape(self.low(ops.sum(ops.square(gradient))), (1,)) for gradient in gradients]
        norm = ops.sqrt(tree_sum(ops.cat(squares)))
        return norm, ops.minimum(self.max_norm / (norm + 1e-6), 1.0)


@defect(
    area="precision",
    imitates="A norm that is reduced in the gradients' low precision",
    source="https://github.com/facebookresearch/fairscale/issues/1092",
    reported="2022-11-02",
    since="2026-11-24",
)
class GradientNormBfloat16(MindSporeSubject):
    """Each gradient's sum of squares is rounded to bfloat16 before they are summed."""

    class trainer(Qwen3Trainer):
        def build_clip(self, max_norm: float | None) -> nn.Cell:
            return LowNorm(max_norm)


class LowSums(AccumulateStep):
    """Sums the gradients of micro-batches in bfloat16."""

    def __init__(self, gradients: Gradients, sums: ms.ParameterTuple) -> None:
        super().__init__(gradients, sums)
        self.low = low()

    def construct(self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        loss, gradients = self.gradients(tokens_BS, targets_BS, mask_BS, count)
        for i in range(len(self.sums)):
            ops.assign(self.sums[i], self.low(self.sums[i] + self.low(gradients[i])))
        return loss


@defect(
    area="precision",
    imitates="Gradients of micro-batches that are added up in the model's bfloat16",
    source="https://github.com/deepspeedai/DeepSpeed/issues/1800",
    reported="2022-03-01",
    since="2026-11-30",
    case="qwen3-tied-fp32",
)
class GradientSumsBfloat16(MindSporeSubject):
    """The sums of the micro-batches' gradients are rounded to bfloat16 after each of them."""

    class trainer(Qwen3Trainer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if self.gradient_accumulation_steps > 1:
                self._accumulate_step = LowSums(self._gradients, self._accumulate_step.sums)


class ByChunks(nn.Cell):
    """A projection whose weight's gradient is summed over parts of the tokens, in bfloat16."""

    chunks = 4

    def __init__(self, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.product, self.round, self.low = Projection(policy), Precision(policy.compute_dtype), low()
        self.back, self.outer = ops.MatMul(), ops.MatMul(transpose_a=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.product(x, weight)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        rows = ops.reshape(self.round(x), (self.chunks, -1, x.shape[-1]))
        given = ops.reshape(self.round(dout), (self.chunks, -1, dout.shape[-1]))
        total = ops.zeros_like(weight)
        for i in range(self.chunks):
            total = self.low(total + self.low(self.outer(given[i], rows[i])))
        passed = self.back(ops.reshape(given, (-1, dout.shape[-1])), self.round(weight))
        return ops.reshape(self.round(passed), x.shape), total


@defect(
    area="precision",
    imitates="A head fused with the loss that sums its weight's gradient over chunks in bfloat16",
    source="https://github.com/linkedin/Liger-Kernel/pull/830",
    reported="2025-07-22",
    since="2026-11-30",
    place="lm_head.weight",
    direction="backward",
)
class HeadGradientByChunks(MindSporeSubject):
    """The gradient of the head is summed over four parts of the tokens and rounded to bfloat16 after each."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.lm_head.project = ByChunks(self.policy)
