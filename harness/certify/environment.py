"""What machine, packages and sources a run had; nothing here depends on time or host."""

import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.base.code import ROOMS, ROOT, source_digest
from harness.base.errors import InputError
from harness.certify.committed import state
from harness.certify.versions import not_tried
from harness.evidence.provenance import Environment, Source
from harness.runs.trace import Side

PACKAGES = (
    "mindspore", "mindformers", "torch", "transformers", "lm_eval", "numpy", "scipy", "safetensors", "pydantic",
    "plotly",
)  # fmt: skip
CANN_HOME, CANN_INFO = "ASCEND_HOME_PATH", Path("compiler") / "version.info"
DRIVER_INFO = Path("/usr/local/Ascend/driver/version.info")
SMI_SECONDS = 60
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
ISA_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


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


def packages() -> dict[str, str | None]:
    """Installed version of each package that the numbers or the page depend on; None where it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Processor, cores, memory and instruction sets; of a machine with NPUs also their chip, CANN and driver."""
    info = _proc_cpuinfo()
    flags = set(re.findall(r"\w+", info.get("flags", info.get("Features", ""))))
    return {
        "processor": info.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
        **({"ascend": found} if any((found := ascend()).values()) else {}),
    }


def ascend() -> dict[str, str | None]:
    """Versions of CANN and driver as their packages state them, and the chip as npu-smi names it; None where there is
    none, or where chips differ."""
    home = os.environ.get(CANN_HOME)
    cann = _stated_version(Path(home) / CANN_INFO) if home else None
    return {"cann": cann, "driver": _stated_version(DRIVER_INFO), "soc": _soc()}


def _soc() -> str | None:
    """Source: the table of `npu-smi info`, whose rows begin with `| NPU   Name   | Health`."""
    try:
        done = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    found = {match[1] for match in re.finditer(r"^\|\s*\d+\s+([A-Za-z]*\d\w+)\s*\|\s*[A-Z]", done.stdout, re.M)}
    return found.pop() if len(found) == 1 else None


def _stated_version(path: Path) -> str | None:
    """The value of `Version=` in a file as the Ascend packages write it."""
    if not path.is_file():
        return None
    found = re.search(r"^\s*version\s*=\s*\[?([^\s\]]+)", path.read_text(errors="replace"), re.M | re.I)
    return found[1] if found else None


def _proc_cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}


def source() -> Source:
    """Revision, state and digest of the code that this process runs."""
    found = state(ROOT, ROOMS, ("pyproject.toml",))
    return Source(revision=found.revision, dirty=found.dirty, sha256=source_digest(ROOT))
