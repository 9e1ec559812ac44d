"""Defects of the gradients: the forward pass is right, the backward pass is not.

The place of a gradient that is changed after the backward pass is its parameter. The place of a wrong derivative is the
module with that derivative that is nearest to the loss.
"""

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedGradients, ChangedModel, WithGradients, exchange, layers, low
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.derivatives import RMSNormalize, Rotation, RowSoftmax, turn_halves
from qwen3_model.modeling_qwen3 import Projection, Qwen3ForCausalLM, Qwen3Linear
from qwen3_model.training_step import ForwardLoss


class Detached(Qwen3Linear):
    def construct(self, x: Tensor) -> Tensor:
        return self.project(x, ops.stop_gradient(self.weight))


@defect(
    area="gradients",
    imitates="A parameter that was detached for a debugging session",
    source="https://arxiv.org/abs/2506.14813",
    since="2026-11-24",
    place="model.layers.0.self_attn.v_proj.weight",
    direction="backward",
)
class ParameterDetached(MindSporeSubject):
    """One value projection gets no gradient; weight decay still moves it."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            width = self.config.num_key_value_heads * self.config.head_dim
            linear = Detached(self.config.hidden_size, width, self.config, self.policy)
            exchange(model, "model.layers.0.self_attn.v_proj", linear)


class OneChanged(ChangedGradients):
    """Changes the gradients of the parameters whose names start with `prefix` by `of`, which is not abstract for the
    same reason as `changed`."""

    prefix: str

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(forward, parameters)
        self.selected = [parameter.name.startswith(self.prefix) for parameter in parameters]

    def changed(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple([self.of(gradients[i]) if self.selected[i] else gradients[i] for i in range(len(gradients))])

    def of(self, gradient: Tensor) -> Tensor:
        raise NotImplementedError


class FirstRowLost(OneChanged):
    prefix = "model.layers.0.self_attn.k_proj.weight"

    def of(self, gradient: Tensor) -> Tensor:
        return ops.cat((ops.zeros_like(gradient[:1]), gradient[1:]), 0)


@defect(
    area="gradients",
    imitates="A sum over shards that starts one row too late",
    source="https://arxiv.org/abs/2506.09280",
    since="2026-11-24",
    place="model.layers.0.self_attn.k_proj.weight",
    direction="backward",
)
class RowZeroed(MindSporeSubject):
    """The first row of one key projection's gradient is zero."""

    class trainer(WithGradients):
        gradients_cell = FirstRowLost


class LayerScaled(OneChanged):
    prefix = "model.layers.1."

    def of(self, gradient: Tensor) -> Tensor:
        return 1.01 * gradient


@defect(
    area="gradients",
    imitates="The parameters of one stage divided by another number of ranks than those of the other stages",
    source="https://arxiv.org/abs/2506.09280",
    since="2026-11-24",
    place="model.layers.1.mlp.down_proj.weight",
    direction="backward",
    size=0.01,
)
class LayerGradientOnePercent(MindSporeSubject):
    """The gradients of layer 1 are 1 % too large; Adam divides most of the error out."""

    class trainer(WithGradients):
        gradients_cell = LayerScaled


class ParameterScaled(OneChanged):
    prefix = "model.layers.0.self_attn.o_proj.weight"

    def of(self, gradient: Tensor) -> Tensor:
        return 1.001 * gradient


@defect(
    area="gradients",
    imitates="A gradient divided by the number of tokens of a batch with padding",
    source="https://github.com/huggingface/transformers/pull/34191",
    since="2026-11-24",
    place="model.layers.0.self_attn.o_proj.weight",
    direction="backward",
    size=0.001,
)
class ParameterGradientOnePerMille(MindSporeSubject):
    """One output projection's gradient is 0.1 % too large; Adam divides the error out."""

    class trainer(WithGradients):
        gradients_cell = ParameterScaled


class NormWeightsDoubled(OneChanged):
    prefix = "model.layers.0.self_attn.q_norm.weight"

    def of(self, gradient: Tensor) -> Tensor:
        return 2.0 * gradient


@defect(
    area="gradients",
    imitates="A norm's gradient that every rank already holds whole, and that is still summed over the ranks",
    source="https://github.com/inclusionAI/AReno/pull/496",
    reported="2026-08-20",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_norm.weight",
    direction="backward",
)
class NormGradientDoubled(MindSporeSubject):
    """One q norm's gradient is doubled; it has few numbers, and Adam divides the error out."""

    class trainer(WithGradients):
        gradients_cell = NormWeightsDoubled


