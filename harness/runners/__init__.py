"""The runs of a case: what a runner is, who can be one, and how a case's job reaches a fresh process.

A runner trains and reports numbers; it never judges. Each run is a process of its own, started by
`harness.runners.launcher` and carried out by `harness.runners.worker`.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from harness.case import Case
from harness.digest import digest_each
from harness.errors import InputError
from harness.evaluation import Evaluation
from harness.trace import Arm, Side, Task, TraceHeader

Tensors = Mapping[str, npt.NDArray[Any]]
SUFFIX = ".py"

# The runners by name. Any other is given as MODULE:CLASS, or as FILE.py:CLASS.
RUNNERS: Mapping[str, str] = {
    "torch": "harness.runners.torch_reference:TorchReference",
    "oracle": "harness.runners.oracle:Float64Oracle",
    "mindspore": "harness.runners.mindspore_subject:MindSporeSubject",
    "mindformers": "harness.runners.mindformers_subject:MindFormersSubject",
}

# The same names in a case of inference.
RUNNERS_OF_INFERENCE: Mapping[str, str] = {
    "torch": "harness.runners.torch_inference:TorchInference",
    "oracle": "harness.runners.oracle_inference:OracleInference",
    "mindspore": "harness.runners.mindspore_inference:MindSporeInference",
}


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What one step measured: the loss before the update, the norm before clipping, the rate that the schedule gave,
    and the target tokens that the loss was divided by, as the runner itself counted them."""

    loss: float
    grad_norm: float
    learning_rate: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Taps:
    """What is inside one step, over the global batch, by the names of `harness.places`: the value at each place, the
    loss's gradient with respect to it, and the gradient of every parameter from the same pass."""

    forward: Tensors
    backward: Tensors
    gradients: Tensors


