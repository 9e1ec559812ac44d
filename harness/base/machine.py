"""The machine that a process runs on, and the packages that are installed there; nothing depends on time or host."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

from harness.base import ascend

PACKAGES = (
    "mindspore", "mindformers", "torch", "transformers", "lm_eval", "numpy", "scipy", "safetensors", "pydantic",
    "plotly",
)  # fmt: skip
SMI_SECONDS = 60
ISA_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


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
        **({"ascend": found} if any((found := ascend.versions()).values()) else {}),
    }


def _proc_cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines) if value}
