"""How a fault gets into the subject that is asked: each class is a part of it with one method left for the fault."""

from abc import ABC, abstractmethod
from typing import Any

import numpy.typing as npt

from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM
from qwen3_model.modeling_qwen3_infer import Decode, Qwen3ForInference
from qwen3_model.weights import load_into

Array = npt.NDArray[Any]


class ChangedAnswers(Qwen3ForInference, ABC):
    """Answers with a model that was changed after it was built; its configuration still states what was asked for."""

    def build_model(self) -> Qwen3ForCausalLM:
        model = super().build_model()
        self.change(model)
        return model

    @abstractmethod
    def change(self, model: Qwen3ForCausalLM) -> None: ...


class ChangedDecode(Qwen3ForInference, ABC):
    """Decodes with a second model of the same weights, which was changed; all else is computed by the first."""

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
    """Whether these columns are those of one newest token: prompts are padded to more."""
    return len(queries) == 1
