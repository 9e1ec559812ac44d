"""Base classes for faults planted in inference: each is a part of the subject with one method to override."""

from abc import ABC, abstractmethod
from typing import Any

import numpy.typing as npt

from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM
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


def decoding(queries: Array) -> bool:
    """Whether these are the columns of a decode step: one token, while prompts are padded to more."""
    return len(queries) == 1
