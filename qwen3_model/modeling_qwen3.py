"""Qwen3, dense, for MindSpore: one file in the order of the forward pass.

Parameter names are Hugging Face's, so a checkpoint is checked against the model and never mapped. The model is written
for GRAPH mode; PYNATIVE gives the same mathematics.

Precision: matrix products, `q k^T * scaling` and SwiGLU work in `compute_dtype`; norms, softmax, rotary embedding and
the residual stream in their own dtypes (`PrecisionPolicy`). MindSpore has no bfloat16 arithmetic on a CPU, only casts.
There the inputs and the result of an operator are rounded to bfloat16 around a float32 operator. The derivative of
such a pair of casts rounds the gradient the same way, so gradients are rounded at the points where bfloat16
operators would round them. On other devices tensors really are bfloat16, and parts of a layer are fused operators
(`fuses`).

Shape legend: B batch, S sequence, D model width, F MLP width, N query heads, K key-value heads, H head width,
V vocabulary.

Source: transformers 4.57.1, `models/qwen3/modeling_qwen3.py`.
"""

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.derivatives import RMSNormalize, Rotation, RowSoftmax, SiLU, Spread, SwapAxes, on_cpu
from qwen3_model.documents import Documents
from qwen3_model.fused import FusedRMSNormalize, FusedRotation, FusedSwiGLU
from qwen3_model.precision_policy import PrecisionPolicy

DTYPES = {"float32": ms.float32, "bfloat16": ms.bfloat16}
LOWEST = float(np.finfo(np.float32).min)


def fuses(policy: PrecisionPolicy) -> bool:
    """Whether cells are built of the device's fused operators; a CPU has none."""
    return policy.fused and not on_cpu()


class Precision(nn.Cell):
    """Operands and results of one dtype; see the module's note on bfloat16 on a CPU."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.dtype = DTYPES[dtype]
        self.emulated = dtype == "bfloat16" and on_cpu()

    def construct(self, x: Tensor) -> Tensor:
        """`x` rounded to the dtype: as an operand, or as the result of an operator that worked in it."""
        x = ops.cast(x, self.dtype)
        if self.emulated:
            x = ops.cast(x, ms.float32)
        return x


class Qwen3Embedding(nn.Cell):
    """The rows of `weight` [V, D] at the token ids."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.weight = _normal((config.vocab_size, config.hidden_size), config, policy)

    def construct(self, tokens_BS: Tensor) -> Tensor:
        return ops.gather(self.weight, tokens_BS, 0)


class Qwen3RMSNorm(nn.Cell):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis, in `layernorm_compute_dtype` throughout."""

    def __init__(self, width: int, eps: float, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.weight = Parameter(initializer("ones", (width,), DTYPES[policy.params_dtype]), name="weight")
        self.round = Precision(policy.layernorm_compute_dtype)
        self.normalize = FusedRMSNormalize(eps) if fuses(policy) else RMSNormalize(eps)

    def construct(self, x: Tensor) -> Tensor:
        # As rows: reductions over the last of three or four axes are ten times slower on a CPU.
        rows = ops.reshape(self.round(x), (-1, x.shape[-1]))
        return ops.reshape(self.round(self.normalize(rows, self.round(self.weight))[0]), x.shape)


class Qwen3RotaryEmbedding(nn.Cell):
    """Tables of cos(p * f_i) and sin(p * f_i), f_i = theta^(-2i/H), the same in both halves of the head: two [S, H]."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        angles = self.angles(config)
        self.cos = Tensor(np.cos(angles.astype(np.float64)).astype(np.float32))
        self.sin = Tensor(np.sin(angles.astype(np.float64)).astype(np.float32))
        self.round = Precision(policy.rotary_dtype)

    @staticmethod
    def inverse_frequencies(config: Qwen3Config) -> npt.NDArray[np.float32]:
        """theta^(-2i/H) [H/2], rounded to float32 at each operation, as the published models were trained with."""
        exponents = np.arange(0, config.head_dim, 2).astype(np.float32) / np.float32(config.head_dim)
        powers = np.power(float(config.rope_theta), exponents.astype(np.float64)).astype(np.float32)
        return np.float32(1.0) / powers

    def angles(self, config: Qwen3Config) -> npt.NDArray[np.float32]:
        """p * f_i in float32, [max_position_embeddings, H]."""
        positions = np.arange(config.max_position_embeddings, dtype=np.float32)
        half = positions[:, None] * self.inverse_frequencies(config)[None, :]
        return np.concatenate([half, half], axis=-1)

    def construct(self, length: int) -> tuple[Tensor, Tensor]:
        return self.round(self.cos[:length]), self.round(self.sin[:length])


