"""The device that PyTorch computes on: made deterministic, and recorded with all that its numbers depend on.

Float32 is computed as float32: no TF32, and no sum of a product in fewer digits than its result. cuDNN's attention is
never chosen, because it does not promise the same bits twice.

Source: PyTorch, "Reproducibility" and "Numerical accuracy"; NVIDIA, cuBLAS, "Results reproducibility", for the variable
of its workspace, which `harness.runners.starting` sets before CUDA starts.
"""

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import torch

from harness.base.errors import MissingPrerequisite

DRIVER = Path("/proc/driver/nvidia/version")


def find_device(name: str) -> torch.device:
    """The device of a job, ready for computing: CPU, CUDA or Ascend.

    Raises:
        MissingPrerequisite: PyTorch cannot compute on it here.
    """
    device = _npu() if name == "Ascend" else torch.device(name.lower())
    if device.type == "cuda" and not torch.cuda.is_available():
        raise MissingPrerequisite(
            f"PyTorch {torch.__version__} finds no GPU here. Check nvidia-smi and python -c 'import torch; "
            "torch.cuda.init()', or let the reference compute on the CPU: --reference-device cpu"
        )
    return device


def _npu() -> torch.device:
    try:
        importlib.import_module("torch_npu")
    except ImportError as error:
        raise MissingPrerequisite(
            f"PyTorch computes on an NPU by torch_npu, which cannot be imported here: {error}. "
            "Install it, or let the reference compute on the CPU: --reference-device cpu"
        ) from None
    return torch.device("npu")


def make_deterministic() -> None:
    """For every device: what has no deterministic implementation is an error."""
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.enable_cudnn_sdp(False)


def provenance_of(device: torch.device) -> dict[str, Any]:
    """What the numbers of a device depend on besides PyTorch's version: of a GPU its name, driver and libraries."""
    if device.type == "cpu":
        return {"isa": torch.backends.cpu.get_cpu_capability()}
    if device.type == "cuda":
        return {
            "gpu": torch.cuda.get_device_name(device),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cublas": _cublas(),
            "cudnn": torch.backends.cudnn.version(),
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        }
    module = importlib.import_module("torch_npu")
    return {"torch_npu": module.__version__, "npu": module.npu.get_device_name()}


def _driver() -> str | None:
    """As the kernel's module states it."""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", DRIVER.read_text(errors="replace")) if DRIVER.is_file() else None
    return found[0] if found else None


def _cublas() -> str | None:
    """The version of the package that brings it, which PyTorch's wheels need."""
    names = (str(one.metadata["Name"]) for one in importlib.metadata.distributions())
    found = next((name for name in names if name.startswith("nvidia-cublas")), None)
    return importlib.metadata.version(found) if found else None
