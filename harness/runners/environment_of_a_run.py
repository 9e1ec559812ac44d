"""The environment of a run's process: chosen variables of the process that starts it, and no others.

A variable that no one thought of can change a number or lead to other code, so what is passed is a list. What can
change a number is recorded with the runs. Of `PYTHONPATH` only this program's code, what CANN adds to it, and the place
of the runner's own module remain. Packages of the user's own directory are not found, unless this program lies there.
"""

import importlib.util
import os
import site
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import numpy

from harness.base.code import ROOT
from harness.runners.processes import code_alone
from harness.runners.registry import SUFFIX

PATH = "PYTHONPATH"
# They say where things are and in which language; no number follows from them.
PLAIN = frozenset({
    "HOME", "PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
    "HF_HOME", "ASCEND_PROCESS_LOG_PATH",
})  # fmt: skip
# They choose libraries, kernels, devices, threads or the order of a sum, or allocate. Sources: the manuals of glibc
# (ld.so, malloc), OpenMP, oneMKL, oneDNN, OpenBLAS, PyTorch, CUDA, CANN and MindSpore.
RECORDED = frozenset({"LD_LIBRARY_PATH", "LD_PRELOAD", "LD_BIND_NOW", "GLIBC_TUNABLES", "TOOLCHAIN_HOME", "DEVICE_ID"})
RECORDED_PREFIXES = (
    "ASCEND", "ACL_", "ATB_", "ATEN_", "CUBLAS", "CUDA", "CUDNN", "DNNL_", "DUMP_", "GE_", "GLOG_", "GLOO_",
    "GOMP_", "GOTO_", "HCCL_", "KMP_", "LCCL_", "LCAL_", "LOG_MF", "MALLOC_", "MF_", "MINDSPORE_", "MKL_", "MS_",
    "NCCL_", "NPU_", "NUMEXPR_", "NVIDIA_", "OMP_", "ONEDNN_", "OPENBLAS_", "OPS_", "PYTORCH_", "RANK_TABLE",
    "TASK_QUEUE", "TBE_", "TE_", "TORCH_", "TORCHINDUCTOR_",
)  # fmt: skip
PLAIN_PREFIXES = ("LC_",)
# Where CANN's `set_env.sh` finds what it adds to `PYTHONPATH`. Source: its text in CANN 8.
CANN_ROOTS = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "TOOLCHAIN_HOME", "ASCEND_AICPU_PATH")
INSTALLED = Path("/usr/local/Ascend")


def environment_of(runner: str, python: str | None = None) -> dict[str, str]:
    """The variables that the process of a runner gets: some of this one's, and those by which it finds its code.
    `python`: the interpreter, where it is another than this one."""
    paths = python_path([runner], python)
    return {
        **{name: value for name, value in os.environ.items() if name in PLAIN or name.startswith(PLAIN_PREFIXES)},
        **_recorded(),
        "PYTHONSAFEPATH": "1",
        **_without_user_site(),
        **({PATH: os.pathsep.join(paths)} if paths else {}),
    }


def recorded_variables(runners: Iterable[str]) -> dict[str, str]:
    """Those of them that can change a number, for all of these runners."""
    paths = python_path(runners)
    return {**_recorded(), **_without_user_site(), **({PATH: os.pathsep.join(paths)} if paths else {})}


def _recorded() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in RECORDED or (name.startswith(RECORDED_PREFIXES) and name not in PLAIN)
    }


def _without_user_site() -> dict[str, str]:
    own = Path(site.getusersitepackages())
    inside = any(Path(path).is_relative_to(own) for path in (ROOT, str(numpy.__file__)))
    return {} if inside else {"PYTHONNOUSERSITE": "1"}


def python_path(runners: Iterable[str], python: str | None = None) -> list[str]:
    """Where the processes of runners find modules besides what is installed, this program first.

    Another interpreter gets this code and nothing that lies next to it: where that is installed, the packages of this
    interpreter do.
    """
    given = [path for path in os.environ.get(PATH, "").split(os.pathsep) if path]
    own = {str(place) for runner in runners if (place := _place_of(runner)) is not None}
    kept = [path for path in given if _of_cann(path) or os.path.realpath(path) in own]
    installed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    first = [] if str(ROOT) in installed and not kept else [str(ROOT)]
    if python is not None:
        first = [code_alone()]
    return list(dict.fromkeys([*first, *kept]))


def left_out(runners: Iterable[str]) -> list[str]:
    """The places of `PYTHONPATH` in which the processes of runners find nothing."""
    kept = set(python_path(runners))
    given = [path for path in os.environ.get(PATH, "").split(os.pathsep) if path]
    return [path for path in given if path not in kept and os.path.realpath(path) != str(ROOT)]


def _of_cann(path: str) -> bool:
    roots = [INSTALLED, *(Path(os.environ[name]) for name in CANN_ROOTS if os.environ.get(name))]
    return any(Path(os.path.normpath(path)).is_relative_to(root) for root in roots)


def _place_of(runner: str) -> str | None:
    """The directory from which the module of a runner is imported; None for a file and for what is not there."""
    module = runner.partition(":")[0]
    top = module.partition(".")[0]
    if module.endswith(SUFFIX) or not top:
        return None
    spec = importlib.util.find_spec(top)
    places = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
    found = next((place for place in places if place), None)
    return os.path.realpath(Path(found).parent) if found else None
