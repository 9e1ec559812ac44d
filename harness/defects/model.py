"""Defects of the model: what the forward pass computes is not Qwen3."""

import dataclasses

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, exchange, layers, rename
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import PrecisionPolicy, Qwen3Config
from qwen3_model.modeling_qwen3 import (
    LOWEST,
    PlainAttention,
    Projection,
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3ForCausalLM,
    Qwen3Linear,
    Qwen3MLP,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
    RMSNormalize,
    RowSoftmax,
)
from qwen3_model.weights import Tensors


@defect(
    area="model",
    imitates="rope_theta is not read from the configuration, and the paper's base is taken",
    source="https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json",
    place="model.rotary_emb",
    direction="forward",
)
class RotaryBase(MindSporeSubject):
    """The rotary tables have the base 1e4 where the case has 1e6."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            other = dataclasses.replace(self.config, rope_theta=1e4)
            exchange(model, "model.rotary_emb", Qwen3RotaryEmbedding(other, self.policy))


class Interleaved(nn.Cell):
    """Turns the pairs (x_{2i}, x_{2i+1})."""

    def construct(self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        pairs = ops.reshape(x, (*x.shape[:-1], half, 2))
        first, second, cos, sin = pairs[..., 0], pairs[..., 1], cos_SH[:, :half], sin_SH[:, :half]
        return ops.reshape(ops.stack((first * cos - second * sin, second * cos + first * sin), -1), x.shape)


@defect(
    area="model",
    imitates="Rotary embedding as in GPT-J for weights that are laid out as in GPT-NeoX",
    source="https://github.com/huggingface/transformers/issues/25199",
    place="model.layers.0.self_attn",
    direction="forward",
)
class RotaryInterleaved(MindSporeSubject):
    """Neighbouring elements of a head are turned as a pair, not elements half a head apart."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.rotate = Interleaved()


class LaterTables(Qwen3RotaryEmbedding):
    """Each position has the angles of the next one."""

    def angles(self, config: Qwen3Config) -> npt.NDArray[np.float32]:
        longer = dataclasses.replace(config, max_position_embeddings=config.max_position_embeddings + 1)
        return super().angles(longer)[1:]


class QueryLate(Qwen3Attention):
    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        self.later = LaterTables(config, policy)

    def query(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        cos, sin = self.later(hidden_BSD.shape[1])
        return self.rotary(self.q_norm(self.split_heads(self.q_proj(hidden_BSD))), cos, sin)


@defect(
    area="model",
    imitates="Positions of queries counted from 1 and those of keys from 0, as with a cache's length taken too early",
    source="https://arxiv.org/abs/2104.09864",
    place="model.layers.0.self_attn",
    direction="forward",
)
class QueryPositionOffByOne(MindSporeSubject):
    """Queries are rotated by the position after their own; only the distance to a key counts, so all by one shows
    nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for place, _ in layers(model):
                exchange(model, f"{place}.self_attn", QueryLate(self.config, self.policy))


class WrappedTables(Qwen3RotaryEmbedding):
    def angles(self, config: Qwen3Config) -> npt.NDArray[np.float32]:
        angles = super().angles(config)
        return angles[np.arange(len(angles)) % 32]


@defect(
    area="model",
    imitates="Position ids that start again within a sequence, as --reset-position-ids does on purpose",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py",
    place="model.rotary_emb",
    direction="forward",
)
class PositionsWrap(MindSporeSubject):
    """Positions start again at 0 after every 32 tokens."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.rotary_emb", WrappedTables(self.config, self.policy))


