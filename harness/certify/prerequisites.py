"""What runs need of this machine: each thing that was checked, what was found, and how to fix it.

`check` refuses runs that cannot start here, before anything is drawn and before any directory is made. A night records
the same prerequisites for each device. No framework is imported: the variables of determinism must be set before.
"""

import dataclasses
import math
import os
import re
import shutil
import subprocess
import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base import ascend
from harness.base.errors import InputError, MissingPrerequisite
from harness.base.records import LATER
from harness.cases.case import Case, as_argument
from harness.certify import environment
from harness.certify.estimate import disk_of_a_case, memory_of_a_run, memory_of_the_host, nearest
from harness.certify.jobs import Options
from harness.certify.versions import VersionState, known
from harness.corpus.draw import HEAD, check_shapes
from harness.corpus.tokenizers import check_directory
from harness.evidence.provenance import NO_CHIP, chip_of
from harness.runners.profile import profile_variables
from harness.runners.registry import check_mindformers, check_policy, find_runner, needs_of
from harness.runs.trace import Side
from qwen3_model.configuration_qwen3 import parameter_shapes
from qwen3_model.weights import WeightsError, check_safetensors

GIB = 2**30
UNKNOWN = "of unknown version"
DRIVER_NOT_STATED = "version.info and npu-smi state none. Is the Ascend HDK installed: driver, then firmware?"
CANN_NOT_STATED = "It has no version.info and no ascend_toolkit_install.info, so nothing checks that it fits"
DEVICES = ("CPU", "Ascend")
# What a run needs besides its framework, in an interpreter that is not this one.
OF_A_WORKER = ("numpy", "safetensors", "pydantic")
# A test runner such as tox sets it at random. It decides nothing on a device.
OF_ANY_VALUE = ("PYTHONHASHSEED",)
# Which CANN each MindSpore takes. Source: run_check/_check_version.py of mindspore 2.8.0, 2.9.0 and 2.10.0; MindSpore
# Transformers r1.8.0, installation guide, for the others.
CANN_OF: Mapping[str, tuple[str, ...]] = {
    "2.10": ("8.2", "8.3", "8.5", "9.0", "9.1"),
    "2.9": ("8.2", "8.3", "8.5", "9.0"),
    "2.8": ("8.2", "8.3", "8.5"),
    "2.7.2": ("8.5",),
    "2.7.1": ("8.3",),
    "2.7.0": ("8.2",),
    "2.6": ("8.1",),
}
# The oldest driver for a CANN. Source: MindSpore Transformers r1.8.0, installation guide.
DRIVER_OF: Mapping[str, tuple[int, int]] = {"8.1": (25, 0), "8.2": (25, 2), "8.3": (25, 3), "8.5": (25, 5)}


