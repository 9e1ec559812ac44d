"""Defects of the norms: omitted, exchanged, or computed over other axes."""

from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, exchange, layers
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3 import Qwen3Attention, Qwen3ForCausalLM, Qwen3RMSNorm


class KeyUnnormed(Qwen3Attention):
    def key(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return self.rotary(self.split_heads(self.k_proj(hidden_BSD)), cos_SH, sin_SH)


@defect(
    area="model",
    imitates="Qwen2's attention copied to Qwen3, in a layer that was rewritten",
    source="https://arxiv.org/abs/2505.09388",
    since="2026-11-24",
    place="model.layers.1.self_attn.k_norm",
    direction="forward",
)
class MissingKeyNorm(MindSporeSubject):
    """The k norm of one layer does nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.1.self_attn", KeyUnnormed(self.config, self.policy))


class QueryUnnormed(Qwen3Attention):
    def query(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return self.rotary(self.split_heads(self.q_proj(hidden_BSD)), cos_SH, sin_SH)


@defect(
    area="model",
    imitates="Query-key normalization with the query half missing",
    source="https://arxiv.org/abs/2010.04245",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_norm",
    direction="forward",
)
class MissingQueryNorm(MindSporeSubject):
    """The q norms of all layers do nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for place, _ in layers(model):
                exchange(model, f"{place}.self_attn", QueryUnnormed(self.config, self.policy))


class NormsLast(Qwen3Attention):
    def query(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return self.q_norm(self.rotary(self.split_heads(self.q_proj(hidden_BSD)), cos_SH, sin_SH))

    def key(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return self.k_norm(self.rotary(self.split_heads(self.k_proj(hidden_BSD)), cos_SH, sin_SH))


@defect(
    area="model",
    imitates="Norms of query and key after the rotary embedding; this shows only if their weights are not all equal",
    source="https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/qwen3/modeling_qwen3.py",
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class NormsAfterRotary(MindSporeSubject):
    """Queries and keys are normed after the rotary embedding, not before it."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for place, _ in layers(model):
                exchange(model, f"{place}.self_attn", NormsLast(self.config, self.policy))


class NormOverHeads(Qwen3RMSNorm):
    def construct(self, x: Tensor) -> Tensor:
        rows = ops.reshape(x, (*x.shape[:-2], -1))
        reciprocal = ops.rsqrt(ops.mean(ops.square(rows), -1, True) + self.normalize.eps)
        return ops.reshape(rows * reciprocal, x.shape) * self.weight


@defect(
    area="model",
    imitates="The query norm of OLMo 2, which is over all heads together",
    source="https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/olmo2/modeling_olmo2.py",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_norm",
    direction="forward",
)
class NormOverAllHeads(MindSporeSubject):
    """The q norm of one layer computes its mean over all heads of a position, not per head."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = NormOverHeads(self.config.head_dim, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.layers.0.self_attn.q_norm", norm)


@defect(
    area="model",
    imitates="A default of the norm's class that overrides rms_norm_eps of the configuration",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    since="2026-11-24",
    place="model.layers.0.input_layernorm",
    direction="forward",
)
class NormEpsilon(MindSporeSubject):
    """Every norm has the epsilon 1e-5 where the case has 1e-6."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, cell in model.cells_and_names():
                if isinstance(cell, Qwen3RMSNorm):
                    cell.normalize = type(cell.normalize)(1e-5)


class EpsilonOutside(nn.Cell):
    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def construct(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        normalized = x / (ops.sqrt(ops.mean(ops.square(x), -1, True)) + self.eps)
        return normalized * weight, normalized


@defect(
    area="model",
    imitates="An RMS norm that divides by the root plus epsilon",
    source="https://github.com/allenai/OLMo/issues/281",
    since="2026-11-24",
    place="model.layers.0.input_layernorm",
    direction="forward",
)
class NormEpsilonOutsideTheRoot(MindSporeSubject):
    """Every norm adds its epsilon after the root, not under it."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, cell in model.cells_and_names():
                if isinstance(cell, Qwen3RMSNorm):
                    cell.normalize = EpsilonOutside(cell.normalize.eps)


class OnePlusWeight(Qwen3RMSNorm):
    def construct(self, x: Tensor) -> Tensor:
        return ops.reshape(self.normalize(ops.reshape(x, (-1, x.shape[-1])), 1.0 + self.weight)[0], x.shape)


@defect(
    area="model",
    imitates="Gemma's convention for norm weights in another family, or the reverse",
    source="https://github.com/linkedin/Liger-Kernel/issues/74",
    since="2026-11-24",
    place="model.norm",
    direction="forward",
)
class NormOfOnePlusWeight(MindSporeSubject):
    """The final norm multiplies by one plus its weight."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = OnePlusWeight(self.config.hidden_size, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.norm", norm)


class Unnormed(Qwen3RMSNorm):
    def construct(self, x: Tensor) -> Tensor:
        return x


@defect(
    area="model",
    imitates="A stack of pre-norm layers without the final norm",
    source="https://arxiv.org/abs/2002.04745",
    since="2026-11-24",
    place="model.norm",
    direction="forward",
)
class MissingFinalNorm(MindSporeSubject):
    """The final norm does nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = Unnormed(self.config.hidden_size, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.norm", norm)