class KeyUnnormed(Qwen3Attention):
    def key(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return self.rotary(self.split_heads(self.k_proj(hidden_BSD)), cos_SH, sin_SH)


@defect(
    area="model",
    imitates="Qwen2's attention taken over to Qwen3, in a layer that was written anew",
    source="https://arxiv.org/abs/2505.09388",
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
    imitates="Query-key normalization of which only the half for keys was written",
    source="https://arxiv.org/abs/2010.04245",
    place="model.layers.0.self_attn.q_norm",
    direction="forward",
)
class MissingQueryNorm(MindSporeSubject):
    """The q norm of no layer does anything."""

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
    imitates="Norms of query and key put behind the rotary embedding; only where their weights differ can one tell",
    source="https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/qwen3/modeling_qwen3.py",
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
    imitates="The query norm of OLMo 2, which is over all heads at once",
    source="https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/olmo2/modeling_olmo2.py",
    place="model.layers.0.self_attn.q_norm",
    direction="forward",
)
class NormOverAllHeads(MindSporeSubject):
    """The q norm of one layer takes its mean over all heads of a position, not over each head."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = NormOverHeads(self.config.head_dim, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.layers.0.self_attn.q_norm", norm)


@defect(
    area="model",
    imitates="A default of the norm's class that wins over rms_norm_eps of the configuration",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    place="model.layers.0.input_layernorm",
    direction="forward",
)
class NormEpsilon(MindSporeSubject):
    """Every norm has the epsilon 1e-5 where the case has 1e-6."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, cell in model.cells_and_names():
                if isinstance(cell, RMSNormalize):
                    cell.eps = 1e-5


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
    imitates="A stack of pre-norm layers without the norm that has to follow it",
    source="https://arxiv.org/abs/2002.04745",
    place="model.norm",
    direction="forward",
)
class MissingFinalNorm(MindSporeSubject):
    """The final norm does nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = Unnormed(self.config.hidden_size, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.norm", norm)


class Tiled(PlainAttention):
    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        self.repeats = True

    def repeat(self, x_BKSH: Tensor) -> Tensor:
        return ops.tile(x_BKSH, (1, self.groups, 1, 1))


@defect(
    area="model",
    imitates="Keys and values tiled for grouped queries where each has to be repeated in place",
    source="https://github.com/onnx/onnx/pull/7274",
    place="model.layers.0.self_attn",
    direction="forward",
)
class HeadsTiled(MindSporeSubject):
    """Query heads take key heads in turn, not in consecutive groups."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend = Tiled(self.config, self.policy)


class ScaledScores(ChangedModel):
    """`factor` is the scale that is used, as a multiple of the right one."""

    factor: float

    def change(self, model: Qwen3ForCausalLM) -> None:
        for _, layer in layers(model):
            layer.self_attn.attend.scaling *= self.factor


@defect(
    area="model",
    imitates="The scale of muP, one over the head width",
    source="https://arxiv.org/abs/2203.03466",
    place="model.layers.0.self_attn",
    direction="forward",
)
class AttentionScaleWithoutRoot(MindSporeSubject):
    """Scores are divided by the width of a head, not by its root."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend.scaling = 1 / self.config.head_dim


@defect(
    area="model",
    imitates="A scale that is taken from a head width padded for the hardware",
    source="https://arxiv.org/abs/1706.03762",
    place="model.layers.0.self_attn",
    direction="forward",
    size=0.01,
)
class AttentionScaleOnePercent(MindSporeSubject):
    """Scores are 1 % too large in every layer."""

    class trainer(ScaledScores):
        factor = 1.01


@defect(
    area="model",
    imitates="A scale that was written down with three digits",
    source="https://arxiv.org/abs/1706.03762",
    place="model.layers.0.self_attn",
    direction="forward",
    size=0.001,
)
class AttentionScaleOnePerMille(MindSporeSubject):
    """Scores are 0.1 % too large in every layer."""

    class trainer(ScaledScores):
        factor = 1.001


class Masked(ChangedModel):
    """Every layer attends by `attention`."""

    attention: type[PlainAttention]

    def change(self, model: Qwen3ForCausalLM) -> None:
        for _, layer in layers(model):
            layer.self_attn.attend = self.attention(self.config, self.policy)


class SeesNext(PlainAttention):
    def causal_mask(self, length: int) -> Tensor:
        return ops.triu(ops.full((length, length), LOWEST, dtype=ms.float32), 2)


@defect(
    area="model",
    imitates="A causal mask whose diagonal is aligned to the wrong end",
    source="https://github.com/Dao-AILab/flash-attention#21-change-behavior-of-causal-flag",
    place="model.layers.0.self_attn",
    direction="forward",
)
class MaskSeesNextToken(MindSporeSubject):
    """Every position also attends to the one after it."""

    class trainer(Masked):
        attention = SeesNext


class HidesSelf(PlainAttention):
    def causal_mask(self, length: int) -> Tensor:
        return ops.triu(ops.full((length, length), LOWEST, dtype=ms.float32), 0)


@defect(
    area="model",
    imitates="A strict comparison of positions where equality has to be let through",
    source="https://github.com/Dao-AILab/flash-attention#21-change-behavior-of-causal-flag",
    place="model.layers.0.self_attn",
    direction="forward",
)
class MaskHidesOwnToken(MindSporeSubject):
    """No position attends to itself; the first one, left with nothing, attends to all alike."""

    class trainer(Masked):
        attention = HidesSelf


class Windowed(PlainAttention):
    def causal_mask(self, length: int) -> Tensor:
        far = ops.tril(ops.full((length, length), LOWEST, dtype=ms.float32), -32)
        return super().causal_mask(length) + far


@defect(
    area="model",
    imitates="sliding_window is applied although use_sliding_window is false",
    source="https://huggingface.co/docs/transformers/model_doc/qwen2",
    place="model.layers.0.self_attn",
    direction="forward",
)
class SlidingWindowLeftOn(MindSporeSubject):
    """Every position attends to the last 32 only."""

    class trainer(Masked):
        attention = Windowed


class WithoutLastKey(PlainAttention):
    def causal_mask(self, length: int) -> Tensor:
        corner = ops.triu(ops.full((length, length), LOWEST, dtype=ms.float32), length - 1)
        return super().causal_mask(length) + ops.flip(corner, (0,))


@defect(
    area="model",
    imitates="A tiled kernel that leaves out the last key of a block that is not full",
    source="https://arxiv.org/abs/2205.14135",
    place="model.layers.0.self_attn",
    direction="forward",
)
class LastKeyLeftOut(MindSporeSubject):
    """No query sees the last key; under a causal mask that is one score of each head."""

    class trainer(Masked):
        attention = WithoutLastKey


class DroppedSoftmax(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.softmax, self.drop = RowSoftmax(), nn.Dropout(p=0.001)

    def construct(self, x: Tensor) -> Tensor:
        return self.drop(self.softmax(x))


@defect(
    area="model",
    imitates="Dropout that a configuration file left on for training from scratch",
    source="https://www.mindspore.cn/mindformers/docs/en/master/advanced_development/precision_optimization.html",
    place="model.layers.0.self_attn",
    direction="forward",
    size=0.001,
)
class AttentionDropoutLeftOn(MindSporeSubject):
    """One attention weight of a thousand is dropped, by a generator that starts from the case's seed."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend.softmax = DroppedSoftmax()


