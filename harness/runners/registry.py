"""Runners by name, what each cannot run, and the class behind a name or a file."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.base.errors import InputError
from harness.cases.case import Case

SUFFIX = ".py"
# What a runner written for version 0.1 imports, and where it is now.
MOVED: Mapping[str, str] = {
    "harness.alignment": "harness.cases.alignment",
    "harness.case": "harness.cases.case",
    "harness.errors": "harness.base.errors",
    "harness.trace": "harness.runs.trace",
}


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
    """The module of a file, entered under the file's name, where a graph compiler looks for its cells' sources."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, path
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
