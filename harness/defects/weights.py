"""Defects of the weights: training starts from other weights than the given ones.

A run states the digests of its initial weights, which is enough to detect all of these.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.defects import defect
from harness.defects.planting import bfloat16
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.weights import Tensors

Loaded = dict[str, npt.NDArray[Any]]


class OtherWeights(Qwen3Trainer, ABC):
    """Loads other tensors than the given ones."""

    def load_weights(self, tensors: Tensors) -> None:
        super().load_weights(self.loaded(dict(tensors)))

    @abstractmethod
    def loaded(self, tensors: Loaded) -> Tensors: ...


def renamed(tensors: Loaded, a: str, b: str) -> Loaded:
    """The tensors with the names that contain `a` and `b` exchanged."""

    def other(name: str) -> str:
        return name.replace(a, b) if a in name else name.replace(b, a)

    return {name: tensors[other(name)] for name in tensors}


@defect(
    area="weights",
    imitates="A fused projection split in the order q, v, k",
    source="https://github.com/alibaba/ChatLearn/pull/277",
    since="2026-11-24",
    place="model.layers.0.self_attn.k_proj.weight",
    direction="forward",
)
class KeyAndValueExchanged(MindSporeSubject):
    """In every layer the weights of key and value projection are exchanged; their shapes are the same."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            return renamed(tensors, "k_proj", "v_proj")


@defect(
    area="weights",
    imitates="A mapping of names that exchanges two norms of one shape",
    source="https://arxiv.org/abs/2505.09388",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_norm.weight",
    direction="forward",
)
class QueryAndKeyNormExchanged(MindSporeSubject):
    """In every layer the weights of q norm and k norm are exchanged; weights of all ones would hide it."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            return renamed(tensors, "q_norm", "k_norm")


@defect(
    area="weights",
    imitates="Layers sorted by name, 10 before 2, or counted from the other end",
    source="https://docs.python.org/3/howto/sorting.html",
    since="2026-11-24",
    place="model.layers.0.input_layernorm.weight",
    direction="forward",
)
class LayersReversed(MindSporeSubject):
    """The weights of the first and the second layer are exchanged."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            return renamed(tensors, "layers.0.", "layers.1.")


@defect(
    area="weights",
    imitates="A weight in the layout of GPT-2's Conv1D, which no shape check rejects if it is square",
    source="https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/pytorch_utils.py",
    since="2026-11-24",
    place="model.layers.0.self_attn.k_proj.weight",
    direction="forward",
)
class SquareTransposed(MindSporeSubject):
    """Every square projection of layer 0 is transposed."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            return {
                name: tensor.T if name.startswith("model.layers.0.") and len({*tensor.shape}) < tensor.ndim else tensor
                for name, tensor in tensors.items()
            }


@defect(
    area="weights",
    imitates="strict=False, which leaves a tensor with another name at its random values",
    source="https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html",
    since="2026-11-24",
    place="model.layers.1.self_attn.o_proj.weight",
    direction="forward",
)
class TensorNotLoaded(MindSporeSubject):
    """One output projection starts from other random numbers."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            name = "model.layers.1.self_attn.o_proj.weight"
            drawn = np.random.RandomState(0).standard_normal(tensors[name].shape)
            return tensors | {name: (self.config.initializer_range * drawn).astype(np.float32)}


@defect(
    area="weights",
    imitates="A checkpoint that was stored in bfloat16 in between",
    source="https://github.com/huggingface/transformers/issues/25681",
    since="2026-11-24",
    place="model.embed_tokens.weight",
    direction="forward",
)
class WeightsThroughBfloat16(MindSporeSubject):
    """Every weight is rounded to bfloat16 before training starts."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            return {name: bfloat16(tensor) for name, tensor in tensors.items()}


@defect(
    area="weights",
    imitates="A norm that is missing in a mapping of names",
    source="https://arxiv.org/abs/1910.07467",
    since="2026-11-24",
    place="model.layers.1.post_attention_layernorm.weight",
    direction="forward",
)
class NormLeftAtOnes(MindSporeSubject):
    """The weights of one norm stay at one."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            name = "model.layers.1.post_attention_layernorm.weight"
            return tensors | {name: np.ones_like(tensors[name])}


@defect(
    area="weights",
    imitates="A head set to the embedding although they are not tied in the configuration",
    source="https://github.com/deepspeedai/DeepSpeed/pull/4088",
    since="2026-11-24",
    place="lm_head.weight",
    direction="forward",
)
class HeadFromEmbedding(MindSporeSubject):
    """The head starts as a copy of the embedding."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            return tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}


@defect(
    area="weights",
    imitates="The permutation for interleaved rotary embedding applied to weights that already had it",
    source="https://github.com/Dao-AILab/flash-attention/issues/288",
    since="2026-11-24",
    place="model.layers.0.self_attn.q_proj.weight",
    direction="forward",
)
class RowsPermutedTwice(MindSporeSubject):
    """The rows of each head of one query projection are in interleaved order."""

    class trainer(OtherWeights):
        def loaded(self, tensors: Loaded) -> Tensors:
            name = "model.layers.0.self_attn.q_proj.weight"
            rows = np.arange(len(tensors[name])).reshape(-1, self.config.head_dim // 2, 2)
            return tensors | {name: tensors[name][rows.swapaxes(1, 2).reshape(-1)]}