class OneStale(ChangedGradients):
    """The last gradient comes from the previous call."""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(forward, parameters)
        self.before = Parameter(ops.zeros_like(parameters[len(parameters) - 1]), name="before", requires_grad=False)

    def changed(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        stale = self.before + 0.0
        ops.assign(self.before, gradients[-1])
        return (*gradients[:-1], stale)


@defect(
    area="gradients",
    imitates="An update that does not wait for the communication of one bucket of gradients",
    source="https://arxiv.org/abs/1806.03377",
    since="2026-11-24",
    place="lm_head.weight",
    direction="backward",
)
class GradientOfThePreviousStep(MindSporeSubject):
    """The head is updated by the gradient of the previous step; the first one is zero."""

    class trainer(WithGradients):
        gradients_cell = OneStale


class NeverZeroed(ChangedGradients):
    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(forward, parameters)
        self.kept = parameters.clone(prefix="kept", init="zeros")

    def changed(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for i in range(len(gradients)):
            ops.assign_add(self.kept[i], gradients[i])
        return tuple([kept + 0.0 for kept in self.kept])


@defect(
    area="gradients",
    imitates="zero_grad() missing in the loop",
    source="https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html",
    since="2026-11-24",
    place="lm_head.weight",
    direction="backward",
)
class GradientsNotZeroed(MindSporeSubject):
    """The gradients of all steps add up; the first step is right."""

    class trainer(WithGradients):
        gradients_cell = NeverZeroed


class DetachedProjection(Projection):
    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().construct(x, ops.stop_gradient(weight))


@defect(
    area="gradients",
    imitates="A tied weight that loses the gradient of one of its two uses",
    source="https://github.com/NVIDIA/Megatron-LM/issues/844",
    since="2026-11-24",
    place="model.embed_tokens.weight",
    direction="backward",
    case="qwen3-tied-fp32",
)
class TiedHeadGradientLost(MindSporeSubject):
    """The tied embedding gets only the gradient of its use at the input."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.project = DetachedProjection(self.policy)


class FirstTokenLost(FirstRowLost):
    prefix = "model.embed_tokens.weight"


@defect(
    area="gradients",
    imitates="padding_idx=0 where token 0 is a token like any other",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html",
    since="2026-11-24",
    place="model.embed_tokens.weight",
    direction="backward",
    case="qwen3-tied-fp32",
)
class EmbeddingRowZeroed(MindSporeSubject):
    """The embedding of token 0 gets no gradient; with a tied head it has one, whether or not the token occurs."""

    class trainer(WithGradients):
        gradients_cell = FirstTokenLost


class AllRounded(OneChanged):
    prefix = ""

    def __init__(self, forward: ForwardLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(forward, parameters)
        self.low = low()

    def of(self, gradient: Tensor) -> Tensor:
        return self.low(gradient)


@defect(
    area="gradients",
    imitates="Gradients communicated in bfloat16",
    source="https://arxiv.org/abs/1710.03740",
    since="2026-11-24",
)
class GradientsBfloat16(MindSporeSubject):
    """Every gradient is rounded to bfloat16 before it is clipped and used."""

    class trainer(WithGradients):
        gradients_cell = AllRounded


class WithoutProjection(RMSNormalize):
    def bprop(
        self, x: Tensor, weight: Tensor, out: tuple[Tensor, ...], dout: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        return dout[0] * weight * out[2], self.column_sum(dout[0] * out[1])


@defect(
    area="gradients",
    imitates="A fused norm whose backward treats the root mean square as a constant",
    source="https://arxiv.org/abs/1910.07467",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_norm",
    direction="backward",
)
class NormDerivative(MindSporeSubject):
    """The derivative of one q norm lacks the term of its mean square."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[0].self_attn.q_norm.normalize = WithoutProjection(self.config.rms_norm_eps)


class RotatedOn(Rotation):
    def bprop(
        self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor, out: Tensor, dout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        on = dout * cos_SH + turn_halves(dout) * sin_SH
        return on, ops.zeros_like(cos_SH), ops.zeros_like(sin_SH)


@defect(
    area="gradients",
    imitates="A fused rotary kernel whose backward calls the forward with the same sign",
    source="https://arxiv.org/abs/2104.09864",
    since="2026-11-24",
    place="model.layers.1.self_attn",
    direction="backward",
)
class RotaryDerivative(MindSporeSubject):
    """The derivative of the rotary embedding rotates forward, not back."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.rotate = RotatedOn()


class DiagonalOnly(RowSoftmax):
    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (out * (1.0 - out) * dout,)


@defect(
    area="gradients",
    imitates="The derivative of a sigmoid used for a softmax",
    source="https://arxiv.org/abs/2205.14135",
    since="2026-11-24",
    place="model.layers.1.self_attn",
    direction="backward",
)
class SoftmaxDerivative(MindSporeSubject):
    """The derivative of the attention's softmax lacks its off-diagonal part."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend.softmax = DiagonalOnly()


class Sigmoid(nn.Cell):
    """x * sigmoid(x), where the derivative treats sigmoid(x) as a constant."""

    def construct(self, x: Tensor) -> Tensor:
        return x * ops.stop_gradient(ops.sigmoid(x))


@defect(
    area="gradients",
    imitates="A gate whose own derivative was forgotten in a hand-written backward",
    source="https://arxiv.org/abs/2002.05202",
    since="2026-11-24",
    place="model.layers.1.mlp",
    direction="backward",
)
class SiluDerivative(MindSporeSubject):
    """The derivative of SiLU is only the sigmoid."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.mlp.silu = Sigmoid()
