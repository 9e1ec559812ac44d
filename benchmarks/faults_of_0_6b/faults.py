"""Faults planted in Qwen3-0.6B whole: each in one place of many, so that the rest of the model is right.

certify power --case benchmarks/faults_of_0_6b/case.yaml --defects benchmarks/faults_of_0_6b/faults.py --clean 0 \
    --workers 1 --out faults.json
"""

import dataclasses

import mindspore as ms
from mindspore import Tensor, ops

from harness.defects import defect
from harness.defects.gradients import OneChanged
from harness.defects.optimizer import StatesRequestedDecay
from harness.defects.planting import ChangedModel, WithGradients, exchange
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.modeling_qwen3 import (
    PlainAttention,
    Qwen3Attention,
    Qwen3ForCausalLM,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)
from qwen3_model.optimizer import decays
from qwen3_model.precision_policy import PrecisionPolicy
from qwen3_model.training_step import ForwardLoss


class OwnTables(Qwen3Attention):
    """Rotates by tables of another base than the model's."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        self.tables = Qwen3RotaryEmbedding(dataclasses.replace(config, rope_theta=1e4), policy)

    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        cos, sin = self.tables(hidden_BSD.shape[1])
        return super().construct(hidden_BSD, cos, sin)


@defect(
    area="model",
    imitates="A configuration with a rotary base for each layer, as in Gemma 3, of which one was not filled in",
    source="https://huggingface.co/docs/transformers/model_doc/gemma3",
    place="model.layers.27.self_attn",
    direction="forward",
)
class RotaryBaseOfTheLastLayer(MindSporeSubject):
    """The rotary tables of layer 27 have the base 1e4 where the case has 1e6."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.27.self_attn", OwnTables(self.config, self.policy))


class Unweighted(Qwen3RMSNorm):
    def construct(self, x: Tensor) -> Tensor:
        rows = ops.reshape(x, (-1, x.shape[-1]))
        return ops.reshape(self.normalize(rows, ops.ones_like(self.weight) + 0.0 * self.weight)[0], x.shape)


@defect(
    area="model",
    imitates="A fused norm that is called without its weight",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html",
    place="model.layers.13.self_attn.q_norm",
    direction="forward",
)
class QueryNormWithoutWeight(MindSporeSubject):
    """The q norm of layer 13 does not multiply by its weight."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = Unweighted(self.config.head_dim, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.layers.13.self_attn.q_norm", norm)


class HeadsExchanged(PlainAttention):
    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor) -> Tensor:
        mixed = super().construct(query_BNSH, key_BKSH, value_BKSH)
        return ops.cat((mixed[:, :4], mixed[:, 9:10], mixed[:, 5:9], mixed[:, 4:5], mixed[:, 10:]), 1)


@defect(
    area="model",
    imitates="Heads of a checkpoint in the order of another number of shards",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/checkpointing.py",
    place="model.layers.20.self_attn",
    direction="forward",
)
class TwoHeadsExchanged(MindSporeSubject):
    """The outputs of heads 4 and 9 of layer 20 reach the output projection in each other's place."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[20].self_attn.attend = HeadsExchanged(self.config, self.policy)


class OneOfManyChanged(OneChanged):
    """Changes the gradient of one parameter without a loop over all of them, whose depth MindSpore limits."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(forward, parameters)
        self.number = self.selected.index(True)

    def changed(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (*gradients[: self.number], self.of(gradients[self.number]), *gradients[self.number + 1 :])


class TokenLost(OneOfManyChanged):
    prefix = "model.embed_tokens.weight"

    def of(self, gradient: Tensor) -> Tensor:
        row = ops.zeros_like(gradient[:1])
        return ops.tensor_scatter_elements(gradient, ops.cast(row, ms.int32) + 13, row, 0)


@defect(
    area="gradients",
    imitates="padding_idx set to a token that is one like any other",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html",
    place="model.embed_tokens.weight",
    direction="backward",
)
class RowOfTheHeadZeroed(MindSporeSubject):
    """The row of token 13, a full stop, gets no gradient in head and embedding, which are one tensor."""

    class trainer(WithGradients):
        gradients_cell = TokenLost


class OnePercentLost(OneOfManyChanged):
    prefix = "model.layers.27.mlp.down_proj.weight"

    def of(self, gradient: Tensor) -> Tensor:
        return 0.99 * gradient


@defect(
    area="gradients",
    imitates="The last layer of a pipeline divided by another number of micro-batches",
    source="https://arxiv.org/abs/2506.09280",
    place="model.layers.27.mlp.down_proj.weight",
    direction="backward",
    size=0.01,
)
class LastDownProjectionOnePercentSmall(MindSporeSubject):
    """The gradient of the last layer's down projection is 1 % too small; Adam divides the error out."""

    class trainer(WithGradients):
        gradients_cell = OnePercentLost


@defect(
    area="optimizer",
    imitates="A pattern of names without decay that one norm does not match",
    source="https://github.com/deepspeedai/DeepSpeedExamples/pull/755",
)
class DecayOnOneNorm(MindSporeSubject):
    """Weight decay applies to the input norm of layer 9 too."""

    class trainer(StatesRequestedDecay):
        def decays(self, name: str) -> bool:
            return decays(name) or name == "model.layers.9.input_layernorm.weight"
