"""Defects around the attention: MLP, residual stream, layers, head."""

from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, exchange, layers, rename
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3 import (
    Projection,
    Qwen3DecoderLayer,
    Qwen3ForCausalLM,
    Qwen3Linear,
    Qwen3MLP,
)
from qwen3_model.weights import Tensors


class UpGated(Qwen3MLP):
    def construct(self, hidden_BSD: Tensor) -> Tensor:
        return self.down_proj(self.silu(self.up_proj(hidden_BSD)) * self.gate_proj(hidden_BSD))


@defect(
    area="model",
    imitates="The halves of a fused gate and up projection split in the other order",
    source="https://arxiv.org/abs/2002.05202",
    since="2026-11-24",
    place="model.layers.0.mlp",
    direction="forward",
)
class GateAndUpExchanged(MindSporeSubject):
    """The activation is applied to the up projection, not to the gate."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for place, _ in layers(model):
                exchange(model, f"{place}.mlp", UpGated(self.config, self.policy))


@defect(
    area="model",
    imitates="GEGLU where the model has SwiGLU",
    source="https://arxiv.org/abs/2002.05202",
    since="2026-11-24",
    place="model.layers.0.mlp",
    direction="forward",
)
class GeluForSilu(MindSporeSubject):
    """The activation of every MLP is GELU."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.mlp.silu = nn.GELU()


class ScaledResidual(Qwen3DecoderLayer):
    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden_BSD), cos_SH, sin_SH)
        hidden_BSD = hidden_BSD + 1.001 * attended
        return hidden_BSD + 1.001 * self.mlp(self.post_attention_layernorm(hidden_BSD))


@defect(
    area="model",
    imitates="A residual multiplier as in Granite, left in the code",
    source="https://huggingface.co/docs/transformers/model_doc/granite",
    since="2026-11-24",
    place="model.layers.0",
    direction="forward",
    size=0.001,
)
class ResidualScaled(MindSporeSubject):
    """One layer adds 1.001 times the outputs of attention and MLP."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.0", ScaledResidual(self.config, self.policy))


class PostNormResidual(Qwen3DecoderLayer):
    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        normed = self.input_layernorm(hidden_BSD)
        normed = self.post_attention_layernorm(normed + self.self_attn(normed, cos_SH, sin_SH))
        return normed + self.mlp(normed)


@defect(
    area="model",
    imitates="--apply-residual-connection-post-layernorm set for a model that was not trained with it",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py",
    since="2026-11-24",
    place="model.layers.1",
    direction="forward",
)
class ResidualAfterNorm(MindSporeSubject):
    """The residual of one layer is the output of its norms, not their input."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.1", PostNormResidual(self.config, self.policy))


class Borrowed(Qwen3MLP):
    def construct(self, hidden_BSD: Tensor) -> Tensor:
        return self.lender(hidden_BSD)


@defect(
    area="model",
    imitates="A list of layers built from one object, which shares weights as ALBERT does on purpose",
    source="https://arxiv.org/abs/1909.11942",
    since="2026-11-24",
    place="model.layers.1.mlp",
    direction="forward",
)
class LayerSharesMlp(MindSporeSubject):
    """Layer 1 computes with the MLP of layer 0; its own weights exist and are not used."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            mlp = Borrowed(self.config, self.policy)
            exchange(model, "model.layers.1.mlp", mlp)
            named = [(parameter, parameter.name) for parameter in model.get_parameters()]
            mlp.lender = model.model.layers[0].mlp
            rename(named)


class Truncated(Qwen3Linear):
    def construct(self, x: Tensor) -> Tensor:
        return self.project(x[..., :-1], self.weight[:, :-1])


@defect(
    area="model",
    imitates="A blocked product that masks one element too many in a block that is not full",
    source="https://triton-lang.org/main/getting-started/tutorials/03-matrix-multiplication.html",
    since="2026-11-24",
    place="model.layers.0.mlp.down_proj",
    direction="forward",
)
class TruncatedReduction(MindSporeSubject):
    """The down projection of one layer omits the last element of its sum."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            config = self.config
            linear = Truncated(config.intermediate_size, config.hidden_size, config, self.policy)
            exchange(model, "model.layers.0.mlp.down_proj", linear)


class Skipped(Qwen3DecoderLayer):
    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return hidden_BSD


@defect(
    area="model",
    imitates="A stage with one layer too few, or a layer dropped as in LayerDrop and never restored",
    source="https://arxiv.org/abs/1909.11556",
    since="2026-11-24",
    place="model.layers.1",
    direction="forward",
)
class LastLayerSkipped(MindSporeSubject):
    """Layer 1 returns its input."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.1", Skipped(self.config, self.policy))


class SoftCapped(Qwen3Linear):
    def construct(self, x: Tensor) -> Tensor:
        return 30.0 * ops.tanh(super().construct(x) / 30.0)


@defect(
    area="model",
    imitates="Gemma 2's cap on logits applied to another family",
    source="https://github.com/InternLM/lmdeploy/pull/2842",
    since="2026-11-24",
    place="lm_head",
    direction="forward",
)
class LogitsSoftCapped(MindSporeSubject):
    """Logits are 30 tanh(x / 30); they are small at first, so the effect is small."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            head = SoftCapped(self.config.hidden_size, self.config.vocab_size, self.config, self.policy)
            exchange(model, "lm_head", head)


class Copied(Projection):
    """Projects with a stored copy of the weight."""

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().construct(x, self.kept)


@defect(
    area="model",
    imitates="A head that is tied by copying, so that the two weights differ after the first update",
    source="https://github.com/NVIDIA-NeMo/Automodel/pull/2511",
    since="2026-11-24",
    place="model.embed_tokens.weight",
    direction="backward",
    case="qwen3-tied-fp32",
)
class TiedHeadCopiedOnce(MindSporeSubject):
    """The head projects with a copy of the loaded embedding, and is not trained."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.project = Copied(self.policy)

        def load_weights(self, tensors: Tensors) -> None:
            super().load_weights(tensors)
            self.model.project.kept = Tensor(tensors["model.embed_tokens.weight"])
