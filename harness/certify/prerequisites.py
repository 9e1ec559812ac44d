"""What a device needs before anything runs on it: each thing that was looked for, what was found, and what mends it.

Nothing here imports a framework: the variables of determinism have to be set before one is.
"""

import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import InputError, MissingPrerequisite
from harness.cases.case import Case
from harness.certify import environment
from harness.certify.jobs import Options
from harness.runners.launcher import DETERMINISM
from harness.runners.registry import check_mindformers, check_policy, needs_of
from harness.runs.trace import Side
from qwen3_model.configuration_qwen3 import parameter_shapes

GIB = 2**30
LEAST_DISK_GIB = 5
SMI_SECONDS = 60
# Which CANN each MindSpore takes. Source: mindspore 2.9.0, run_check/_check_version.py; MindSpore Transformers r1.8.0,
# installation guide, for the others.
CANN_OF: Mapping[str, tuple[str, ...]] = {
    "2.9": ("8.2", "8.3", "8.5", "9.0"),
    "2.7.2": ("8.5",),
    "2.7.1": ("8.3",),
    "2.7.0": ("8.2",),
    "2.6": ("8.1",),
}
# The oldest driver for a CANN. Source: MindSpore Transformers r1.8.0, installation guide.
DRIVER_OF: Mapping[str, tuple[int, int]] = {"8.1": (25, 0), "8.2": (25, 2), "8.3": (25, 3), "8.5": (25, 5)}


@dataclass(frozen=True, kw_only=True)
class Prerequisite:
    """One thing that was looked for. `mend` says what to do where it is not met, and is empty where it is."""

    name: str
    met: bool
    found: str
    mend: str = ""


def prerequisites(device: str, directory: Path, ranks: int, needed: Iterable[str]) -> tuple[Prerequisite, ...]:
    """What runs on a device need here.

    Args:
        device: `CPU` or `Ascend`.
        directory: where their files go.
        ranks: how many processes share this machine's devices.
        needed: the packages that have to be installed.
    """
    found = [*_packages(needed), _disk(directory), *_variables()]
    if device == "Ascend":
        found += _ascend(ranks)
    return tuple(found)


def _packages(needed: Iterable[str]) -> Iterator[Prerequisite]:
    installed = environment.packages()
    for name in needed:
        version = installed[name]
        yield Prerequisite(
            name=f"package {name}",
            met=version is not None,
            found=version or "not installed",
            mend="" if version else "pip install 'mindspore-certify[run]'",
        )


def _disk(directory: Path) -> Prerequisite:
    there = directory.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / GIB
    met = free >= LEAST_DISK_GIB
    return Prerequisite(
        name="disk",
        met=met,
        found=f"{free:.0f} GiB free at {there}" if met else f"{free:.1f} GiB free at {there}",
        mend="" if met else f"at least {LEAST_DISK_GIB} GiB are needed: delete old nights, or use another directory",
    )


def _variables() -> Iterator[Prerequisite]:
    """Every run is started with its own variables; one that says otherwise here would mislead who reads the log."""
    others = {name: os.environ[name] for name, value in DETERMINISM.items() if os.environ.get(name, value) != value}
    yield Prerequisite(
        name="variables of determinism",
        met=not others,
        found=", ".join(f"{name}={value}" for name, value in others.items())
        or "set for every run before its framework is imported",
        mend=f"unset {' '.join(others)}: every run sets its own" if others else "",
    )


def _ascend(ranks: int) -> Iterator[Prerequisite]:
    yield _devices(ranks)
    found = environment.ascend()
    driver, cann = found["driver"], found["cann"]
    yield Prerequisite(
        name="driver",
        met=driver is not None,
        found=driver or f"no version in {environment.DRIVER_INFO}",
        mend="" if driver else "install the Ascend HDK: driver, then firmware",
    )
    home = os.environ.get(environment.CANN_HOME)
    without = f"no version in {Path(home) / environment.CANN_INFO}" if home else f"{environment.CANN_HOME} is not set"
    yield Prerequisite(
        name="CANN",
        met=cann is not None,
        found=cann or without,
        mend=""
        if cann
        else "install CANN and 'source /usr/local/Ascend/ascend-toolkit/set_env.sh' before this command",
    )
    if cann:
        yield _fits_mindspore(cann, environment.packages()["mindspore"])
        yield _fits_driver(cann, driver)