class Runner(Protocol):
    """One model in training. Built from `(case, weights, setting)`; `train_step` is called once a step, in order."""

    def train_step(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Numbers:
        """One update by the global batch `tokens` [B, S+1], `loss_mask` [B, S]."""

    def gradients(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """The gradient of every parameter for the global batch, before clipping; nothing is updated."""

    def apply_gradients(self, gradients: Tensors) -> None:
        """One update by given gradients, without clipping, at the rate of the next step."""

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Every parameter by its Hugging Face name."""

    def alignment(self) -> dict[str, Any]:
        """Configuration and optimizer as they were built, in the keys of `harness.alignment.alignment`."""

    def save(self, directory: Path) -> None:
        """Writes all that a run needs to continue bit for bit."""

    def load(self, directory: Path) -> None:
        """Continues from what `save` wrote."""

    def provenance(self) -> dict[str, Any]:
        """Versions and settings that the numbers depend on, as JSON values without time or host."""


Likelihoods = tuple[tuple[float, ...], float]  # of one document: its log-likelihoods, and its score


class Answerer(Protocol):
    """One model that is asked. Built from `(case, weights, setting)`; see `harness.answers` for what it leaves."""

    def evaluate(self, task: Task, documents: Sequence[Any]) -> Iterable[Likelihoods]:
        """Log-likelihoods and score of every document of a task, in order, by lm-eval."""

    def answers(self, evaluation: Evaluation) -> dict[str, npt.NDArray[Any]]:
        """What it says to rows, prompts and conversations, by the names of `harness.answers`."""

    def parameters(self) -> dict[str, npt.NDArray[Any]]:
        """Every parameter by its Hugging Face name."""

    def alignment(self) -> dict[str, Any]:
        """The configuration as it was built, in the keys of `harness.alignment.model_alignment`."""

    def provenance(self) -> dict[str, Any]:
        """Versions and settings that the answers depend on, as JSON values without time or host."""


@runtime_checkable
class Tapped(Protocol):
    """A runner that shows what is inside a step. Looking changes no bit of it; without `taps`, a diagnosis goes by
    the gradients of the parameters alone."""

    def taps(self, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]) -> Taps:
        """The places that can be reached, for the global batch; nothing is updated, and it may be asked again."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a runner is to run beside its case. `learning_rate_zero`: the schedule is replaced by 0 in every step.
    `rank`: which of the ranks of the case's layout this process is; None: it trains alone, whatever the layout.
    `tokenizer`: the directory by which one that is asked reads texts."""

    device: str
    threads: int
    learning_rate_zero: bool
    rank: int | None = None
    tokenizer: Path | None = None


RunnerFactory = Callable[[Case, Tensors, Setting], Runner]
AnswererFactory = Callable[[Case, Tensors, Setting], Answerer]


def find_runner(name: str, task: str = "pretrain") -> str:
    """The `MODULE:CLASS` or `FILE.py:CLASS` of a runner given by its name in a task or already so. Nothing of it is
    imported here.

    Raises:
        InputError: neither a known name nor of those forms, or there is no such module or file.
    """
    known = RUNNERS_OF_INFERENCE if task == "inference" else RUNNERS
    entry = known.get(name, name)
    if entry.count(":") != 1 or not all(entry.split(":")):
        raise InputError(
            f"There is no runner {name!r}: known are {', '.join(known)}, or give MODULE:CLASS or FILE.py:CLASS."
        )
    module = entry.partition(":")[0]
    if module.endswith(SUFFIX):
        if not Path(module).is_file():
            raise InputError(f"The runner {name!r} names the file {module!r}, which is not there.")
        return entry
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise InputError(f"The runner {name!r} names the module {module!r}, which cannot be found (see PYTHONPATH).")
    return entry


def check_policy(case: Case) -> None:
    """Refuses a precision policy that the torch reference cannot follow.

    Raises:
        InputError: a dtype other than float32 outside the matrix products.
    """
    other = {key: value for key, value in vars(case.precision).items() if key != "compute_dtype" and value != "float32"}
    if other:
        named = ", ".join(f"{key} {value}" for key, value in sorted(other.items()))
        raise InputError(f"The torch reference keeps all but compute_dtype in float32; the case asks for {named}.")


def check_mindformers(case: Case) -> None:
    """Refuses a case for which mindformers' graph is not run here.

    Raises:
        InputError: with every reason.
    """
    reasons = list(_reasons_against_mindformers(case))
    if reasons:
        raise InputError("\n".join(["The mindformers runner cannot train this case:", *reasons]))


def _reasons_against_mindformers(case: Case) -> Iterator[str]:
    other = {key: value for key, value in sorted(vars(case.precision).items()) if value != "float32"}
    if other:
        named = ", ".join(f"{key} {value}" for key, value in other.items())
        yield f"it trains in float32 alone, and the case asks for {named}. Leave them out."
    if case.parallel.world_size > 1:
        yield f"it trains in one process, and the case asks for {case.parallel.world_size} ranks. Leave out parallel."
    if not case.training.graph_mode:
        yield "mindformers' training graph is compiled, and the case asks for graph_mode false. Leave it out."


def load_runner(entry: str) -> Any:
    """The factory behind `MODULE:CLASS` or `FILE.py:CLASS`, imported in this process: a `RunnerFactory`, or in a
    case of inference an `AnswererFactory`."""
    module, _, name = entry.partition(":")
    loaded = _load_file(Path(module)) if module.endswith(SUFFIX) else importlib.import_module(module)
    return getattr(loaded, name)


def _load_file(path: Path) -> ModuleType:
    """The module of a file, entered under the file's name, where a graph compiler looks for its cells' sources."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, path
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def header_of(job: "Job", case: Case, model: Runner | Answerer, *, weights: str, batches: str) -> TraceHeader:
    """What a trace begins with; the case, and the digests `weights` and `batches`, are of what the run itself read."""
    return TraceHeader(
        run=job.run,
        side=job.side,
        arm=job.arm,
        case=case.digest(),
        weights=weights,
        batches=batches,
        steps=job.steps,
        runner=job.runner,
        initial=digest_each(model.parameters()),
        alignment=model.alignment(),
        provenance={**model.provenance(), "ranks": job.ranks, "perturbation": job.perturbation},
    )


PORTS_OF_A_START = 2  # of `msrun`, and where the ranks wait for each other


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The machines that make a run together, which of them this one is, and where their processes meet: at a port of
    the first and at those after it, `PORTS_OF_A_START` each time that they are started, which may be twice."""

    count: int
    rank: int
    master: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that one run's process is told. Paths are absolute.

    `ranks`: how many processes make the run together; `nodes`: on which machines, where it is not this one alone;
    `logs`: where their logs go, where it is not into the run's directory. `checkpoint`: where the last state is saved.
    """

    run: str
    side: Side
    arm: Arm
    runner: str
    device: str
    threads: int
    ranks: int
    steps: int
    case: Mapping[str, Any]
    case_digest: str
    inputs: str
    weights: str
    directory: str
    keep_tensors: str | None
    perturbation: int | None
    resume: bool
    nodes: Nodes | None = None
    logs: str | None = None
    checkpoint: str | None = None
