"""What machine, packages and sources a run had; nothing here depends on time or host."""

import platform
from typing import Any

from harness.base.code import ROOMS, ROOT, source_digest
from harness.base.machine import machine as machine
from harness.base.machine import packages as packages
from harness.certify.committed import state
from harness.evidence.provenance import Environment, Source


def describe(
    device: str,
    threads: int,
    variables: dict[str, str],
    reference_device: str = "CPU",
    reference_processes: int = 1,
) -> Environment:
    """What runs on these devices get here; of a reference on a device, or over processes, `machine` names that too."""
    reference: dict[str, Any] = {} if reference_device == "CPU" else {"reference_device": reference_device}
    if reference_processes > 1:
        reference["reference_processes"] = reference_processes
    return Environment(
        device=device,
        python=platform.python_version(),
        threads=threads,
        machine={**machine(), **reference},
        packages=packages(),
        variables=variables,
    )


def source() -> Source:
    """Revision, state and digest of the code that this process runs."""
    found = state(ROOT, ROOMS, ("pyproject.toml",))
    return Source(revision=found.revision, dirty=found.dirty, sha256=source_digest(ROOT))
