"""A few steps of a small case by the reference over several processes, right and with faults planted in the sharding.

`torchrun --module tests.support.sharded FILE NAME...` makes the steps of each name in turn, all with the same
processes, and writes what the first process has of them. `steps_of` makes those of one process.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from harness.cases.case import Case, load_case
from harness.corpus.draw import draw_weights
from harness.runners import torch_processes, torch_reference, torch_training
from harness.runners.oracle import Float64Oracle
from harness.runners.processes import end_with_parent
from harness.runners.protocol import Setting
from harness.runners.torch_processes import SeveralProcesses
from harness.runners.torch_reference import FusedAttentionReference, TorchReference
from harness.runs.inputs import ProbeGradients
from tests.support.examples import ROOT

STEPS, ROWS, LENGTH = 3, 6, 12
PLAIN, ORACLE = ("plain", "repeated"), "oracle"
# Other references that are as correct: with fused attention, and in bfloat16, each of which is made twice.
FUSED, IN_BFLOAT16 = "sdpa", ("bfloat16", "bfloat16, repeated")
Faults = Mapping[str, Callable[[], AbstractContextManager[object]]]


def small_tied_case() -> Case:
    """Tied head, two micro batches of three rows, which two processes cannot share evenly, and recompute."""
    case = load_case("qwen3-tied-fp32")
    return case.with_changes(
        data={**case.data.model_dump(), "seq_length": LENGTH, "global_batch_size": ROWS},
        lr_schedule={**case.lr_schedule.model_dump(), "warmup_steps": 0},
    )


def in_bfloat16(case: Case) -> Case:
    """The case with its products in bfloat16, as the shipped case of that precision states it."""
    return case.with_changes(precision=load_case("qwen3-tiny-bf16").record()["precision"])


def batches(case: Case) -> Iterator[tuple[Any, Any]]:
    """Rows of unequal numbers of tokens."""
    random = np.random.RandomState(0)
    lengths = np.array([12, 3, 7, 12, 1, 9])
    for _ in range(STEPS):
        tokens = random.randint(0, case.model.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)
        yield tokens, (np.arange(LENGTH) < random.permutation(lengths)[:, None]).astype(np.uint8)


def steps_of(case: Case, rank: int | None, directory: Path, made: Any = None) -> dict[str, Any]:
    """Everything that a reference, or another runner, leaves: numbers of each step, whole gradients, parameters and
    moments, and the steps after a checkpoint."""
    setting = Setting(device="CPU", threads=1, learning_rate_zero=False, rank=rank)
    weights, every = draw_weights(case), list(batches(case))
    made = made or torch_reference.TorchReference
    runner = made(case, weights, setting)
    found = {f"gradient.{name}": tensor for name, tensor in runner.gradients(*every[0]).items()}
    numbers = [runner.train_step(*batch) for batch in every[:-1]]
    runner.save(directory)
    resumed = made(case, weights, setting)
    resumed.load(directory)
    for one in (runner, resumed):
        numbers.append(one.train_step(*every[-1]))
    if isinstance(runner, Float64Oracle):
        measured, _ = runner.measured(*every[0])
        found["measured"] = np.array([measured.loss, measured.grad_norm])
        drawn = [ProbeGradients(weights, case.initialization.seed, update) for update in (1, 2)]
        found |= {f"updated.{name}": np.asarray(runner.updated(name, drawn)) for name in weights}
    runner.apply_gradients({name: np.full(t.shape, 1e-3, np.float32) for name, t in weights.items()})
    for kind, whole in (("parameter", runner.parameters()), ("moment", runner.moments())):
        found |= {f"{kind}.{name}": np.ascontiguousarray(tensor) for name, tensor in whole.items()}
    for name in ("loss", "grad_norm", "tokens"):
        found[name] = np.array([float(getattr(one, name)) for one in numbers])
    return found


def made_by(count: int, names: Iterable[str], directory: Path) -> dict[str, dict[str, Any]]:
    """What so many processes, started by `torchrun`, leave of each name."""
    directory.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command += [f"--nproc-per-node={count}", "--module", "tests.support.sharded", str(directory), *names]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    broken = json.loads((directory / "broken.json").read_text())
    return {name: {"broken": broken[name]} if name in broken else load_file(directory / name) for name in names}


class RowsOfTheFirst(SeveralProcesses):
    """Every process computes the same rows."""

    def rows(self, tokens: Any, loss_mask: Any) -> Any:
        each = -(-len(tokens) // self.count)
        return tokens[:each], loss_mask[:each]


class RestOfRowsDropped(SeveralProcesses):
    def rows(self, tokens: Any, loss_mask: Any) -> Any:
        each = len(tokens) // self.count
        own = slice(self.rank * each, (self.rank + 1) * each)
        return tokens[own], loss_mask[own]


class PaddingCounts(SeveralProcesses):
    """The row that fills up is computed twice."""

    def rows(self, tokens: Any, loss_mask: Any) -> Any:
        each = -(-len(tokens) // self.count)
        rows = np.arange(self.rank * each, (self.rank + 1) * each) % len(tokens)
        return tokens[rows], loss_mask[rows]


class GradientsAveraged(SeveralProcesses):
    """FSDP's default."""

    def shard(self, module: Any) -> None:
        super().shard(module)
        module.set_gradient_divide_factor(float(self.count))


