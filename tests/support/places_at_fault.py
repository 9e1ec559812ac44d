"""Faults inside one step, each at one place: what `certify diagnose` has to name.

Each is a runner for `certify diagnose --subject tests.support.places_at_fault:NAME`.
"""

from typing import Any

import mindspore as ms
import numpy.typing as npt
from mindspore import Tensor, nn, ops

from harness.defects.planting import ChangedModel, exchange
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runners.protocol import Tensors
from qwen3_model.derivatives import Rotation, turn_halves
from qwen3_model.modeling_qwen3 import PlainAttention, Qwen3ForCausalLM, Qwen3RMSNorm
from qwen3_model.modeling_qwen3_train import Qwen3Trainer


class Around(nn.Cell):
    """A cell and what is done to its result; its weight keeps its name."""

    def __init__(self, cell: nn.Cell, then: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.then = then

    def construct(self, x: Tensor) -> Tensor:
        return self.then(self.cell(x))


class Idle(Qwen3RMSNorm):
    """A norm that gives what it takes; its weight is there and makes no difference."""

    def construct(self, x: Tensor) -> Tensor:
        return x


class IdleKeyNorm(MindSporeSubject):
    """The k norm of the last layer is called, and does nothing."""

    class trainer(ChangedModel):
        def change(self, model: Qwen3ForCausalLM) -> None:
            place = f"model.layers.{self.config.num_hidden_layers - 1}.self_attn.k_norm"
            exchange(model, place, Idle(self.config.head_dim, self.config.rms_norm_eps, self.policy))


class ScaledDerivative(nn.Cell):
    """x -> x, and 1.01 times the gradient."""

    def construct(self, x: Tensor) -> Tensor:
        return x

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        return (dout * 1.01,)


class RoundedToBfloat16(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return ops.cast(ops.cast(x, ms.bfloat16), ms.float32)


class Detached(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return ops.stop_gradient(x)


class ScaledRows(nn.Cell):
    """Half of the channels 1.001 times as large."""

    def construct(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return ops.cat((x[..., :half] * 1.001, x[..., half:]), -1)


def follow(parent: nn.Cell, slot: str, then: nn.Cell) -> None:
    """Set without renaming: a cell that is set as an attribute has its parameters named anew."""
    parent._cells[slot] = Around(parent._cells[slot], then)


class MlpGradientScaled(MindSporeSubject):
    """Layer 0: what goes back through the MLP is 1.01 times as large."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            follow(model.model.layers[0].mlp, "down_proj", ScaledDerivative())
            return model


class UpProjectionRounded(MindSporeSubject):
    """Layer 1: the result of the up projection is rounded to bfloat16."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            follow(model.model.layers[1].mlp, "up_proj", RoundedToBfloat16())
            return model


class ValuesDetached(MindSporeSubject):
    """Layer 1: no gradient goes back through the values."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            follow(model.model.layers[1].self_attn, "v_proj", Detached())
            return model


class ScoresUnscaled(MindSporeSubject):
    """The scores of layer 0 are 1.05 times as large."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            attend = model.model.layers[0].self_attn.attend
            assert isinstance(attend, PlainAttention)
            attend.scaling *= 1.05
            return model


class TurnedBack(Rotation):
    """By the opposite angle."""

    def construct(self, x: Tensor, cos_SH: Tensor, sin_SH: Tensor) -> Tensor:
        return x * cos_SH - turn_halves(x) * sin_SH


class RotaryBackwards(MindSporeSubject):
    """Layer 1: queries and keys are turned the other way."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            model.model.layers[1].self_attn._cells["rotate"] = TurnedBack()
            return model


class NormsExchanged(MindSporeSubject):
    """The weights of q norm and k norm of layer 0 are loaded each into the other."""

    class trainer(Qwen3Trainer):
        def load_weights(self, tensors: Tensors) -> None:
            query, key = (f"model.layers.0.self_attn.{part}_norm.weight" for part in ("q", "k"))
            super().load_weights({**tensors, query: tensors[key], key: tensors[query]})


class MaskIgnored(MindSporeSubject):
    """Every target counts."""

    class trainer(Qwen3Trainer):
        def train_step(self, tokens: npt.NDArray[Any], loss_mask: npt.NDArray[Any]) -> Any:
            return super().train_step(tokens, loss_mask * 0 + 1)

        def gradients(self, tokens: npt.NDArray[Any], loss_mask: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
            return super().gradients(tokens, loss_mask * 0 + 1)


class Opaque:
    """The subject, without a look inside."""

    def __init__(self, *arguments: Any) -> None:
        self._inner = MlpGradientScaled(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name == "taps":
            raise AttributeError(name)
        return getattr(self._inner, name)
