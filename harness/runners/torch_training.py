"""Training in PyTorch, whatever computes the loss: optimizer, schedule, clipping, gradients, checkpoints.

What a model is, a subclass says: its parameters by their Hugging Face names, and the loss of a batch.
"""

import collections
import contextlib
import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness.cases.case import Case
from harness.runners.hugging_face import transformers
from harness.runners.protocol import Copies, Numbers, Setting, Taps, Tensors
from harness.runners.torch_device import find_device, make_deterministic, provenance_of
from harness.runners.torch_processes import ALONE, OneProcess, choose_device, clip, grad_norm
from harness.runs.alignment import alignment
from harness.runs.inputs import read_weights, write_in_files
from harness.runs.operators import Operator
from harness.runs.places import LOSS, TABLES

OPERATORS: Mapping[str, Callable[..., torch.Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "softmax": functools.partial(torch.softmax, dim=-1),
    "log_softmax": functools.partial(torch.log_softmax, dim=-1),
    "logsumexp": functools.partial(torch.logsumexp, dim=-1),
    "sum": functools.partial(torch.sum, dim=-1),
    "mean": functools.partial(torch.mean, dim=-1),
    "matmul": torch.matmul,
}
Tap = Callable[[str, torch.Tensor], torch.Tensor]
STATE, POSITION = "state.safetensors", "position.json"


def untapped(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Nobody looks."""
    return tensor


class Recorder:
    """A tap that keeps what it is shown, of every micro batch, and has its gradient kept. It changes nothing."""

    def __init__(self) -> None:
        self._shown: dict[str, list[torch.Tensor]] = {}

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad:
            tensor.retain_grad()
        self._shown.setdefault(name, []).append(tensor)
        return tensor

    def forward(self) -> dict[str, npt.NDArray[Any]]:
        """Values by place, over the global batch."""
        whole = {name: _whole([tensor.detach() for tensor in shown], torch.sum) for name, shown in self._shown.items()}
        return {name: tensor[:2] if name == TABLES else tensor for name, tensor in whole.items()}

    def backward(self) -> dict[str, npt.NDArray[Any]]:
        """Gradients by place; a place that the loss does not depend on has none."""
        found = {name: [tensor.grad for tensor in shown] for name, shown in self._shown.items()}
        reached = {name: [g for g in shown if g is not None] for name, shown in found.items()}
        return {
            name: _whole(shown, torch.mean) for name, shown in reached.items() if len(shown) == len(self._shown[name])
        }


def _whole(parts: Sequence[torch.Tensor], scalars: Callable[[torch.Tensor], torch.Tensor]) -> npt.NDArray[Any]:
    """Rows of the micro batches one after the other; of the loss, what `scalars` makes of its parts."""
    wide = [part if part.dtype == torch.float64 else part.float() for part in parts]
    return (torch.cat(wide) if wide[0].ndim else scalars(torch.stack(wide))).cpu().numpy()


def prepare_torch(case: Case, setting: Setting) -> torch.device:
    """Determinism and threads of this process; the device that it computes on.

    Raises:
        MissingPrerequisite: PyTorch cannot compute on it here.
    """
    make_deterministic()
    torch.set_num_threads(setting.threads)
    torch.manual_seed(case.initialization.seed)
    device = find_device(setting.device)
    choose_device(device, setting.rank)
    return device


def torch_provenance(device: torch.device) -> dict[str, Any]:
    """Version and settings that PyTorch's numbers depend on."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **provenance_of(device),
    }


class TorchTrainer(ABC):
    """See `harness.runners.protocol.Runner`. `micro_batches`: in how many parts a global batch is computed.
    `processes`: those that compute it together."""

    micro_batches = 1

    def __init__(
        self,
        case: Case,
        setting: Setting,
        parameters: Mapping[str, torch.Tensor],
        device: torch.device,
        processes: OneProcess = ALONE,
    ) -> None:
        self._case, self._device, zero = case, device, setting.learning_rate_zero
        self._processes = processes
        self.tap: Tap = untapped
        self._parameters = dict(parameters)
        peak = 0.0 if zero else case.lr_schedule.learning_rate
        self._optimizer = build_optimizer(case, list(self._parameters.values()), peak)
        self._schedule = build_schedule(case, self._optimizer, constant=zero)
        self._step = 0

    @abstractmethod
    def loss(self, tokens: torch.Tensor, loss_mask: torch.Tensor, count: int) -> torch.Tensor:
        """The part of the loss that rows `tokens` [B, S+1], `loss_mask` [B, S] contribute: their sum over `count`."""

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update; micro batches in order, each divided by the token count of the whole batch."""
        loss, count = self._backward(tokens, loss_mask)
        norm = grad_norm(self._parameters.values(), self._processes)
        if self._case.training.clip_grad is not None:
            clip(self._parameters.values(), self._case.training.clip_grad, norm, self._processes)
        return Numbers(loss=loss, grad_norm=float(norm), learning_rate=self._update(), tokens=count)

    def _backward(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> tuple[float, int]:
        self._optimizer.zero_grad(set_to_none=True)
        count, losses = int(loss_mask.sum()), []
        for rows in np.split(np.arange(len(tokens)), self.micro_batches):
            own, counted = self._processes.rows(tokens[rows], loss_mask[rows])
            batch = torch.from_numpy(own.astype(np.int64)).to(self._device)
            mask = torch.from_numpy(counted).to(self._device)
            loss = self.tap(LOSS, self.loss(batch, mask, count))
            loss.backward()
            losses.append(loss.detach())
        return float(self._processes.summed(torch.stack(losses).sum().double())), count

    def _update(self) -> float:
        """One update by the gradients that are there; the rate that it used."""
        learning_rate = float(self._optimizer.param_groups[0]["lr"])
        self._optimizer.step()
        self._schedule.step()
        self._step += 1
        return learning_rate

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Tensors:
        """Not clipped; nothing is updated."""
        self._backward(tokens, loss_mask)
        return self._taken_gradients()

    def _taken_gradients(self) -> Tensors:
        """The gradients that are there, which the parameters then no longer have."""
        found = {name: parameter.grad for name, parameter in self._parameters.items()}
        self._optimizer.zero_grad(set_to_none=True)
        processes = self._processes  # whoever has the gradients does not hold the model
        return Copies(found, lambda name: whole_array(found[name], processes))

    def _whole(self, tensor: torch.Tensor) -> npt.NDArray[Any]:
        return whole_array(tensor, self._processes)

    def taps(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Taps:
        """What the gradients of a batch are made of; nothing is updated."""
        recorder = Recorder()
        with self.showing(recorder):
            gradients = self.gradients(tokens, loss_mask)
        return Taps(forward=recorder.forward(), backward=recorder.backward(), gradients=gradients)

    @contextlib.contextmanager
    def showing(self, tap: Tap) -> Iterator[None]:
        """Has every place shown to `tap` meanwhile."""
        self.tap = tap
        try:
            yield
        finally:
            self.tap = untapped

    def apply_gradients(self, gradients: Tensors) -> None:
        """One update by given gradients, in the dtype of the parameters and without clipping."""
        for name, parameter in self._parameters.items():
            given = torch.from_numpy(np.array(gradients[name])).to(self._device, parameter.dtype)
            parameter.grad = self._processes.part(given, parameter)
        self._update()

    def parameters(self) -> Tensors:
        """Copies, by name; a tied head is the embedding and has no tensor of its own."""
        return Copies(self._parameters, lambda name: self._whole(self._parameters[name]).copy())

    def moments(self) -> Tensors:
        """Copies of the first moments, by the names of their parameters."""
        return Copies(self._parameters, self._moment)

    def _moment(self, name: str) -> npt.NDArray[Any]:
        parameter = self._parameters[name]
        held = self._optimizer.state[parameter].get("exp_avg")
        return np.zeros(tuple(parameter.shape)) if held is None else self._whole(held).copy()

    def operators(self) -> Mapping[str, Operator]:
        """PyTorch's own."""
        return {name: functools.partial(self._on_tensors, operator) for name, operator in OPERATORS.items()}

    def _on_tensors(self, operator: Callable[..., torch.Tensor], *inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = operator(*(torch.from_numpy(one).to(self._device) for one in inputs)).cpu().numpy()
        return found

    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """The fields of `config.json` as the model was built with them."""

    def alignment(self) -> dict[str, Any]:
        """What was built: see `harness.runs.alignment`."""
        decayed = {id(p) for group in self._optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        group = self._optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        return alignment(
            model=self.config(),
            shapes={name: tuple(parameter.shape) for name, parameter in self._parameters.items()},
            optimizer={"beta1": beta1, "beta2": beta2, "eps": group["eps"], "weight_decay": group["weight_decay"]},
            decayed=frozenset(name for name, parameter in self._parameters.items() if id(parameter) in decayed),
            clip_grad=self._case.training.clip_grad,
            gradient_accumulation_steps=self._case.training.gradient_accumulation_steps,
        )

    def save(self, directory: Path) -> None:
        """Parameters and moments; everything else follows from the step. Of several processes the first writes it."""
        directory.mkdir(parents=True, exist_ok=True)
        whole = ((name, whole_array(tensor, self._processes)) for name, tensor in self._state())
        if self._processes.rank == 0:
            write_in_files(whole, (tensor.numel() * tensor.itemsize for _, tensor in self._state()), directory / STATE)
        else:
            collections.deque(whole, maxlen=0)  # the first process needs the parts of this one
        (directory / POSITION).write_text(json.dumps(self._step), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Continues where `save` stopped."""
        saved = read_weights(directory / STATE) if self._processes.rank == 0 else None
        self._step = json.loads((directory / POSITION).read_text(encoding="utf-8"))
        for parameter in self._parameters.values():
            zeros = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self._optimizer.state[parameter] = {"step": torch.tensor(float(self._step)), **zeros}
        with torch.no_grad():
            for name, tensor in self._state():
                given = None if saved is None else torch.from_numpy(np.array(saved[name]))
                tensor.copy_(self._processes.scattered(given, tensor))
        # To where that many steps would have taken it; stepping it here warns that the optimizer was not stepped.
        self._schedule.last_epoch = self._step
        groups = zip(self._optimizer.param_groups, self._schedule.base_lrs, self._schedule.lr_lambdas, strict=True)
        for group, base, factor in groups:
            group["lr"] = base * factor(self._step)

    def _state(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self._parameters.items():
            yield name, parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq"):
                yield f"{moment}.{name}", self._optimizer.state[parameter][moment]

    def provenance(self) -> dict[str, Any]:
        """Version, threads, and the device or the instruction set that torch dispatches to; of several processes how
        they work together."""
        return {**torch_provenance(self._device), **self._processes.provenance()}


def whole_array(tensor: torch.Tensor, processes: OneProcess) -> npt.NDArray[Any]:
    """All parts of a tensor; every process has to call this."""
    found: npt.NDArray[Any] = processes.whole(tensor.detach()).cpu().numpy()
    return found


def build_optimizer(case: Case, parameters: Sequence[torch.Tensor], learning_rate: float) -> torch.optim.AdamW:
    """AdamW whose decay spares the norms, which are the only parameters of one dimension."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": case.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=learning_rate, betas=case.optimizer.betas, eps=case.optimizer.eps, foreach=False
    )


def build_schedule(case: Case, optimizer: torch.optim.Optimizer, constant: bool) -> Any:
    """The schedule of transformers by that name; `constant` keeps the optimizer's own rate."""
    schedule, steps = case.lr_schedule, case.training.steps
    if constant or schedule.type == "constant":
        return transformers.get_constant_schedule_with_warmup(optimizer, num_warmup_steps=schedule.warmup_steps)
    # by its module: 4.51 does not offer it by the name of the package
    return transformers.optimization.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, num_warmup_steps=schedule.warmup_steps, num_training_steps=steps, min_lr=schedule.lr_end
    )
