"""The runtime profile of each device: what every run on it gets, before its framework is imported and in its process.

A profile is pinned. It is no option of a command: the values of the calling shell are replaced, and a bundle records
the variables (`environment.json`) and each trace the settings (`provenance.profile`). So two runs on one kind of device
differ in the case alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CPU, ASCEND, CUDA = "CPU", "Ascend", "CUDA"
HCCL_BUFFER_MIB = 200  # CANN's own default, pinned: the memory of a rank depends on it

# Read by Python itself, on every device.
OF_EVERY_RUN: Mapping[str, str] = {"PYTHONHASHSEED": "0"}
# Sources: MindSpore Transformers, precision optimization guide; MindSpore, `mindspore.set_deterministic`; CANN, list of
# environment variables; NVIDIA, cuBLAS, "Results reproducibility".
VARIABLES: Mapping[str, Mapping[str, str]] = {
    CPU: {},
    ASCEND: {
        "HCCL_DETERMINISTIC": "true",
        "LCCL_DETERMINISTIC": "1",
        "TE_PARALLEL_COMPILER": "1",
        "CLOSE_MATMUL_K_SHIFT": "1",
        "HCCL_BUFFSIZE": str(HCCL_BUFFER_MIB),
    },
    CUDA: {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
}
# Each launch waits for the operator before it, which no user's run does. Only where repeats differ one repeat is made
# like this: if it agrees with itself, the order of operators on the device is what differs.
BLOCKING: Mapping[str, str] = {"MS_DEV_LAUNCH_BLOCKING": "1", "ASCEND_LAUNCH_BLOCKING": "1"}
NOT_BLOCKING: Mapping[str, str] = dict.fromkeys(BLOCKING, "0")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process of MindSpore sets once on Ascend.

    Attributes:
        jit_level: O0 launches operator by operator from a compiled graph, as in the guides of Qwen3.
        max_device_memory: The part of a device's memory that MindSpore may use; the rest is CANN's and HCCL's.
        precision_mode: Operators keep the dtype of their inputs.
        matmul_hf32, conv_hf32: Whether float32 products may be rounded to HF32, which has 11 bits; never.
    """

    jit_level: str = "O0"
    max_device_memory: str = "58GB"
    precision_mode: str = "must_keep_origin_dtype"
    matmul_hf32: bool = False
    conv_hf32: bool = False


def profile_variables(device: str, *, blocking: bool = False) -> dict[str, str]:
    """The environment variables of a run on a device."""
    own = VARIABLES[device]
    if device == ASCEND:
        own = {**own, **(BLOCKING if blocking else NOT_BLOCKING)}
    return {**OF_EVERY_RUN, **own}


def settings_of(device: str) -> Settings | None:
    """What MindSpore sets in its process; None where the device has no such settings."""
    return Settings() if device == ASCEND else None


def recorded(device: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a process with these variables, as its trace states them."""
    settings = settings_of(device)
    if settings is None:
        return {}
    blocking = any(variables.get(name) == "1" for name in BLOCKING)
    return {"profile": {**vars(settings), "blocking": blocking}}