def _devices(ranks: int) -> Prerequisite:
    mend = "is this machine meant? Its driver brings npu-smi; in a container, devices and driver must be handed in"
    try:
        done = subprocess.run(
            ["npu-smi", "info", "-l"], capture_output=True, text=True, timeout=SMI_SECONDS, check=False
        )
    except FileNotFoundError:
        return Prerequisite(name="devices", met=False, found="npu-smi is not installed", mend=mend)
    except subprocess.TimeoutExpired:
        found = f"npu-smi gave no answer within {SMI_SECONDS} s"
        return Prerequisite(name="devices", met=False, found=found, mend="a device may hang: npu-smi info, dmesg")
    count = re.search(r"Total Count\s*:\s*(\d+)", done.stdout)
    if done.returncode or not count:
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        return Prerequisite(name="devices", met=False, found=f"npu-smi info -l: {lines[-1]}", mend=mend)
    there = int(count[1])
    met = there >= ranks
    return Prerequisite(
        name="devices",
        met=met,
        found=f"{there} by npu-smi",
        mend="" if met else f"{ranks} ranks need as many devices: choose another case, or more machines",
    )


def _fits_mindspore(cann: str, mindspore: str | None) -> Prerequisite:
    taken = next((takes for version, takes in CANN_OF.items() if _begins(mindspore or "", version)), None)
    if taken is None:
        return Prerequisite(
            name="CANN fits MindSpore",
            met=False,
            found=f"CANN {cann}, MindSpore {mindspore}",
            mend="which CANN this MindSpore takes is not known here: see the installation guide of MindSpore",
        )
    met = any(_begins(cann, one) for one in taken)
    return Prerequisite(
        name="CANN fits MindSpore",
        met=met,
        found=f"CANN {cann}, MindSpore {mindspore}",
        mend="" if met else f"MindSpore {mindspore} takes CANN {', '.join(taken)}",
    )


def _fits_driver(cann: str, driver: str | None) -> Prerequisite:
    least = next((needed for version, needed in DRIVER_OF.items() if _begins(cann, version)), None)
    numbers = tuple(map(int, re.findall(r"\d+", driver or "")[:2]))
    met = least is None or (len(numbers) == 2 and numbers >= least)
    mend = "" if met or least is None else f"CANN {cann} needs a driver of {least[0]}.{least[1]} or later"
    found = f"driver {driver}, CANN {cann}" + (": what that needs is not known here" if least is None else "")
    return Prerequisite(name="driver fits CANN", met=met, found=found, mend=mend)


def _begins(version: str, with_: str) -> bool:
    """Whether a version is of a series: 8.5.0 of 8.5, and 8.50 not."""
    return re.match(rf"{re.escape(with_)}(?!\d)", version) is not None


GIB = 2**30


def check_prerequisites(case: Case, options: Options, sides: Sequence[Side]) -> None:
    """Refuses what these sides cannot be run with here, before anything is written; the corpus is read later.

    Raises:
        MissingPrerequisite: a framework of a chosen runner is not installed, or the device is not there.
    """
    installed = environment.packages()
    for runner in (getattr(options, side) for side in sides):
        for package, extra in needs_of(case, runner).items():
            if installed[package] is None:
                raise MissingPrerequisite(
                    f"The {runner!r} runner needs {package}. Install it with: pip install '.[{extra}]'"
                )
    if options.reference == "torch":
        check_policy(case)
    if options.subject == "mindformers":
        check_mindformers(case)
    _check_memory(case)
    if options.device == "Ascend" and not any(Path("/dev").glob("davinci[0-9]*")):
        raise MissingPrerequisite(
            "There is no Ascend device here (no /dev/davinci*). Run with --device CPU, or on a machine with an NPU."
        )


def _check_memory(case: Case) -> None:
    """Refuses a model whose weights are drawn and digested here and do not fit twice, before the machine swaps."""
    needed = 2 * 4 * sum(math.prod(shape) for _, shape in parameter_shapes(case.model)) / GIB
    there = environment.machine()["memory_gib"]
    if there and needed > there:
        raise InputError(
            f"{case.name} needs {needed:.0f} GiB of memory for its weights alone, and this machine has {there}. "
            f"Choose a smaller case; 'certify plan {case.name}' says what each device would need."
        )
