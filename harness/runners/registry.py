"""Runners by name, what each cannot run, and the class behind a name or a file."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.base.code import ROOMS
from harness.base.digest import digest_file, digest_json
from harness.base.errors import InputError
from harness.base.near_names import did_you_mean
from harness.cases.case import Case
from harness.cases.task import INFERENCE, PRETRAIN, Task, TaskName

SUFFIX = ".py"
INSTALLED = "site-packages"  # a directory of packages, also where it lies next to a runner
# What a runner written for version 0.1 imports, and where it is now.
MOVED: Mapping[str, str] = {
    "harness.alignment": "harness.cases.alignment",
    "harness.case": "harness.cases.case",
    "harness.errors": "harness.base.errors",
    "harness.trace": "harness.runs.trace",
}


@dataclass(frozen=True, kw_only=True)
class NamedRunner:
    """A runner with a short name. `entry` is its `MODULE:CLASS`; `needs` maps each package that it imports to the extra
    that installs it."""

    entry: str
    needs: Mapping[str, str]


TORCH = {"torch": "torch", "transformers": "torch"}
MINDSPORE = {"mindspore": "mindspore"}
# lm-eval reads texts by the tokenizer of transformers.
EVALUATION = {"transformers": "torch", "lm_eval": "inference"}
# The runners by task and name. Any other is given as MODULE:CLASS, or as FILE.py:CLASS, and states its own needs.
TRAINERS = {
    "torch": NamedRunner(entry=PRETRAIN.reference, needs=TORCH),
    "oracle": NamedRunner(entry=PRETRAIN.oracle, needs={"torch": "torch"}),
    "mindspore": NamedRunner(entry=PRETRAIN.subject, needs=MINDSPORE),
    "mindformers": NamedRunner(
        entry="harness.runners.mindformers_subject:MindFormersSubject",
        needs={**MINDSPORE, "mindformers": "mindformers"},
    ),
}
RUNNERS: Mapping[TaskName, Mapping[str, NamedRunner]] = {
    "pretrain": TRAINERS,
    "finetune": TRAINERS,
    "inference": {
        "torch": NamedRunner(entry=INFERENCE.reference, needs={**TORCH, **EVALUATION}),
        "oracle": NamedRunner(entry=INFERENCE.oracle, needs={**TORCH, **EVALUATION}),
        "mindspore": NamedRunner(entry=INFERENCE.subject, needs={**MINDSPORE, **EVALUATION}),
    },
}


def needs_of(case: Case, runner: str) -> Mapping[str, str]:
    """The packages that a runner needs for a case, each with the extra that installs it. A shipped runner may be given
    by its short name or, as a bundle states it, by its module and class."""
    named = (one for name, one in RUNNERS[case.task.name].items() if runner in (name, one.entry))
    return next((one.needs for one in named), {})


def find_runner(name: str, task: Task = PRETRAIN) -> str:
    """The `MODULE:CLASS` or `FILE.py:CLASS` of a runner, given in that form or by its short name in a task. Nothing of
    it is imported here.

    Raises:
        InputError: neither a known name nor of those forms, or there is no such module or file.
    """
    known = RUNNERS[task.name]
    entry = known[name].entry if name in known else name
    if entry.count(":") != 1 or not all(entry.split(":")):
        raise InputError(
            f"There is no runner {name!r}: known are {', '.join(known)}, or give MODULE:CLASS or FILE.py:CLASS."
            f"{did_you_mean(name, known)}"
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


def file_of(name: str) -> Path | None:
    """The file of a runner that is given as `FILE.py:CLASS`."""
    file, _, name = name.rpartition(":")
    return Path(file) if name and file.endswith(SUFFIX) else None


def digest_of_runner(entry: str) -> str | None:
    """The digest of the file of a runner that is not part of this program. Nothing of it is executed, but the packages
    that its module lies in are imported. None for a runner of this program, and where there is no such file.

    The rest of what such a runner imports is in `runner_code`, which only a process can state that has imported it.
    """
    file = file_of(entry)
    if file is None:
        module = entry.partition(":")[0]
        if module.partition(".")[0] in ROOMS:
            return None
        spec = importlib.util.find_spec(module)
        file = Path(spec.origin) if spec and spec.has_location and spec.origin else None
    return digest_file(file) if file is not None and file.is_file() else None


def runner_code(entry: str) -> dict[str, str]:
    """What the process of a runner that is not part of this program states of it: the digest of its file and, of one
    that is given as a file, that of all modules that were imported from beside it."""
    if (of_file := digest_of_runner(entry)) is None:
        return {}
    file = file_of(entry)
    if file is None:
        return {"runner_file": of_file}
    beside, found = file.resolve().parent, dict[str, str]()
    for name, module in sorted(sys.modules.items()):
        origin = Path(getattr(module, "__file__", None) or os.devnull).resolve()
        own = name.partition(".")[0] in ROOMS or INSTALLED in origin.parts
        if not own and origin.is_relative_to(beside) and origin.is_file():
            found[name] = digest_file(origin)
    return {"runner_file": of_file, "runner_code": digest_json(found)}


def check_policy(case: Case) -> None:
    """Refuses a precision policy that the torch reference cannot follow.

    Raises:
        InputError: a dtype other than float32 outside the matrix products.
    """
    other = {
        key: value for key, value in case.precision.dtypes.items() if key != "compute_dtype" and value != "float32"
    }
    if other:
        named = ", ".join(f"{key} {value}" for key, value in sorted(other.items()))
        raise InputError(f"The torch reference keeps all but compute_dtype in float32; the case asks for {named}.")


def check_mindformers(case: Case, device: str = "CPU") -> None:
    """Refuses a case for which mindformers' graph is not run on a device.

    Raises:
        InputError: with every reason.
    """
    reasons = list(_reasons_against_mindformers(case, device))
    if reasons:
        raise InputError("\n".join(["The mindformers runner cannot train this case:", *reasons]))


def _reasons_against_mindformers(case: Case, device: str) -> Iterator[str]:
    if case.data.documents:
        yield "data.reset_attention_mask, data.reset_position_ids: it would have to be given masks and positions"
    other = {key: value for key, value in sorted(case.precision.dtypes.items()) if value != "float32"}
    if other and device == "CPU":
        named = ", ".join(f"{key} {value}" for key, value in other.items())
        yield (
            f"on a CPU, which multiplies no bfloat16, it trains in float32 alone, and the case asks for {named}. Leave "
            "them out, or run it with --device Ascend."
        )
    if case.parallel.world_size > 1:
        yield (
            f"it trains in one process, and the case asks for {case.parallel.world_size} ranks. Leave out parallel, or "
            "let mindformers' own Trainer train it: certify launch FILE.yaml --trainer mindformers"
        )
    if not case.training.graph_mode:
        yield "mindformers' training graph is compiled, and the case asks for graph_mode false. Leave it out."


def load_runner(entry: str) -> Any:
    """The factory behind `MODULE:CLASS` or `FILE.py:CLASS`, imported in this process: a `RunnerFactory`, or in a
    case of inference an `AnswererFactory`.

    Raises:
        InputError: it imports a module of this package that is not there: with its new place, or the version that has
            it.
    """
    module, _, name = entry.partition(":")
    try:
        # a runner written for version 0.1 goes on running
        sys.modules.update({old: importlib.import_module(new) for old, new in MOVED.items()})
        loaded = _load_file(Path(module)) if module.endswith(SUFFIX) else importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("harness."):
            raise
        raise InputError(
            f"The runner {entry!r} imports {error.name}, which this version does not have. Its modules are listed in "
            f"ARCHITECTURE.md; mindspore-certify 0.1.0 is the last version with those before."
        ) from None
    return getattr(loaded, name)


def _load_file(path: Path) -> ModuleType:
    """The module of a file, entered under the file's name, where a graph compiler looks for its cells' sources. It may
    import modules that lie beside it; they are found last, so none takes the place of another."""
    if (beside := str(path.resolve().parent)) not in sys.path:
        sys.path.append(beside)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, path
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
