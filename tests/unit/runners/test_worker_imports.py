"""What the process of a run imports: few packages, for it runs in environments of its own, and nothing that judges."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.certify.prerequisites import OF_A_WORKER

ROOT = Path(__file__).parents[3]
ROOMS = {"base", "cases", "runners", "runs"}
# They start the processes of runs, and import what the command imports.
BROUGHT = {"annotated_types", "pydantic_core", "typing_extensions", "typing_inspection"}  # by these
STARTERS = {"__init__", "executor", "launcher", "left", "running", "turns"}


def contract() -> dict[str, Any]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found: dict[str, Any] = next(one for one in contracts if one["name"].startswith("The process of a run is small"))
    return found


def imported_by(*modules: str) -> set[str]:
    script = f"import {', '.join(modules)}, json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout))


def within(modules: set[str], packages: list[str]) -> set[str]:
    return {one for one in modules for package in packages if one == package or one.startswith(f"{package}.")}


@pytest.mark.parametrize("module", ["worker", "ranks", "inference_worker"])
def test_the_process_of_a_run_imports_nothing_that_judges_renders_or_signs(module: str) -> None:
    found = imported_by(f"harness.runners.{module}")
    assert within(found, contract()["forbidden_modules"]) == set()
    assert {one.split(".")[1] for one in found if one.startswith("harness.")} <= ROOMS
    assert within(found, ["mindspore", "torch", "transformers"]) == set(), "a framework comes with its runner"


def test_the_process_of_a_run_needs_three_packages_besides_its_framework() -> None:
    """Its interpreter may have been made for a framework alone; docs/two-environments.md names these."""
    found = imported_by("harness.runners.worker", "harness.runners.ranks", "harness.runners.inference_worker")
    packages = {one.partition(".")[0] for one in found} - set(sys.stdlib_module_names) - {"harness", "qwen3_model"}
    own = {one for one in packages if one in importlib.metadata.packages_distributions() and one[0] != "_"}
    assert set(OF_A_WORKER) <= own <= {*OF_A_WORKER, *BROUGHT}


def test_what_is_forbidden_would_be_seen() -> None:
    assert within(imported_by("harness.report"), contract()["forbidden_modules"]) >= {"jinja2", "harness.evidence"}


def test_the_contract_covers_every_module_that_the_process_of_a_run_may_import() -> None:
    modules = {path.stem for path in (ROOT / "harness" / "runners").glob("*.py")} - STARTERS
    assert set(contract()["source_modules"]) == {f"harness.runners.{module}" for module in modules}
