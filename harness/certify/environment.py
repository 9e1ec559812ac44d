"""What machine, packages and sources a run had; nothing here depends on time or host."""

import functools
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.base.code import ROOMS, ROOT, other_bytecode, source_digest
from harness.base.errors import InputError
from harness.base.machine import PACKAGES, SMI_SECONDS
from harness.base.machine import machine as machine
from harness.base.machine import packages as packages
from harness.certify.committed import state
from harness.certify.versions import not_tried
from harness.evidence.provenance import Environment, Source
from harness.runners.registry import digest_of_runner
from harness.runs.trace import Side

OLDEST_PYTHON = (3, 11)
# The side that uses a framework; what this program itself uses is that of this interpreter.
SIDE_OF: Mapping[str, Side] = {
    "mindspore": "subject", "mindformers": "subject",
    "torch": "reference", "transformers": "reference", "lm_eval": "reference",
}  # fmt: skip
# What an interpreter states about itself.
LOOK = """
import importlib.metadata, json, platform
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({{"python": platform.python_version(), "packages": {{name: version(name) for name in {names}}}}}))
"""


def describe(
    device: str,
    threads: int,
    variables: dict[str, str],
    reference_device: str = "CPU",
    reference_processes: int = 1,
    pythons: Mapping[Side, Path] | None = None,
) -> Environment:
    """What runs on these devices get here; of a reference on a device, or over processes, `machine` names that too.
    `pythons` are the interpreters of sides that have another than this one.

    Raises:
        InputError: one of them cannot be run.
    """
    reference: dict[str, Any] = {} if reference_device == "CPU" else {"reference_device": reference_device}
    if reference_processes > 1:
        reference["reference_processes"] = reference_processes
    others = pythons or {}
    used = packages()
    used |= {name: packages_of(others[side])[name] for name, side in SIDE_OF.items() if side in others}
    return Environment(
        device=device,
        python=platform.python_version(),
        threads=threads,
        machine={**machine(), **reference},
        packages=used,
        variables=variables,
        sides={side: {"python": python_version(path), "packages": packages_of(path)} for side, path in others.items()}
        or None,
        untried=not_tried(used) or None,
    )


def packages_of(python: Path | None) -> Mapping[str, str | None]:
    """`packages`, as another interpreter has them; of None, as this one.

    Raises:
        InputError: it cannot be run.
    """
    return packages() if python is None else _interpreter(python)["packages"]


def python_version(python: Path) -> str:
    """The version of another interpreter.

    Raises:
        InputError: it cannot be run.
    """
    return str(_interpreter(python)["python"])


@functools.cache
def _interpreter(python: Path) -> Mapping[str, Any]:
    script = LOOK.format(names=PACKAGES)
    try:
        # -I: neither this directory nor PYTHONPATH says what it has
        done = subprocess.run(
            [str(python), "-I", "-c", script], capture_output=True, text=True, timeout=SMI_SECONDS, check=False
        )
        found: Mapping[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{python} is no interpreter of Python that can be run: {error}. Give its path.") from None
    if tuple(map(int, found["python"].split(".")[:2])) < OLDEST_PYTHON:
        raise InputError(f"{python} is Python {found['python']}; runs need 3.11 or later.")
    return found


def check_bytecode() -> None:
    """Rejects files of bytecode that Python would execute in place of this program's code.

    Raises:
        InputError: with all of them.
    """
    if other := [str(path) for path in other_bytecode(ROOT)]:
        raise InputError(
            f"Python would execute {', '.join(other)}, which does not hold what its source gives. Find out what wrote "
            "it, and remove it; Python writes it again."
        )


def source(runners: Iterable[str] = ()) -> Source:
    """Revision, state and digest of the code that this process runs, and of runners that are not part of it.

    Raises:
        InputError: Python would execute something else in its place.
    """
    check_bytecode()
    found = state(ROOT, ROOMS, ("pyproject.toml",))
    foreign = {name: digest for name in sorted(set(runners)) if (digest := digest_of_runner(name)) is not None}
    return Source(revision=found.revision, dirty=found.dirty, sha256=source_digest(ROOT), runners=foreign or None)
