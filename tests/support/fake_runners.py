"""Runners made of NumPy alone, for tests of what starts, watches and judges runs.

`Fake` trains nothing that makes sense, but its numbers depend on weights, tokens, rate and a state that a checkpoint
has to carry. The others do one thing wrong, most of them at step `AT`.
"""

import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from harness.cases.alignment import expected_alignment
from harness.cases.case import Case
from harness.runners.protocol import Numbers, Setting, Tensors

AT = 5
DRAWN_AT_START = random.getrandbits(16)
FLAG = "MS_FAKE_RUNNER_FLAG"  # names a file: what happens once leaves it behind; runs get variables of such names


class Fake:
    """See `harness.runners.protocol.Runner`."""

    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        self.case, self.zero, self.step = case, setting.learning_rate_zero, 0
        self.weights = {name: tensor.copy() for name, tensor in weights.items()}
        self.momentum = 0.0

    def rate(self) -> float:
        schedule = self.case.lr_schedule.over(self.case.training.steps)
        return 0.0 if self.zero else schedule.learning_rate(self.step)

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        self.step += 1
        self.momentum = 0.9 * self.momentum + float(tokens[:, 1:][loss_mask > 0].mean()) / 1000
        for tensor in self.weights.values():
            tensor -= np.float32(self.rate() * self.momentum) * tensor
        spread = float(np.mean([tensor.std() for tensor in self.weights.values()]))
        numbers = Numbers(
            loss=6 / (1 + self.step / 50) + spread,
            grad_norm=1 + self.momentum,
            learning_rate=self.rate(),
            tokens=int(loss_mask.sum()),
        )
        return self.at_step(numbers) if self.step == AT else numbers

    def at_step(self, numbers: Numbers) -> Numbers:
        return numbers

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Of the norm that the next step reports."""
        momentum = 0.9 * self.momentum + float(tokens[:, 1:][loss_mask > 0].mean()) / 1000
        size = sum(tensor.size for tensor in self.weights.values())
        return {name: np.full(t.shape, (1 + momentum) / size**0.5, np.float64) for name, t in self.weights.items()}

    def apply_gradients(self, gradients: Tensors) -> None:
        for name, tensor in self.weights.items():
            tensor -= np.float32(0.001) * gradients[name]

    def alignment(self) -> dict[str, Any]:
        return expected_alignment(self.case)

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        return self.weights

    def moments(self) -> dict[str, npt.NDArray[Any]]:
        return {name: np.float32(self.momentum) * tensor for name, tensor in self.weights.items()}

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        state = {"momentum": np.array([self.momentum]), "step": np.array([self.step])}
        save_file({**self.weights, **state}, directory / "state.safetensors")

    def load(self, directory: Path) -> None:
        self.weights = load_file(directory / "state.safetensors")
        self.momentum, self.step = float(self.weights.pop("momentum")[0]), int(self.weights.pop("step")[0])

    def provenance(self) -> dict[str, Any]:
        return {"fake": type(self).__name__}


class SeesDevices(Fake):
    """States the devices that its process sees, and where CANN would log."""

    def provenance(self) -> dict[str, Any]:
        names = {"devices": "ASCEND_RT_VISIBLE_DEVICES", "logs": "ASCEND_PROCESS_LOG_PATH"}
        return {what: os.environ.get(name) for what, name in names.items()}


class DependsOnOrder(Fake):
    """Computes something else in every run but the first, unless launches wait for each other."""

    def at_step(self, numbers: Numbers) -> Numbers:
        first = not Path(os.environ[FLAG]).exists()
        Path(os.environ[FLAG]).touch()
        if first or os.environ["MS_DEV_LAUNCH_BLOCKING"] == "1":
            return numbers
        return dataclasses.replace(numbers, loss=numbers.loss * (1 + 1e-7))


class Compiles(Fake):
    """Is compiled before its first step."""

    def compile(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> None:
        assert self.step == 0 and tokens.shape[0] == loss_mask.shape[0]
        time.sleep(0.2)


class Crashes(Fake):
    def at_step(self, numbers: Numbers) -> Numbers:
        raise RuntimeError("the device is on fire")


class ExplainsAtLength(Fake):
    def at_step(self, numbers: Numbers) -> Numbers:
        raise NameError("it is not defined\n" + "\n".join(f"# {line} in the graph" for line in range(60)))


class CannotStart(Fake):
    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        raise RuntimeError("no device")


class LeavesWithZero(Fake):
    """Ends its process as if all were well."""

    def at_step(self, numbers: Numbers) -> Numbers:
        os._exit(0)


class NotANumber(Fake):
    def at_step(self, numbers: Numbers) -> Numbers:
        return dataclasses.replace(numbers, loss=float("nan"))


class InfiniteNorm(Fake):
    def at_step(self, numbers: Numbers) -> Numbers:
        return dataclasses.replace(numbers, grad_norm=float("inf"))


class Killed(Fake):
    def at_step(self, numbers: Numbers) -> Numbers:
        os.kill(os.getpid(), signal.SIGKILL)
        return numbers


class KilledOnce(Fake):
    def at_step(self, numbers: Numbers) -> Numbers:
        flag = Path(os.environ[FLAG])
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return numbers


class Hangs(Fake):
    """Does not end when asked to, and has started a process of its own."""

    def at_step(self, numbers: Numbers) -> Numbers:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
        return numbers


class Slow(Fake):
    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        time.sleep(0.4)
        return super().train_step(tokens, loss_mask)


class HangsOnce(Hangs):
    def at_step(self, numbers: Numbers) -> Numbers:
        flag = Path(os.environ[FLAG])
        if not flag.exists():
            flag.touch()
            time.sleep(600)
        return numbers


class HangsAtStart(Fake):
    def __init__(self, case: Case, weights: Tensors, setting: Setting) -> None:
        time.sleep(600)


class OneRoundingAside(Fake):
    """Its losses are not those of another fake, by one unit in the last place."""

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        numbers = super().train_step(tokens, loss_mask)
        return dataclasses.replace(numbers, loss=math.nextafter(numbers.loss, math.inf))


class TwoRoundingsAside(Fake):
    """A subject that differs from `Fake` and from `OneRoundingAside`, as two frameworks always do."""

    def at_step(self, numbers: Numbers) -> Numbers:
        return dataclasses.replace(numbers, loss=math.nextafter(math.nextafter(numbers.loss, math.inf), math.inf))


class WrongRate(Fake):
    """One step with another learning rate."""

    def rate(self) -> float:
        return super().rate() * (1.001 if self.step == AT else 1.0)


class LacksATensor(Fake):
    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        return {name: tensor for name, tensor in self.weights.items() if name != "model.norm.weight"}


class HasAnotherTensor(Fake):
    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        return {**self.weights, "model.extra.weight": np.ones(3, dtype=np.float32)}


class Random(Fake):
    """Another last bit in every process."""

    def at_step(self, numbers: Numbers) -> Numbers:
        noise = 1 + 1e-12 * int.from_bytes(os.urandom(2), "little")
        return dataclasses.replace(numbers, loss=numbers.loss * noise)


class Unseeded(Fake):
    """Depends on what an interpreter draws when it starts; what is forked from it later has the same."""

    def at_step(self, numbers: Numbers) -> Numbers:
        return dataclasses.replace(numbers, loss=numbers.loss * (1 + 1e-12 * DRAWN_AT_START))


class Compiled(Fake):
    """Depends on what an interpreter drew when it compiled, which a kept graph holds."""

    def at_step(self, numbers: Numbers) -> Numbers:
        kept = Path(os.environ.get("MS_COMPILER_CACHE_PATH", "")) / "graph"
        if "MS_COMPILER_CACHE_ENABLE" in os.environ and not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(str(DRAWN_AT_START))
        drawn = int(kept.read_text()) if kept.is_file() else DRAWN_AT_START
        return dataclasses.replace(numbers, loss=numbers.loss * (1 + 1e-12 * drawn))


class OtherGradients(Fake):
    """Of one parameter."""

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        found, name = super().gradients(tokens, loss_mask), "model.norm.weight"
        return {**found, name: 2 * found[name]}
