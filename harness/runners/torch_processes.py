"""The processes that make a run of PyTorch together: this one alone, or several with a part of every parameter each.

Over several the model is sharded by FSDP2 (`fully_shard`), each layer as soon as it has its weights, so that no process
ever holds the model whole, and computing gathers no more than two layers besides embedding and head. Parameters stay
float32, and no dtype is given for computing, which would cast norms and residual too; `torch.autocast` decides as in
one process. Gradients are summed in float32. Each process computes some rows of a micro batch, and its part of the loss
is divided by the tokens of the whole global batch, so gradients are summed and never averaged. A tensor that is
recorded or saved is whole, one at a time.

Source: PyTorch, `torch.distributed.fsdp.fully_shard` and "Distributed communication package".
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import distribute_tensor

from harness.base.errors import MissingPrerequisite
from harness.cases.case import Case

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
Rows = npt.NDArray[Any]


class OneProcess:
    """This process alone: every tensor is whole, and every row is its own."""

    rank, count = 0, 1

    def rows(self, tokens: Rows, loss_mask: Rows) -> tuple[Rows, Rows]:
        """The rows of a micro batch that this process computes."""
        return tokens, loss_mask

    def shard(self, module: Any, sums: torch.dtype = torch.float32) -> None:
        """Leaves each process a part of every parameter of a module that is not in one sharded before; gradients are
        summed in the dtype `sums`."""

    def summed(self, number: torch.Tensor) -> torch.Tensor:
        """The sum of a number of every process."""
        return number

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part of a tensor that this process has; a view of it."""
        return tensor

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """All parts of a tensor; every process has to call this."""
        return tensor

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A whole tensor, which every process has, as parts like those of another."""
        return tensor

    def scattered(self, tensor: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        """A whole tensor of the first process as parts like those of another; the others have None."""
        assert tensor is not None, "this process is the first"
        return tensor

    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on; nothing of one process."""
        return {}


class SeveralProcesses(OneProcess):
    """As many processes as `torchrun` started, this one among them."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self._backend = BACKENDS[device.type]
        if not torch.distributed.is_initialized():
            # who watches the run ends it before that
            longest = timedelta(seconds=max(case.training.start_timeout_s, case.training.step_timeout_s))
            torch.distributed.init_process_group(self._backend, timeout=longest)
        self.rank, self.count = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._mesh = init_device_mesh(device.type, (self.count,))

    def rows(self, tokens: Rows, loss_mask: Rows) -> tuple[Rows, Rows]:
        """Consecutive rows, as many in each process; where they do not suffice, a row of which no token counts."""
        each = -(-len(tokens) // self.count)
        own = np.arange(self.rank * each, (self.rank + 1) * each)
        there = own < len(tokens)
        rows = np.where(there, own, 0)
        return tokens[rows], loss_mask[rows] * there[:, None].astype(loss_mask.dtype)

    def shard(self, module: Any, sums: torch.dtype = torch.float32) -> None:
        fully_shard(module, mesh=self._mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=sums))
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no operation that divides and sums

    def summed(self, number: torch.Tensor) -> torch.Tensor:
        number = number.clone()
        torch.distributed.all_reduce(number)
        return number

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _as_sharded(tensor).to_local()
        return found

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _as_sharded(tensor).full_tensor()
        return found

    def part(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return self._distributed(tensor, like, source=None)

    def scattered(self, tensor: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        given = torch.empty(like.shape, dtype=like.dtype) if tensor is None else tensor
        return self._distributed(given, like, source=0)

    def _distributed(self, tensor: torch.Tensor, like: torch.Tensor, source: int | None) -> torch.Tensor:
        placements = _as_sharded(like).placements
        return distribute_tensor(tensor.to(like.device), self._mesh, placements, src_data_rank=source)

    def provenance(self) -> dict[str, Any]:
        return {"processes": self.count, "backend": self._backend, "sharding": "FSDP2"}


ALONE = OneProcess()


def processes_of(case: Case, device: torch.device, rank: int | None) -> OneProcess:
    """The processes of a run; `rank` is None in one that is alone."""
    return ALONE if rank is None else SeveralProcesses(case, device)


def choose_device(device: torch.device, rank: int | None) -> None:
    """Has the process with this rank compute on the device of that number.

    Raises:
        MissingPrerequisite: this machine has fewer.
    """
    if rank is None or device.type == "cpu":
        return
    module = getattr(torch, device.type)
    if rank >= module.device_count():
        raise MissingPrerequisite(
            f"Process {rank + 1} of the reference finds {module.device_count()} devices here, and each process needs "
            "its own: give a smaller --reference-processes."
        )
    module.set_device(rank)


def gradients_of(parameters: Iterable[torch.Tensor], processes: OneProcess) -> Iterator[torch.Tensor]:
    """The part of each gradient that this process has; no part is in two processes."""
    return (processes.local(one.grad) for one in parameters if one.grad is not None)


def grad_norm(parameters: Iterable[torch.Tensor], processes: OneProcess = ALONE) -> torch.Tensor:
    """Global L2 norm of all gradients, summed in float64: a float32 sum of squares loses the digits to compare."""
    squares = [gradient.double().pow(2).sum() for gradient in gradients_of(parameters, processes)]
    return processes.summed(torch.stack(squares).sum()).sqrt()


def clip(parameters: Iterable[torch.Tensor], limit: float, norm: torch.Tensor, processes: OneProcess = ALONE) -> None:
    """Scales all gradients so that their norm, which is `norm`, is at most `limit`; PyTorch's own, part by part."""
    torch.nn.utils.clip_grads_with_norm_([_Part(one) for one in gradients_of(parameters, processes)], limit, norm)


class _Part:
    """What clipping takes of a parameter: its gradient."""

    def __init__(self, grad: torch.Tensor) -> None:
        self.grad = grad


def _as_sharded(tensor: torch.Tensor) -> Any:
    return tensor
