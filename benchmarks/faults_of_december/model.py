"""Faults of the model, written without knowledge of the criteria and planted in the default case.

certify power --defects benchmarks/faults_of_december/model.py --clean 0 --out faults.json
"""

import math

import numpy as np
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, exchange, layers
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.derivatives import Rotation, RowSoftmax
from qwen3_model.documents import Documents
from qwen3_model.modeling_qwen3 import (
    PlainAttention,
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3Embedding,
    Qwen3ForCausalLM,
    Qwen3MLP,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.precision_policy import PrecisionPolicy


class OneLaterBeyond(Qwen3RotaryEmbedding):
    """From position 48 on, each has the angles of the next one."""

    def angles(self, config: Qwen3Config) -> npt.NDArray[np.float32]:
        positions = np.arange(config.max_position_embeddings, dtype=np.float32)
        positions += positions >= 48
        half = positions[:, None] * self.inverse_frequencies(config)[None, :]
        return np.concatenate([half, half], axis=-1)


@defect(
    area="model",
    imitates="A row computed in two pieces, the second of which counts its positions from one too many",
    source="https://arxiv.org/abs/2104.09864",
    since="2026-12-01",
    place="model.layers.0.self_attn",
    direction="forward",
)
class PositionsBeyond48Late(MindSporeSubject):
    """Positions from 48 on are one too large; distances within the first 48 and within the last 16 are right."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.rotary_emb = OneLaterBeyond(self.config, self.policy)


class StretchedWaves(Qwen3RotaryEmbedding):
    """Waves longer than 8,192 positions are stretched by eight, as for Llama 3.1."""

    @staticmethod
    def inverse_frequencies(config: Qwen3Config) -> npt.NDArray[np.float32]:
        frequencies = Qwen3RotaryEmbedding.inverse_frequencies(config)
        return np.where(2 * np.pi / frequencies > 8192, frequencies / 8, frequencies).astype(np.float32)


@defect(
    area="model",
    imitates="rope_scaling of Llama 3.1 taken over from the configuration file of another model",
    source="https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_rope_utils.py",
    since="2026-12-01",
    place="model.layers.0.self_attn",
    direction="forward",
)
class LongWavesStretched(MindSporeSubject):
    """The rotary frequencies of waves longer than 8,192 positions are divided by 8; a row has 64 positions."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.rotary_emb = StretchedWaves(self.config, self.policy)


class HalfRotation(nn.Cell):
    """Rotates the first half of each head, with the frequencies of a head of that width."""

    def __init__(self) -> None:
        super().__init__()
        self.rotation = Rotation()

    def construct(self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cos, sin = cos_SH[:, :half:2], sin_SH[:, :half:2]
        rotated = self.rotation(x[..., :half], ops.cat((cos, cos), -1), ops.cat((sin, sin), -1))
        return ops.cat((rotated, x[..., half:]), -1)


@defect(
    area="model",
    imitates="rotary_pct of GPT-NeoX: a part of each head without positions",
    source="https://github.com/EleutherAI/gpt-neox/blob/main/configs/neox_arguments.md",
    since="2026-12-01",
    place="model.layers.1.self_attn",
    direction="forward",
)
class HalfOfTheHeadRotated(MindSporeSubject):
    """In layer 1 the rotary embedding rotates only the first 16 of the 32 elements of each head."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[1].self_attn.rotate = HalfRotation()


class RotatesValues(Qwen3Attention):
    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key = self.query(hidden_BSD, cos_SH, sin_SH), self.key(hidden_BSD, cos_SH, sin_SH)
        value = self.rotary(self.split_heads(self.v_proj(hidden_BSD)), cos_SH, sin_SH)
        mixed_BSNH = self.swap(self.attend(query, key, value))
        return self.o_proj(ops.reshape(mixed_BSNH, (*hidden_BSD.shape[:2], -1)))


@defect(
    area="model",
    imitates="A rotary kernel for packed queries, keys and values that is applied to all three",
    source="https://github.com/Dao-AILab/flash-attention/blob/main/flash_attn/layers/rotary.py",
    since="2026-12-01",
    place="model.layers.0.self_attn",
    direction="forward",
)
class ValuesRotated(MindSporeSubject):
    """In layer 0 the rotary embedding rotates the values too."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.0.self_attn", RotatesValues(self.config, self.policy))


class LastHeadSharper(PlainAttention):
    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
        last = query_BNSH.shape[1] - 1
        query = ops.cat((query_BNSH[:, :last], 1.02 * query_BNSH[:, last:]), 1)
        return self.masked(query, key_BKSH, value_BKSH, self.causal_mask(query_BNSH.shape[2]))


@defect(
    area="model",
    imitates="A scale of each head, as of a quantised cache, of which one is not reset to one",
    source="https://github.com/Dao-AILab/flash-attention/blob/main/hopper/flash_attn_interface.py",
    since="2026-12-01",
    place="model.layers.1.self_attn",
    direction="forward",
    size=0.02,
)
class LastHeadTwoPercentSharper(MindSporeSubject):
    """The scores of the last of 4 heads are 2 % too large in layer 1."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[1].self_attn.attend = LastHeadSharper(self.config, self.policy)


class LogScaled(PlainAttention):
    """Queries from position 32 on are multiplied by log(number of keys) / log(32)."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__(config, policy)
        keys = np.arange(1, config.max_position_embeddings + 1)
        self.factors = Tensor(np.maximum(1.0, np.log(keys) / math.log(32))[:, None].astype(np.float32))

    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
        length = query_BNSH.shape[2]
        query = query_BNSH * self.factors[:length]
        return self.masked(query, key_BKSH, value_BKSH, self.causal_mask(length))


@defect(
    area="model",
    imitates="use_logn_attn of the first Qwen, with the length of another training",
    source="https://huggingface.co/Qwen/Qwen-7B/blob/main/modeling_qwen.py",
    since="2026-12-01",
    place="model.layers.0.self_attn",
    direction="forward",
)
class LogarithmicScale(MindSporeSubject):
    """Scores of queries from position 32 on are multiplied by log(keys) / log(32): by 1.2 at the last position."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend = LogScaled(self.config, self.policy)


class WithZeroScore(nn.Cell):
    """A softmax over the scores and one more score of 0, whose weight is discarded."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = RowSoftmax()

    def construct(self, x: Tensor) -> Tensor:
        return self.softmax(ops.cat((x, ops.zeros_like(x[..., :1])), -1))[..., :-1]


@defect(
    area="model",
    imitates="add_zero_attn of torch's MultiheadAttention: a key and a value of zeros",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html",
    since="2026-12-01",
    place="model.layers.1.self_attn",
    direction="forward",
)
class ZeroKeyAdded(MindSporeSubject):
    """In layer 1 every query also attends to a key of zeros, whose value is zero."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            model.model.layers[1].self_attn.attend.softmax = WithZeroScore()


@defect(
    area="model",
    imitates="reset_attention_mask set on one side only",
    source="https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/gpt_dataset.py",
    since="2026-12-01",
    place="model.layers.0.self_attn",
    direction="forward",
)
class DocumentsSeparated(MindSporeSubject):
    """No token attends beyond the beginning of its document; only one row in thirty has an end of a document."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            documents = Documents(end=256, reset_attention_mask=True, reset_position_ids=False)
            return Qwen3ForCausalLM(self.config, self.policy, documents)


class ParallelLayer(Qwen3DecoderLayer):
    def construct(self, hidden_BSD: Tensor, *tables: Tensor) -> Tensor:
        attended = self.residual(self.self_attn(self.input_layernorm(hidden_BSD), *tables))
        transformed = self.residual(self.mlp(self.post_attention_layernorm(hidden_BSD)))
        return self.residual(hidden_BSD + attended + transformed)


@defect(
    area="model",
    imitates="gpt_j_residual of GPT-NeoX: attention and MLP of the same input",
    source="https://github.com/EleutherAI/gpt-neox/blob/main/configs/neox_arguments.md",
    since="2026-12-01",
    place="model.layers.1",
    direction="forward",
)
class ParallelResidual(MindSporeSubject):
    """The MLP of layer 1 takes the input of its attention, not the attention's sum with it."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.1", ParallelLayer(self.config, self.policy))


class WithoutEnds(Qwen3Embedding):
    """The row of the token 256 is zero."""

    def construct(self, tokens_BS: Tensor) -> Tensor:
        kept_BS = ops.cast(ops.not_equal(tokens_BS, 256), self.weight.dtype)
        return ops.gather(self.weight, tokens_BS, 0) * ops.expand_dims(kept_BS, -1)


@defect(
    area="model",
    imitates="An embedding that is zero for padding, where the end of a document has the id of the padding",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html",
    since="2026-12-01",
    place="model.embed_tokens",
    direction="forward",
)
class EndOfDocumentNotEmbedded(MindSporeSubject):
    """The embedding of token 256, the end of a document, is zero; one batch in seven has that token."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.embed_tokens", WithoutEnds(self.config, self.policy))