@dataclass(frozen=True, kw_only=True)
class Prerequisite:
    """One thing that was checked. `remedy` states what to do where it is not met, and is empty where it is. `warning`
    states what is not known of one that is met."""

    name: str
    met: bool
    found: str
    remedy: str = ""
    warning: str | None = dataclasses.field(default=None, metadata=LATER)

    def __str__(self) -> str:
        return f"{self.name}: {self.found}" + "".join(f". {one}" for one in (self.remedy, self.warning) if one)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What runs need of a machine.

    `packages` maps each package to the command that installs it; `gpus`: on how many PyTorch computes; `ranks` share
    the devices of this machine; `memory` (of one run) and `disk` are in GiB, for the largest case, `case`, and its
    files in `directory`; `nearest` are the options that cut it to what this machine can hold, and `sketched` the GiB of
    disk that it needs if it leaves sketches. `pythons` are the interpreters of the packages that are needed in another
    one than this; such a package is named with it.
    """

    device: str
    directory: Path
    case: str
    packages: Mapping[str, str]
    gpus: int
    ranks: int
    memory: float
    disk: float
    nearest: str | None = None
    sketched: float | None = None
    pythons: Mapping[str, Path] = dataclasses.field(default_factory=dict)


def needs(case: Case, options: Options, sides: Sequence[Side]) -> Needs:
    """What the runs of these sides of a case need here."""
    packages, pythons = _packages_and_pythons(case, options, sides)
    nodes = options.nodes.count if options.nodes else 1
    there = environment.machine()["memory_gib"]
    devices = {options.device_of(side) for side in sides}
    ranks = case.parallel.world_size // nodes
    # A device holds what it trains. Then the weights are only drawn, gathered and digested in this machine's memory.
    memory = memory_of_a_run(case) if "CPU" in devices else memory_of_the_host(case, ranks)
    return Needs(
        device=options.device if "subject" in sides else "CPU",
        gpus=options.reference_processes if "CUDA" in devices else 0,
        directory=options.out,
        case=case.name,
        packages=packages,
        pythons=pythons,
        ranks=ranks,
        memory=memory,
        nearest=nearest(case, there) if there and memory > there else None,
        disk=disk_of_a_case(case),
        sketched=_disk_of_sketches(case),
    )


def _disk_of_sketches(case: Case) -> float | None:
    """The GiB of disk of a case that keeps tensors, if it left sketches of them; None if it does, or cannot."""
    if case.evidence == "sketches" or case.trains_weights:
        return None
    return disk_of_a_case(case.with_changes(evidence="sketches"))


def _packages_and_pythons(
    case: Case, options: Options, sides: Sequence[Side]
) -> tuple[dict[str, str], dict[str, Path]]:
    """Each package that the runners need, with the command that installs it; and which interpreter has to have it."""
    packages, pythons = dict[str, str](), dict[str, Path]()
    for side in reversed(sides):
        runner, python = getattr(options, side), options.python_of(side)
        if python is None:
            for package, extra in needs_of(case, runner).items():
                packages[package] = f"pip install '.[{extra}]' (the runner {runner!r} needs it)"
            continue
        for package in (*OF_A_WORKER, *needs_of(case, runner)):
            name = f"{package} in {python}"
            named = package.replace("_", "-")
            packages[name] = f"{python} -m pip install {named} (the runner {runner!r} needs it)"
            pythons[name] = python.absolute()
    return packages, pythons


def together(every: Sequence[Needs]) -> Needs:
    """What runs need that are made one after the other on one device, and stay in one directory."""
    most = max(every, key=lambda one: one.memory)
    return Needs(
        device=most.device,
        directory=most.directory,
        case=most.case,
        packages=dict(ChainMap(*(dict(one.packages) for one in every))),
        pythons=dict(ChainMap(*(dict(one.pythons) for one in every))),
        gpus=max(one.gpus for one in every),
        ranks=max(one.ranks for one in every),
        memory=most.memory,
        nearest=most.nearest,
        disk=sum(one.disk for one in every),
        sketched=max(every, key=lambda one: one.disk).sketched,
    )


def check(case: Case, options: Options, sides: Sequence[Side]) -> list[str]:
    """Refuses runs that cannot be made here; their corpus is read later. Of a checkpoint and a tokenizer the files are
    checked, not their content. What comes back are warnings: versions that were not tried, or pairs not known.

    Raises:
        InputError: the device or a runner is not known, or cannot run the case; or files of a checkpoint or tokenizer
            are damaged.
        MissingPrerequisite: with everything that is missing.
    """
    if options.device not in DEVICES:
        raise InputError(f"There is no device {options.device!r} for a subject: choose {' or '.join(DEVICES)}.")
    for side in sides:
        find_runner(getattr(options, side), case.task)
    if options.reference == "torch":
        check_policy(case)
    if options.subject == "mindformers":
        check_mindformers(case, options.device)
    if "reference" in sides:
        check_processes(case, options)
    _check_files(case)
    found = prerequisites(needs(case, options, sides))
    missing = [one for one in found if not one.met]
    if missing:
        raise MissingPrerequisite("\n".join([f"{case.name} cannot run here:", *(f"  {one}" for one in missing)]))
    return [str(one) for one in found if one.warning]


def check_processes(case: Case, options: Options) -> None:
    """Refuses a reference over several processes that cannot be one.

    Raises:
        InputError: the case is of inference, or the runner is not the shipped one, which alone can share its work.
    """
    if options.reference_processes == 1:
        return
    asked = f"--reference-processes {options.reference_processes}"
    if not case.task.judges_steps:
        raise InputError(f"{asked}: the reference of inference runs in one process; omit it for {case.name}.")
    if find_runner(options.reference, case.task) != case.task.reference:
        raise InputError(f"{asked}: only the runner 'torch' works over several processes, not {options.reference!r}.")


def _check_files(case: Case) -> None:
    tokenizer, checkpoint = case.data.tokenizer, case.checkpoint
    if tokenizer.kind == "huggingface" and tokenizer.path is not None:
        chat = not case.task.judges_steps or case.data.corpus.of_conversations
        check_directory(Path(tokenizer.path), chat=chat)
    if checkpoint is not None and checkpoint.path is not None and Path(checkpoint.path).exists():
        try:
            found = check_safetensors(checkpoint.path)
        except WeightsError as error:
            raise InputError(str(error)) from None
        if not checkpoint.cut:
            shapes = dict(parameter_shapes(case.model))
            if case.model.tie_word_embeddings:
                found.pop(HEAD, None)  # some files store the embedding twice
            check_shapes(Path(checkpoint.path), shapes, found)


def prerequisites(needed: Needs) -> tuple[Prerequisite, ...]:
    """Everything that is needed here, met or not."""
    found = [*_packages(needed), _memory(needed), _disk(needed), *_variables(needed.device)]
    if needed.device == "Ascend":
        found += of_ascend(needed.ranks, _version_of("mindspore", needed))
    if needed.gpus:
        torch = next((python for name, python in needed.pythons.items() if name.startswith("torch in ")), None)
        found.append(_gpu(needed.gpus, str(torch or sys.executable)))
    return tuple(found)


def _packages(needed: Needs) -> Iterator[Prerequisite]:
    """One that is known not to work is as good as missing; one that was not tried is not."""
    for name, command in sorted(needed.packages.items()):
        package = name.partition(" in ")[0]
        version = environment.packages_of(needed.pythons.get(name))[package]
        of_it = known(package, version) if version else None
        remedy = "" if version else f"Install it: {command}"
        if of_it and of_it.state is VersionState.NOT_WORKING:
            remedy = f"It does not work: {of_it.note}"
        yield Prerequisite(
            name=f"package {name}",
            met=not remedy,
            found=version or "not installed",
            remedy=remedy,
            warning=f"It was not tried; {of_it.note}" if of_it and of_it.state is VersionState.NOT_TRIED else None,
        )


def _version_of(package: str, needed: Needs) -> str | None:
    """The version of a package where it is needed."""
    others = (python for name, python in needed.pythons.items() if name.startswith(f"{package} in "))
    return environment.packages_of(next(others, None))[package]


def _memory(needed: Needs) -> Prerequisite:
    """A machine that does not hold a run would swap, and so hang, before it fails."""
    there = environment.machine()["memory_gib"]
    met = not there or needed.memory <= there
    return Prerequisite(
        name="memory",
        met=met,
        found=f"{there} GiB",
        remedy=""
        if met
        else f"{needed.case} needs about {needed.memory:.0f} GiB of memory for one run. {_smaller(needed)}, or see "
        f"what each device would need: certify plan {as_argument(needed.case)}",
    )


def _smaller(needed: Needs) -> str:
    if needed.nearest is None:
        return "Choose a smaller case"
    return f"Cut it: certify run {as_argument(needed.case)} {needed.nearest}"


def _disk(needed: Needs) -> Prerequisite:
    there = needed.directory.absolute()
    while not os.path.exists(there):  # where Path.exists raises an error for a name that is too long
        there = there.parent
    usage = shutil.disk_usage(there)
    if not usage.total or not os.access(there, os.W_OK):  # a virtual file system such as /proc has no blocks
        return Prerequisite(
            name="disk", met=False, found=f"{there} cannot be written", remedy="Use another directory for the results"
        )
    free = usage.free / GIB
    met = free >= needed.disk
    less = needed.sketched if needed.sketched is not None and needed.sketched <= free else None
    sketched = f"; with 'evidence: sketches', {needed.case} needs {math.ceil(less)} GiB" if less is not None else ""
    return Prerequisite(
        name="disk",
        met=met,
        found=f"{free:.0f} GiB free at {there}" if met else f"{free:.1f} GiB free at {there}",
        remedy=""
        if met
        else f"The runs need {needed.disk:.0f} GiB: delete old ones, or use another directory{sketched}",
    )


def _variables(device: str) -> Iterator[Prerequisite]:
    """Every run is started with its own values; another value here would mislead who reads the log."""
    pinned = profile_variables(device)
    here = {name: os.environ.get(name, value) for name, value in pinned.items() if name not in OF_ANY_VALUE}
    others = {name: value for name, value in here.items() if value != pinned[name]}
    yield Prerequisite(
        name="variables of determinism",
        met=not others,
        found=", ".join(f"{name}={value}" for name, value in others.items())
        or "set for every run before its framework is imported",
        remedy=f"Every run sets its own: unset {' '.join(others)}" if others else "",
    )


def _gpu(needed: int, python: str) -> Prerequisite:
    """Found as a run finds it, in a process of its own: nothing here imports a framework."""
    look = "import torch as t; t.cuda.init(); print(t.cuda.device_count(), t.cuda.get_device_name())"
    done = subprocess.run([python, "-c", look], capture_output=True, text=True, check=False)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["nothing was said"]
    there = int(said[-1].split()[0]) if done.returncode == 0 else 0
    remedy = "Check nvidia-smi, or let the reference compute on the CPU: --reference-device cpu"
    if there:
        remedy = f"{needed} processes need as many GPUs: give a smaller --reference-processes"
    return Prerequisite(name="GPU", met=there >= needed, found=said[-1], remedy="" if there >= needed else remedy)


def of_ascend(ranks: int, mindspore: str | None) -> Iterator[Prerequisite]:
    """What so many ranks on NPUs of this machine need."""
    yield (there := _devices(ranks))
    found = ascend.versions()
    driver, cann = found["driver"], found["cann"]
    chip = chip_of({"ascend": found})
    if chip is None and there.met:
        yield Prerequisite(name="chip", met=False, found=found["soc"] or "npu-smi info names none", remedy=NO_CHIP)
    yield Prerequisite(name="driver", met=True, found=driver or UNKNOWN, warning="" if driver else DRIVER_NOT_STATED)
    home = ascend.cann_home()
    if home is None:
        remedy = f"Install CANN, and set it up before this command: {ascend.set_up_cann()}"
        yield Prerequisite(name="CANN", met=False, found=f"{ascend.CANN_HOMES[0]} is not set", remedy=remedy)
        return
    # MindSpore itself only warns of a version that it cannot read.
    yield Prerequisite(
        name="CANN", met=True, found=cann or f"{UNKNOWN} in {home}", warning="" if cann else CANN_NOT_STATED
    )
    if cann:
        yield _fits_mindspore(cann, mindspore)
        yield _fits_driver(cann, driver)


def _devices(ranks: int) -> Prerequisite:
    there = ascend.devices()
    if there.hangs:
        remedy = "A device may hang: npu-smi info, dmesg"
    elif not there.usable:
        remedy = "Is this the right host? In a container, mount devices, driver and npu-smi"
    elif len(there.usable) < ranks:
        remedy = f"{ranks} ranks need as many devices: choose another case, or more machines"
    elif len(there.idle) < ranks:
        used = [f"{one.number} by {', '.join(one.users)}" for one in there.usable if one.users]
        found = f"{there.found}; {len(there.idle)} idle, device {'; '.join(used)}"
        remedy = f"{ranks} of them must be idle: end those processes, or wait"
        return Prerequisite(name="devices", met=False, found=found, remedy=remedy)
    else:
        return Prerequisite(name="devices", met=True, found=there.found)
    return Prerequisite(name="devices", met=False, found=there.found, remedy=remedy)


def _fits_mindspore(cann: str, mindspore: str | None) -> Prerequisite:
    taken = next((takes for version, takes in CANN_OF.items() if _begins(mindspore or "", version)), None)
    if taken is None:
        return Prerequisite(
            name="CANN fits MindSpore",
            met=True,
            found=f"CANN {cann}, MindSpore {mindspore}",
            warning="Which CANN this MindSpore takes is not known here: see the installation guide of MindSpore",
        )
    met = any(_begins(cann, one) for one in taken)
    return Prerequisite(
        name="CANN fits MindSpore",
        met=met,
        found=f"CANN {cann}, MindSpore {mindspore}",
        remedy="" if met else f"MindSpore {mindspore} takes CANN {', '.join(taken)}",
    )


def _fits_driver(cann: str, driver: str | None) -> Prerequisite:
    least = next((needed for version, needed in DRIVER_OF.items() if _begins(cann, version)), None)
    numbers = tuple(map(int, re.findall(r"\d+", driver or "")[:2]))
    met = least is None or len(numbers) < 2 or numbers >= least
    remedy = "" if met or least is None else f"CANN {cann} needs a driver of {least[0]}.{least[1]} or later"
    found = f"driver {driver}, CANN {cann}" + (": the driver that it needs is not known here" if least is None else "")
    return Prerequisite(name="driver fits CANN", met=met, found=found, remedy=remedy)


def _begins(version: str, with_: str) -> bool:
    """Whether a version is of a series: 8.5.0 of 8.5, and 8.50 not."""
    return re.match(rf"{re.escape(with_)}(?!\d)", version) is not None