class DocumentBoundaries(nn.Cell):
    """What the layers of rows of several documents take: tokens [B, S] and rotary tables [S, H] -> the tables by the
    position in the document [B, 1, S, H], and the attention mask of each row [B, 1, S, S]; each only if it is reset."""

    def __init__(self, documents: Documents) -> None:
        super().__init__()
        self.end = documents.end
        self.of_positions, self.of_attention = documents.reset_position_ids, documents.reset_attention_mask

    def construct(self, tokens_BS: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> tuple[Tensor, ...]:
        own_BSS = self.own_past(self.document(tokens_BS))
        tables: tuple[Tensor, ...] = (cos_SH, sin_SH)
        if self.of_positions:
            positions_BS = self.positions(own_BSS)
            tables = (self.at(cos_SH, positions_BS), self.at(sin_SH, positions_BS))
        if self.of_attention:
            tables = (*tables, ops.expand_dims((1.0 - own_BSS) * LOWEST, 1))
        return tables

    def ended(self, tokens_BS: Tensor) -> Tensor:
        """1 where a document ends, else 0."""
        return ops.cast(ops.equal(tokens_BS, self.end), ms.float32)

    def document(self, tokens_BS: Tensor) -> Tensor:
        """The number of documents that ended before each token; exact in float32 below 2^24."""
        ended_BS = self.ended(tokens_BS)
        return ops.cumsum(ended_BS, 1) - ended_BS

    def own_past(self, document_BS: Tensor) -> Tensor:
        """[B, S, S]: 1 where the second token is not later than the first and of the same document, else 0."""
        S = document_BS.shape[1]
        same_BSS = ops.equal(ops.expand_dims(document_BS, 2), ops.expand_dims(document_BS, 1))
        return ops.cast(same_BSS, ms.float32) * ops.tril(ops.ones((S, S), ms.float32))

    def positions(self, own_BSS: Tensor) -> Tensor:
        """[B, S]: how many tokens of its document are before each."""
        return ops.cast(ops.sum(own_BSS, -1), ms.int32) - 1

    def at(self, table_SH: Tensor, positions_BS: Tensor) -> Tensor:
        """The rows of a table at positions, the same for every head."""
        return ops.expand_dims(ops.gather(table_SH, positions_BS, 0), 1)


class Qwen3Linear(nn.Cell):
    """`x @ weight^T`, no bias: [..., in] -> [..., out], in `compute_dtype`."""

    def __init__(self, width_in: int, width_out: int, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.weight = _normal((width_out, width_in), config, policy)
        self.project = Projection(policy)

    def construct(self, x: Tensor) -> Tensor:
        return self.project(x, self.weight)


class Projection(nn.Cell):
    """`x @ weight^T` with a weight passed as an argument (a tied head passes the embedding's)."""

    def __init__(self, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.round = Precision(policy.compute_dtype)
        # transpose_b: an explicit transpose before the product costs a copy of the weight on a CPU.
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        rows = ops.reshape(self.round(x), (-1, x.shape[-1]))
        product = self.round(self.matmul(rows, self.round(weight)))
        return ops.reshape(product, (*x.shape[:-1], weight.shape[0]))


class PlainAttention(nn.Cell):
    """softmax(q k^T * scaling + causal mask) v, operator by operator."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.groups = config.num_key_value_groups
        self.scaling = config.head_dim**-0.5
        self.round = Precision(policy.compute_dtype)
        self.round_softmax = Precision(policy.softmax_compute_dtype)
        # The reference repeats keys and values, and rounds each copy's gradient before it adds the copies up.
        # In float32 nothing is rounded, so the product does the sum and no copies are needed.
        self.repeats = policy.compute_dtype != "float32"
        self.softmax = RowSoftmax()
        self.spread = Spread()
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()

    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` is added to the scores, [B, 1, S, S]; without it the attention is causal."""
        if mask is None:
            mask = self.causal_mask(query_BNSH.shape[2])
        return self.masked(query_BNSH, key_BKSH, value_BKSH, mask)

    def masked(self, query_BNSH: Tensor, key_BKTH: Tensor, value_BKTH: Tensor, mask: Tensor) -> Tensor:
        """Attention of S queries over T keys, with a mask that is added to the scores [B, N, S, T]."""
        if self.repeats:
            key_BKTH, value_BKTH = self.repeat(key_BKTH), self.repeat(value_BKTH)
        B, N, S, H = query_BNSH.shape
        # The query heads that share a key head are consecutive: together they are rows of one product.
        query = ops.reshape(self.round(query_BNSH), (B, key_BKTH.shape[1], -1, H))
        scores = self.round(self.round(self.scores(query, self.round(key_BKTH))) * self.scaling)
        scores_BNST = ops.reshape(self.round_softmax(scores), (B, N, S, key_BKTH.shape[2]))
        masked_BNST = scores_BNST + self.spread(mask, scores_BNST)
        weights = ops.reshape(self.round(self.round_softmax(self.softmax(masked_BNST))), scores.shape)
        return ops.reshape(self.round(self.mix(weights, self.round(value_BKTH))), (B, N, S, H))

    def causal_mask(self, length: int) -> Tensor:
        """[S, S]: 0 where the key is not later than the query, else the lowest float32, as Hugging Face adds it."""
        return ops.triu(ops.full((length, length), LOWEST, dtype=ms.float32), 1)

    def repeat(self, x_BKSH: Tensor) -> Tensor:
        """Each key-value head once per query head that shares it: [B, N, S, H]."""
        B, K, S, H = x_BKSH.shape
        repeated = ops.broadcast_to(ops.expand_dims(x_BKSH, 2), (B, K, self.groups, S, H))
        return ops.reshape(repeated, (B, K * self.groups, S, H))


class FusedAttention(nn.Cell):
    """The same mathematics in Ascend's fused operator, which takes grouped keys and values as they are."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.scaling = config.head_dim**-0.5
        self.dtype = DTYPES[policy.compute_dtype]
        # sparse_mode 2 (causal, aligned left) takes this one compressed mask for every sequence length; True is hidden.
        self.mask = Tensor(np.triu(np.ones((2048, 2048), dtype=bool), k=1))

    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` as for the plain attention: then sparse_mode 0 takes a mask of every position, [B, 1, S, S]."""
        return ops.flash_attention_score(
            ops.cast(query_BNSH, self.dtype),
            ops.cast(key_BKSH, self.dtype),
            ops.cast(value_BKSH, self.dtype),
            self.heads,
            attn_mask=self.mask if mask is None else mask < 0,
            scalar_value=self.scaling,
            input_layout="BNSD",
            sparse_mode=2 if mask is None else 0,
        )


def attention_for_device(config: Qwen3Config, policy: PrecisionPolicy) -> nn.Cell:
    """The attention of the current device: the fused operator exists on Ascend only, and in half precision only."""
    if fuses(policy) and policy.compute_dtype == "bfloat16":
        return FusedAttention(config, policy)
    return PlainAttention(config, policy)


class Qwen3Attention(nn.Cell):
    """Grouped-query attention with RMS norms on each head's query and key, before the rotary embedding."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        D, H = config.hidden_size, config.head_dim
        N, K = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = H
        self.q_proj = Qwen3Linear(D, N * H, config, policy)
        self.k_proj = Qwen3Linear(D, K * H, config, policy)
        self.v_proj = Qwen3Linear(D, K * H, config, policy)
        self.o_proj = Qwen3Linear(N * H, D, config, policy)
        self.q_norm = Qwen3RMSNorm(H, config.rms_norm_eps, policy)
        self.k_norm = Qwen3RMSNorm(H, config.rms_norm_eps, policy)
        self.round_rotary = Precision(policy.rotary_dtype)
        self.rotate = FusedRotation() if fuses(policy) else Rotation()
        self.swap = SwapAxes()
        self.attend = attention_for_device(config, policy)

    def construct(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tables [S, H] or for each row [B, 1, S, H]; `mask` only if attention is not just causal."""
        query, key = self.query(hidden_BSD, cos_SH, sin_SH), self.key(hidden_BSD, cos_SH, sin_SH)
        value = self.swap(self.split_heads(self.v_proj(hidden_BSD)))
        mixed_BNSH = self.attend(query, key, value) if mask is None else self.attend(query, key, value, mask)
        mixed_BSNH = self.swap(mixed_BNSH)
        return self.o_proj(ops.reshape(mixed_BSNH, (*hidden_BSD.shape[:2], -1)))

    def query(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        """[B, N, S, H], normed, then rotated."""
        return self.rotary(self.q_norm(self.split_heads(self.q_proj(hidden_BSD))), cos_SH, sin_SH)

    def key(self, hidden_BSD: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        """[B, K, S, H], normed, then rotated."""
        return self.rotary(self.k_norm(self.split_heads(self.k_proj(hidden_BSD))), cos_SH, sin_SH)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, S, heads * H] -> [B, S, heads, H]."""
        return ops.reshape(x, (*x.shape[:2], -1, self.head_dim))

    def rotary(self, x_BSNH: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        """[B, S, heads, H] -> [B, heads, S, H], rotated by position."""
        x_BNSH = self.swap(self.round_rotary(x_BSNH))
        return self.round_rotary(self.rotate(x_BNSH, cos_SH, sin_SH))


class Qwen3MLP(nn.Cell):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        D, F = config.hidden_size, config.intermediate_size
        self.gate_proj = Qwen3Linear(D, F, config, policy)
        self.up_proj = Qwen3Linear(D, F, config, policy)
        self.down_proj = Qwen3Linear(F, D, config, policy)
        self.silu = SiLU() if on_cpu() else nn.SiLU()
        self.round = Precision(policy.compute_dtype)
        self.swiglu = FusedSwiGLU() if fuses(policy) else None

    def construct(self, hidden_BSD: Tensor) -> Tensor:
        if self.swiglu is not None:
            return self.down_proj(self.swiglu(self.gate_proj(hidden_BSD), self.up_proj(hidden_BSD)))
        gate_BSF = self.round(self.silu(self.gate_proj(hidden_BSD)))
        return self.down_proj(self.round(gate_BSF * self.up_proj(hidden_BSD)))


class Qwen3DecoderLayer(nn.Cell):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy) -> None:
        super().__init__()
        self.self_attn = Qwen3Attention(config, policy)
        self.mlp = Qwen3MLP(config, policy)
        self.input_layernorm = Qwen3RMSNorm(config.hidden_size, config.rms_norm_eps, policy)
        self.post_attention_layernorm = Qwen3RMSNorm(config.hidden_size, config.rms_norm_eps, policy)
        self.residual = Precision(policy.residual_dtype)

    def construct(self, hidden_BSD: Tensor, *tables: Tensor) -> Tensor:
        """`tables` are cosines, sines, and the attention mask if there is one."""
        attended = self.self_attn(self.input_layernorm(hidden_BSD), *tables)
        hidden_BSD = self.residual(hidden_BSD + self.residual(attended))
        return self.residual(hidden_BSD + self.residual(self.mlp(self.post_attention_layernorm(hidden_BSD))))


class Qwen3Model(nn.Cell):
    """Embedding, decoder layers, final norm: tokens [B, S] -> hidden [B, S, D]."""

    def __init__(self, config: Qwen3Config, policy: PrecisionPolicy, documents: Documents | None = None) -> None:
        super().__init__()
        self.embed_tokens = Qwen3Embedding(config, policy)
        self.rotary_emb = Qwen3RotaryEmbedding(config, policy)
        self.boundaries = DocumentBoundaries(documents) if documents else None
        self.layers = nn.CellList([Qwen3DecoderLayer(config, policy) for _ in range(config.num_hidden_layers)])
        self.norm = Qwen3RMSNorm(config.hidden_size, config.rms_norm_eps, policy)
        self.residual = Precision(policy.residual_dtype)

    def construct(self, tokens_BS: Tensor) -> Tensor:
        tables = self.rotary_emb(tokens_BS.shape[1])
        if self.boundaries is not None:
            tables = self.boundaries(tokens_BS, *tables)
        hidden_BSD = self.residual(self.embed_tokens(tokens_BS))
        for layer in self.layers:
            hidden_BSD = layer(hidden_BSD, *tables)
        return self.norm(hidden_BSD)


class Qwen3ForCausalLM(nn.Cell):
    """Logits [B, S, V] in `compute_dtype`; a tied head projects onto the embedding and has no weight of its own."""

    def __init__(
        self, config: Qwen3Config, policy: PrecisionPolicy | None = None, documents: Documents | None = None
    ) -> None:
        super().__init__()
        policy = policy or PrecisionPolicy()
        self.config = config
        self.policy = policy
        self.tied = config.tie_word_embeddings
        self.model = Qwen3Model(config, policy, documents)
        self.project = Projection(policy)
        if not self.tied:
            self.lm_head = Qwen3Linear(config.hidden_size, config.vocab_size, config, policy)

    def construct(self, tokens_BS: Tensor) -> Tensor:
        hidden_BSD = self.model(tokens_BS)
        if self.tied:
            return self.project(hidden_BSD, self.model.embed_tokens.weight)
        return self.lm_head(hidden_BSD)


def _normal(shape: tuple[int, int], config: Qwen3Config, policy: PrecisionPolicy) -> Parameter:
    return Parameter(initializer(Normal(config.initializer_range), shape, DTYPES[policy.params_dtype]), name="weight")