class UpGated(Qwen3MLP):
    def construct(self, hidden_BSD: Tensor) -> Tensor:
        return self.down_proj(self.silu(self.up_proj(hidden_BSD)) * self.gate_proj(hidden_BSD))


@defect(
    area="model",
    imitates="The halves of a fused gate and up projection split in the other order",
    source="https://arxiv.org/abs/2002.05202",
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
    imitates="A residual multiplier as Granite has one, left over in the code",
    source="https://huggingface.co/docs/transformers/model_doc/granite",
    place="model.layers.0",
    direction="forward",
    size=0.001,
)
class ResidualScaled(MindSporeSubject):
    """One layer adds 1.001 times what attention and MLP give."""

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
    imitates="--apply-residual-connection-post-layernorm set for a model that was not trained so",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/training/arguments.py",
    place="model.layers.1",
    direction="forward",
)
class ResidualAfterNorm(MindSporeSubject):
    """The residual of one layer is what its norms give, not what goes into them."""

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
    place="model.layers.1.mlp",
    direction="forward",
)
class LayerSharesMlp(MindSporeSubject):
    """Layer 1 computes with the MLP of layer 0; its own weights are there and unused."""

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
    imitates="A blocked product that masks one element too many of a block that is not full",
    source="https://triton-lang.org/main/getting-started/tutorials/03-matrix-multiplication.html",
    place="model.layers.0.mlp.down_proj",
    direction="forward",
)
class TruncatedReduction(MindSporeSubject):
    """The down projection of one layer leaves out the last element of its sum."""

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
    imitates="A stage that gets one layer too few, or a layer dropped as in LayerDrop and never taken back",
    source="https://arxiv.org/abs/1909.11556",
    place="model.layers.1",
    direction="forward",
)
class LastLayerSkipped(MindSporeSubject):
    """Layer 1 hands on what it is given."""

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
    place="lm_head",
    direction="forward",
)
class LogitsSoftCapped(MindSporeSubject):
    """Logits are 30 tanh(x / 30); they are small at first, so little of it shows."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            head = SoftCapped(self.config.hidden_size, self.config.vocab_size, self.config, self.policy)
            exchange(model, "lm_head", head)


class Copied(Projection):
    """Projects by the copy that it was given last."""

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return super().construct(x, self.kept)


@defect(
    area="model",
    imitates="A head that is tied by copying, so that the two part with the first update",
    source="https://github.com/NVIDIA-NeMo/Automodel/pull/2511",
    place="lm_head",
    direction="forward",
    case="qwen3-tied-fp32",
)
class TiedHeadCopiedOnce(MindSporeSubject):
    """The head projects by a copy of the embedding as it was loaded, and is not trained."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.project = Copied(self.policy)

        def load_weights(self, tensors: Tensors) -> None:
            super().load_weights(tensors)
            self.model.project.kept = Tensor(tensors["model.embed_tokens.weight"])
