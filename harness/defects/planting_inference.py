"""Base classes for faults planted in inference: each is a part of the subject with one method to override."""

from abc import ABC, abstractmethod
from typing import Any

import numpy.typing as npt
from mindspore import Tensor

from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM, Qwen3RMSNorm
from qwen3_model.modeling_qwen3_infer import Decode, Qwen3ForInference
from qwen3_model.weights import load_into

Array = npt.NDArray[Any]


class ChangedInference(Qwen3ForInference, ABC):
    """Runs a model that was changed after it was built; its configuration still states the requested model."""

    def build_model(self) -> Qwen3ForCausalLM:
        model = super().build_model()
        self.change(model)
        return model

    @abstractmethod
    def change(self, model: Qwen3ForCausalLM) -> None: ...


class ChangedDecode(Qwen3ForInference, ABC):
    """Decodes with a second, changed model of the same weights; the first model computes everything else."""

    def build_decode(self) -> Decode:
        self.decoding = self.build_model()
        self.decoding.set_train(False)
        self.change(self.decoding)
        return Decode(self.decoding)

    def load_weights(self, tensors: dict[str, Array]) -> None:
        super().load_weights(tensors)
        load_into(self.decoding, tensors)

    @abstractmethod
    def change(self, model: Qwen3ForCausalLM) -> None: ...


class ChangedDecodeAlone(ChangedDecode):
    """The same only where a single row is decoded, as by an engine with another kernel for one row."""

    def build_decode(self) -> Decode:
        return ByRows(Decode(self.model), super().build_decode())


class ByRows(Decode):
    """One decode graph for several rows, another for one."""

    def __init__(self, several: Decode, one: Decode) -> None:
        super().__init__(several.model)
        self.several, self.one = several, one

    def construct(
        self, tokens_B1: Tensor, positions_B1: Tensor, here: Tensor, mask_B11C: Tensor, *kept: Tensor
    ) -> tuple[Tensor, ...]:
        if tokens_B1.shape[0] == 1:
            return self.one(tokens_B1, positions_B1, here, mask_B11C, *kept)
        return self.several(tokens_B1, positions_B1, here, mask_B11C, *kept)


def decoding(queries: Array) -> bool:
    """Whether these are the columns of a decode step: one token, while prompts are padded to more."""
    return len(queries) == 1


def set_epsilon(model: Qwen3ForCausalLM, epsilon: float) -> None:
    """Gives every norm of a model this epsilon."""
    for _, cell in model.cells_and_names():
        if isinstance(cell, Qwen3RMSNorm):
            cell.normalize = type(cell.normalize)(epsilon)