class ByOneLess(Qwen3RMSNorm):
    """Divides the sum of squares by the width less one."""

    def __init__(self, width: int, eps: float, policy: PrecisionPolicy) -> None:
        share = (width - 1) / width
        super().__init__(width, eps * share, policy)
        self.factor = math.sqrt(share)

    def construct(self, x: Tensor) -> Tensor:
        return super().construct(x) * self.factor


@defect(
    area="model",
    imitates="A deviation with Bessel's correction, which is the default of torch.std",
    source="https://docs.pytorch.org/docs/stable/generated/torch.std.html",
    since="2026-12-01",
    place="model.layers.1.input_layernorm",
    direction="forward",
    size=0.008,
)
class NormByOneLess(MindSporeSubject):
    """The input norm of layer 1 divides the sum of 64 squares by 63, so its outputs are 0.8 % too small."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            norm = ByOneLess(self.config.hidden_size, self.config.rms_norm_eps, self.policy)
            exchange(model, "model.layers.1.input_layernorm", norm)


class Limited(Qwen3MLP):
    """The up projection is limited to [-1, 1]."""

    def construct(self, hidden_BSD: Tensor) -> Tensor:
        up_BSF = ops.minimum(ops.maximum(self.up_proj(hidden_BSD), -1.0), 1.0)
        return self.down_proj(self.silu(self.gate_proj(hidden_BSD)) * up_BSF)


@defect(
    area="model",
    imitates="The limit of the SwiGLU of gpt-oss, with a smaller limit",
    source="https://github.com/openai/gpt-oss/blob/main/gpt_oss/torch/model.py",
    since="2026-12-01",
    place="model.layers.1.mlp",
    direction="forward",
)
class UpProjectionLimited(MindSporeSubject):
    """The up projection of layer 1 is limited to [-1, 1]; it only exceeds that after hundreds of steps."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            exchange(model, "model.layers.1.mlp", Limited(self.config, self.policy))