class _OtherPolicy(SeveralProcesses):
    policy: ClassVar[Mapping[str, torch.dtype]]

    def shard(self, module: Any) -> None:
        with mock.patch.object(
            torch_processes, "MixedPrecisionPolicy", lambda **_: MixedPrecisionPolicy(**self.policy)
        ):
            super().shard(module)


class SummedInBfloat16(_OtherPolicy):
    policy: ClassVar[Mapping[str, torch.dtype]] = {"reduce_dtype": torch.bfloat16}


class OtherWeightsInOne(SeveralProcesses):
    """The second process starts with weights that are not those of the first."""

    def shard(self, module: Any) -> None:
        if self.rank == 1:
            with torch.no_grad():
                for parameter in module.parameters():
                    if not hasattr(parameter, "placements"):
                        parameter.mul_(1.01)
        super().shard(module)


class Replicated(SeveralProcesses):
    """A mesh of two dimensions, of which one replicates: each part of a gradient is in two processes."""

    def __init__(self, case: Case, device: torch.device) -> None:
        super().__init__(case, device)
        self._mesh = init_device_mesh("cpu", (self.count, 1), mesh_dim_names=("replicas", "shards"))


class PartsTakenForWholes(TorchReference):
    def _whole(self, tensor: torch.Tensor) -> Any:
        return self._processes.local(tensor.detach()).numpy()


class LossOfOneProcess(TorchReference):
    def _backward(self, tokens: Any, loss_mask: Any) -> Any:
        with mock.patch.object(self._processes, "summed", lambda number: number * self._processes.count):
            return super()._backward(tokens, loss_mask)


class LayersOnly(SeveralProcesses):
    """Embedding, last norm and head are in no group: their gradients are those of each process's own rows."""

    def shard(self, module: Any) -> None:
        if not hasattr(module, "model"):
            super().shard(module)

    def local(self, tensor: torch.Tensor) -> torch.Tensor:
        return super().local(tensor) if hasattr(tensor, "placements") else tensor

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        return super().whole(tensor) if hasattr(tensor, "placements") else tensor

    def _distributed(self, tensor: torch.Tensor, like: torch.Tensor, source: int | None) -> torch.Tensor:
        return super()._distributed(tensor, like, source) if hasattr(like, "placements") else tensor


class OwnTokens(TorchReference):
    """Each process averages over its own tokens, and then the processes are averaged."""

    def loss(self, tokens: Any, loss_mask: Any, count: int) -> Any:
        own = max(1, int(loss_mask.sum())) * self._processes.count * self.micro_batches
        return super().loss(tokens, loss_mask, own)


