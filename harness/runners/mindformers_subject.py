"""The subject: mindformers' own Qwen3, with its conversion of weights, its clipping and its AdamW.

The model is `TrainingQwen3ForCausalLM`, mindformers' training graph, compiled. Its loss gives the sum over the tokens
of a micro-batch, which is divided here by the count of the global batch, so that micro-batches add up. On a CPU the
operators that exist for Ascend alone are replaced; see `harness.runners.mindformers_on_cpu`.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# mindformers writes its log as soon as it is imported, by default into the directory that the run was started from.
# It prints the same lines, so the log of the run has them.
os.environ.setdefault("LOG_MF_PATH", f"{tempfile.gettempdir()}/mindformers-log-{os.getuid()}")

import mindformers
import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindformers.core.clip_grad import ClipGradNorm
from mindformers.core.context import build_mf_context
from mindformers.core.optim import AdamW
from mindformers.models.qwen3.configuration_qwen3 import Qwen3Config
from mindformers.models.qwen3.modeling_qwen3_train import TrainingQwen3ForCausalLM
from mindspore import Parameter, Tensor, nn, ops
from safetensors.numpy import load_file, save_file

from harness.cases.case import Case
from harness.runners.mindformers_on_cpu import replace_operators
from harness.runners.mindspore_subject import build_schedule, mindspore_operators, prepare_process
from harness.runners.protocol import Numbers, Setting, Tensors
from harness.runners.registry import check_mindformers
from harness.runs.alignment import alignment
from harness.runs.mindformers_model import as_asked, built_config, fused_rows
from harness.runs.operators import Operator
from qwen3_model.weights import set_parameters

Array = npt.NDArray[Any]
STATE = "state.safetensors"
DTYPES = ("params_dtype", "compute_dtype", "layernorm_compute_dtype", "softmax_compute_dtype", "rotary_dtype")
# As `pad` of mindformers' data sets. The model hides every input that is its `pad_token_id` from attention; here
# nothing but the loss mask says what counts.
NO_TOKEN = -1


class GlobalLoss(nn.Cell):
    """Model and loss: tokens, targets, mask [B, S] and the global batch's count -> these rows' part of the loss."""

    def __init__(self, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor) -> Tensor:
        return self.model(tokens_BS, labels=targets_BS, loss_mask=mask_BS)[0] / count


class Gradients(nn.Cell):
    """Loss and the gradient of every parameter."""

    def __init__(self, loss: GlobalLoss, parameters: ms.ParameterTuple) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.grad = ms.value_and_grad(loss, None, parameters)

    def construct(
        self, tokens_BS: Tensor, targets_BS: Tensor, mask_BS: Tensor, count: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.grad(tokens_BS, targets_BS, mask_BS, count)


class Update(nn.Cell):
    """Clipping and AdamW by the gradients of the global batch -> their norm before clipping, [1]."""

    def __init__(self, optimizer: nn.Cell, clip_grad: float | None) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.clips = clip_grad is not None
        # Without a threshold it is there for the norm alone.
        self.clip = ClipGradNorm(1.0 if clip_grad is None else clip_grad)

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        clipped, norm = self.clip(gradients)
        return ops.depend(norm, self.optimizer(clipped if self.clips else gradients))


class MindFormersSubject:
    """See `harness.runners.protocol.Runner`. A variant overrides `model_config`.

    Raises:
        InputError: the case asks for what it cannot do; see `check_mindformers`.
    """

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        check_mindformers(case, setting.device)
        prepare_process(setting.device, setting.threads)
        self._enter_mode()
        ms.set_seed(case.initialization.seed)
        # Unless told otherwise, mindformers takes every model for one of its older kind.
        build_mf_context({"use_legacy": False, "context": {}, "parallel": {}})
        self._case, self._setting = case, setting
        self._replaced = replace_operators() if setting.device == "CPU" else ()
        self._schedule = build_schedule(case, setting)
        self._micro_batches = case.training.gradient_accumulation_steps
        self._model = TrainingQwen3ForCausalLM(self.model_config(case))
        self._model.set_train()
        if case.training.recompute:
            for layer in self._model.get_gpt_model().decoder.layers:
                layer.recompute()
        self._parameters = ms.ParameterTuple(self._model.trainable_params())
        self._places = dict(fused_rows(self._model, weights))
        set_parameters(self._parameters, self._model.convert_weight_dict(dict(weights)), type(self._model).__name__)
        self._optimizer = build_optimizer(case, self._parameters)
        self._gradients = Gradients(GlobalLoss(self._model), self._parameters)
        self._update = Update(self._optimizer, case.training.clip_grad)

    def model_config(self, case: Case) -> Qwen3Config:
        """The model in mindformers' words: `config.json`, and what mindformers asks for beside it."""
        return Qwen3Config(
            **case.model.to_hf(),
            **{name: getattr(case.precision, name) for name in DTYPES},
            fp32_residual_connection=case.precision.residual_dtype == "float32",
            seq_length=case.data.seq_length,
            pad_token_id=NO_TOKEN,
            position_embedding_type="rope",
            hidden_dropout=0.0,
            calculate_per_token_loss=True,
        )

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update by the global batch; with accumulation it is split into equal micro-batches, in order."""
        loss, gradients = self._backward(tokens, loss_mask)
        learning_rate = self._set_learning_rate()
        norm = self._update(ms.mutable(gradients))
        return Numbers(
            loss=loss,
            grad_norm=float(norm.asnumpy().item()),
            learning_rate=learning_rate,
            tokens=int(np.count_nonzero(loss_mask)),
        )

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> dict[str, Array]:
        """Not clipped; nothing is updated."""
        return self._by_hugging_face_name(self._backward(tokens, loss_mask)[1])

    def apply_gradients(self, gradients: Tensors) -> None:
        """One update by given gradients, without clipping."""
        self._enter_mode()
        given = self._model.convert_weight_dict(dict(gradients))
        self._set_learning_rate()
        self._optimizer(ms.mutable(tuple(Tensor(given[name], ms.float32) for name in names_of(self._parameters))))

    def parameters(self) -> dict[str, Array]:
        """Copies, by Hugging Face name."""
        return self._by_hugging_face_name(self._parameters)

    def moments(self) -> dict[str, Array]:
        """Copies of the first moments, by the names of their parameters."""
        return self._by_hugging_face_name(self._optimizer.exp_avg)

    def operators(self) -> Mapping[str, Operator]:
        """MindSpore's own."""
        return mindspore_operators()

    def alignment(self) -> dict[str, Any]:
        """What was built, read off its cells: see `harness.runs.alignment`."""
        optimizer, asked, clip_grad = self._optimizer, self._case.optimizer, self._case.training.clip_grad
        decay = {p.name: float(rate) for p, rate in zip(optimizer.parameters, optimizer.weight_decay, strict=True)}
        return alignment(
            model=built_config(self._model.get_gpt_model()),
            shapes={name: tensor.shape for name, tensor in self.parameters().items()},
            optimizer={
                "beta1": as_asked(optimizer.beta1, asked.betas[0]),
                "beta2": as_asked(optimizer.beta2, asked.betas[1]),
                "eps": as_asked(optimizer.eps, asked.eps),
                "weight_decay": as_asked(max(decay.values()), asked.weight_decay),
            },
            decayed=frozenset(name for name, place in self._places.items() if decay[place.parameter] > 0),
            clip_grad=None if clip_grad is None else as_asked(self._update.clip.clip_norm, clip_grad),
            gradient_accumulation_steps=self._micro_batches,
        )

    def save(self, directory: Path) -> None:
        """Parameters, moments and the number of updates, by mindformers' names; all else follows from them."""
        directory.mkdir(parents=True, exist_ok=True)
        save_file({parameter.name: parameter.asnumpy() for parameter in self._state()}, directory / STATE)

    def load(self, directory: Path) -> None:
        """Continues where `save` stopped."""
        set_parameters(self._state(), load_file(directory / STATE), str(directory / STATE))

    def provenance(self) -> dict[str, Any]:
        """Versions, device and mode, and which operators of mindformers' did not run.

        Its attention casts to float16 what is wider, whatever the case says; only the replaced one does not.
        """
        return {
            "mindformers": mindformers.__version__,
            "mindspore": ms.__version__,
            "device": self._setting.device,
            "mode": "GRAPH",
            "threads": self._setting.threads,
            "attention": "float32" if self._replaced else "float16",
            "replaced": list(self._replaced),
        }

    def _backward(self, tokens: Array, loss_mask: Array) -> tuple[float, tuple[Tensor, ...]]:
        """Loss and gradients of the global batch: both are sums over its micro-batches."""
        self._enter_mode()
        parts = [self._gradients(*batch) for batch in self._batches(tokens, loss_mask)]
        losses = [loss.asnumpy().item() for loss, _ in parts]
        gradients = parts[0][1]
        for _, more in parts[1:]:
            gradients = tuple(a + b for a, b in zip(gradients, more, strict=True))
        return float(np.sum(losses, dtype=np.float32)), gradients

    def _batches(self, tokens: Array, loss_mask: Array) -> Iterator[tuple[Tensor, ...]]:
        """(inputs, targets, mask, count) of each micro-batch; the count is the global batch's."""
        count = Tensor(np.count_nonzero(loss_mask), ms.float32)
        for rows in np.split(np.arange(len(tokens)), self._micro_batches):
            inputs, targets, mask = tokens[rows, :-1], tokens[rows, 1:], loss_mask[rows]
            yield Tensor(inputs, ms.int32), Tensor(targets, ms.int32), Tensor(mask, ms.float32), count

    def _set_learning_rate(self) -> float:
        """Hands the optimizer the rate of its next update."""
        learning_rate = self._schedule.learning_rate(1 + int(self._optimizer.global_step.asnumpy().item()))
        self._optimizer.learning_rate.set_data(Tensor(learning_rate, ms.float32))
        return learning_rate

    def _by_hugging_face_name(self, tensors: Sequence[Tensor]) -> dict[str, Array]:
        fused = dict(zip(names_of(self._parameters), (tensor.asnumpy().copy() for tensor in tensors), strict=True))
        return {name: fused[place.parameter][place.rows] for name, place in self._places.items()}

    def _state(self) -> list[Parameter]:
        optimizer = self._optimizer
        return [*self._parameters, *optimizer.exp_avg, *optimizer.exp_avg_sq, optimizer.global_step]

    def _enter_mode(self) -> None:
        # The mode is the process's, not the cell's: another runner may have changed it since.
        ms.set_context(mode=ms.GRAPH_MODE)


def build_optimizer(case: Case, parameters: Sequence[Parameter]) -> nn.Cell:
    """mindformers' AdamW; its decay spares the norms, the only parameters of one dimension. The rate is set later."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": case.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        {"order_params": list(parameters)},
    ]
    return AdamW(groups, learning_rate=0.0, betas=case.optimizer.betas, eps=case.optimizer.eps)


def names_of(parameters: Sequence[Parameter]) -> list[str]:
    return [parameter.name for parameter in parameters]
