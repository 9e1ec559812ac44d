"""Equivalent formulas: the same mathematics as the shipped subject, computed in another way."""

from mindspore import Tensor, nn, ops

from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3 import Qwen3ForCausalLM, Qwen3RMSNorm
from qwen3_model.modeling_qwen3_train import Qwen3Trainer


class KeysRepeated(MindSporeSubject):
    """Keys and values are repeated for each query head before the products."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            for layer in model.model.layers:
                layer.self_attn.attend.repeats = True
            return model


class FrameworkSoftmax(MindSporeSubject):
    """Softmax with the framework's own derivative."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            for layer in model.model.layers:
                layer.self_attn.attend.softmax = nn.Softmax(-1)
            return model


class Normalize(nn.Cell):
    """x / sqrt(mean(x^2) + eps) * weight by operators, whose derivative is the framework's."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.row_mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return (x / ops.sqrt(self.row_mean(ops.square(x), -1) + self.eps) * weight,)


class FrameworkNorm(MindSporeSubject):
    """RMS norm with a division by the root, and the framework's own derivative."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            for _, cell in model.cells_and_names():
                if isinstance(cell, Qwen3RMSNorm):
                    cell.normalize = Normalize(self.config.rms_norm_eps)
            return model


class FrameworkSilu(MindSporeSubject):
    """The framework's own SiLU."""

    class trainer(Qwen3Trainer):
        def build_model(self) -> Qwen3ForCausalLM:
            model = super().build_model()
            for layer in model.model.layers:
                layer.mlp.silu = nn.SiLU()
            return model