class LastMicroBatch(TorchReference):
    """Gradients are cleared before each micro batch."""

    def loss(self, tokens: Any, loss_mask: Any, count: int) -> Any:
        self._optimizer.zero_grad(set_to_none=True)
        return super().loss(tokens, loss_mask, count)


class _Unsummed(SeveralProcesses):
    def __init__(self) -> None: ...

    def summed(self, number: torch.Tensor) -> torch.Tensor:
        return number


def _norm_here(parameters: Any, processes: Any) -> torch.Tensor:
    return torch_processes.grad_norm(parameters, _Unsummed())


def _norm_of_tied_twice(parameters: Any, processes: Any) -> torch.Tensor:
    every = list(parameters)
    return torch_processes.grad_norm([*every, every[0]], processes)


def _norm_in_bfloat16(parameters: Any, processes: Any) -> torch.Tensor:
    squares = [p.grad.to_local().bfloat16().pow(2).sum() for p in parameters]
    return processes.summed(torch.stack(squares).sum()).sqrt().double()


def _clip_by_norm_here(parameters: Any, limit: float, norm: Any, processes: Any) -> None:
    every = list(parameters)
    torch_processes.clip(every, limit, _norm_here(every, processes), processes)


def _decay_of_all(case: Case, parameters: Any, learning_rate: float) -> torch.optim.AdamW:
    """As where the parameters of a layer are one flat tensor, which has no norms to spare."""
    optimizer = _build_optimizer(case, parameters, learning_rate)
    for group in optimizer.param_groups:
        group["weight_decay"] = case.optimizer.weight_decay
    return optimizer


_build_optimizer = torch_training.build_optimizer


def _processes(made: type[SeveralProcesses]) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(torch_reference, "processes_of", lambda case, device, rank: made(case, device))


def _runner(made: type[TorchReference]) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(torch_reference, "TorchReference", made)


def _training(name: str, made: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(torch_training, name, made)


FAULTS: Faults = {
    "every process computes the same rows": _processes(RowsOfTheFirst),
    "rows that cannot be shared evenly are dropped": _processes(RestOfRowsDropped),
    "the row that fills up counts": _processes(PaddingCounts),
    "gradients are averaged over processes": _processes(GradientsAveraged),
    "gradients are summed in bfloat16": _processes(SummedInBfloat16),
    "one process begins with other weights": _processes(OtherWeightsInOne),
    "replicas count in the norm": _processes(Replicated),
    "embedding and head are in no group": _processes(LayersOnly),
    "the loss is averaged over processes of unequal tokens": _runner(OwnTokens),
    "the loss is that of one process": _runner(LossOfOneProcess),
    "a part is taken for the whole": _runner(PartsTakenForWholes),
    "the last micro batch alone counts": _runner(LastMicroBatch),
    "the norm is that of one process": _training("grad_norm", _norm_here),
    "a tied parameter counts twice in the norm": _training("grad_norm", _norm_of_tied_twice),
    "the norm is summed in bfloat16": _training("grad_norm", _norm_in_bfloat16),
    "each process clips by its own norm": _training("clip", _clip_by_norm_here),
    "the norms' weights decay": _training("build_optimizer", _decay_of_all),
}


def main(directory: Path, names: Iterable[str]) -> None:
    """Makes the steps of each name in this process, one of several."""
    end_with_parent(os.getppid())
    rank, broken = int(os.environ["RANK"]), {}
    for number, name in enumerate(names):
        with FAULTS[name]() if name in FAULTS else contextlib.nullcontext():
            # What breaks breaks in every process, before any waits for another.
            try:
                made = {ORACLE: Float64Oracle, FUSED: FusedAttentionReference}.get(name)
                case = in_bfloat16(small_tied_case()) if name in IN_BFLOAT16 else small_tied_case()
                found = steps_of(case, rank, directory / f"saved-{number}", made)
            except Exception as error:
                broken[name] = f"{type(error).__name__}: {error}"
                continue
        if rank == 0:
            save_file(found, directory / name)
    if rank == 0:
        (directory / "broken.json").write_text(json.dumps(broken))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
