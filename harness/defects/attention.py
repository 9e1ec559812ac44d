"""Defects of the attention: heads, scale, mask, and dropout of the probabilities."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from harness.defects import defect
from harness.defects.planting import ChangedModel, layers
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.derivatives import RowSoftmax
from qwen3_model.modeling_qwen3 import LOWEST, PlainAttention, Qwen3ForCausalLM
from qwen3_model.precision_policy import PrecisionPolicy


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
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class HeadsTiled(MindSporeSubject):
    """Query heads use the key heads in turn, not in consecutive groups."""

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
    since="2026-11-24",
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
    since="2026-11-24",
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
    since="2026-11-24",
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
    since="2026-11-24",
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
    imitates="A strict comparison of positions that excludes equality",
    source="https://github.com/Dao-AILab/flash-attention#21-change-behavior-of-causal-flag",
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class MaskHidesOwnToken(MindSporeSubject):
    """No position attends to itself; the first one, with every key masked, attends to all equally."""

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
    since="2026-11-24",
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
    imitates="A tiled kernel that skips the last key of a block that is not full",
    source="https://arxiv.org/abs/2205.14135",
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
)
class LastKeyLeftOut(MindSporeSubject):
    """No query attends to the last key; under a causal mask that is one score of each head."""

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
    since="2026-11-24",
    place="model.layers.0.self_attn",
    direction="forward",
    size=0.001,
)
class AttentionDropoutLeftOn(MindSporeSubject):
    """One attention weight in a thousand is dropped, by a generator with the case's seed."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            for _, layer in layers(model):
                layer.self_attn.attend.softmax = DroppedSoftmax()


class TwoRowsAsOne(PlainAttention):
    """Two rows of a batch are packed into one sequence; each keeps its own positions."""

    def construct(self, query_BNSH: Tensor, key_BKSH: Tensor, value_BKSH: Tensor, mask: Tensor | None = None) -> Tensor:
        B, N, S, H = query_BNSH.shape
        packed = [self.pack(x) for x in (query_BNSH, key_BKSH, value_BKSH)]
        mixed = self.masked(packed[0], packed[1], packed[2], self.causal_mask(2 * S))
        return ops.reshape(ops.transpose(ops.reshape(mixed, (B // 2, N, 2, S, H)), (0, 2, 1, 3, 4)), (B, N, S, H))

    def pack(self, x_BKSH: Tensor) -> Tensor:
        B, K, S, H = x_BKSH.shape
        pairs = ops.transpose(ops.reshape(x_BKSH, (B // 2, 2, K, S, H)), (0, 2, 1, 3, 4))
        return ops.reshape(pairs, (B // 2, K, 2 * S, H))


@defect(
    area="model",
    imitates="Rows packed into one sequence whose mask lets the later one see the earlier one",
    source="https://github.com/huggingface/transformers/pull/46634",
    reported="2026-06-14",
    since="2026-11-30",
    place="model.layers.0.self_attn",
    direction="forward",
)
class PackedRowsLeak(MindSporeSubject):
    """Every second row of a batch also attends to the row before it."""

    class trainer(Masked):
        attention = TwoRowsAsOne
