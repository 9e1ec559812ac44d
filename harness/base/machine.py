"""The machine that a process runs on, and the packages that are installed there; nothing depends on time or host."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "mindspore", "mindformers", "torch", "transformers", "lm_eval", "numpy", "scipy", "safetensors", "pydantic",
    "plotly",
)  # fmt: skip
CANN_HOME, CANN_INFO = "ASCEND_HOME_PATH", Path("compiler") / "version.info"
DRIVER_INFO = Path("/usr/local/Ascend/driver/version.info")
SMI_SECONDS = 60
DRIVER_TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/local/Ascend/driver/tools"
DEVICE_NODES, VISIBLE = Path("/dev"), "ASCEND_RT_VISIBLE_DEVICES"
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
        done = subprocess.run([npu_smi(), "info"], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    found = {match[1] for match in re.finditer(r"^\|\s*\d+\s+([A-Za-z]*\d\w+)\s*\|\s*[A-Z]", done.stdout, re.M)}
    return found.pop() if len(found) == 1 else None


def npu_smi() -> str:
    """The driver's tool where its package puts it, or else as it is found. Source: Ascend HDK, installation guide."""
    return shutil.which("npu-smi", path=DRIVER_TOOLS) or "npu-smi"


def usable_devices(by_the_driver: int) -> tuple[int, str]:
    """How many devices there are for runs, and what limits them: what lies in `/dev` and `ASCEND_RT_VISIBLE_DEVICES`
    can only be fewer than those that the driver reports."""
    limits = {"npu-smi": by_the_driver}
    if nodes := [path for path in DEVICE_NODES.glob("davinci*") if path.name.removeprefix("davinci").isdigit()]:
        limits[f"{DEVICE_NODES}/davinci*"] = len(nodes)
    if (visible := os.environ.get(VISIBLE)) is not None:
        limits[VISIBLE] = len({part.strip() for part in visible.split(",") if part.strip().isdigit()})
    least = min(limits, key=lambda name: limits[name])
    return limits[least], least


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
