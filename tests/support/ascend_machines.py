"""Machines with NPUs as far as their files and `npu-smi` show them: directories that a test makes.

The outputs are written after Huawei's command references, with invented numbers.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.base import ascend

CARD = """\
| {npu}     {name:<20}| OK            | 93.2        39                0    / 0             |
| {chip}     {phy:<20}| 0000:C1:00.0  | 0           0    / 0          3329 / 65536         |
"""
TABLE = """\
+------------------------------------------------------------------------------------------------+
| npu-smi {driver}                   Version: {driver}                                            |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
{cards}+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
{processes}"""
BOARD = """\
	NPU ID                         : 0
	Product Name                   : {product}
	Software Version               : {driver}
	Firmware Version               : {firmware}
	Board ID                       : {board}
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of server, with the versions on it. `cann` None: it is not set up; `driver` None: there is no driver."""

    product: str = "Atlas 800T A2"
    chip: str = "910B2"
    board: str = "0x64"
    npus: int = 8
    dies: int = 1
    driver: str | None = "25.5.0"
    firmware: str = "7.8.0.5.216"
    cann: str | None = "8.5.0"
    files: int | None = None  # in /dev; None: one for each device
    users: tuple[tuple[int, int, int], ...] = ()  # NPU, chip, process
    versions_stated: bool = True

    @property
    def devices(self) -> int:
        return self.npus * self.dies


TRAINING_A2 = Machine()
INFERENCE_A2 = Machine(product="Atlas 800I A2", chip="910B4", board="0x32")
SUPERPOD_A3 = Machine(product="Atlas 900 A3 SuperPoD", chip="Ascend910", board="0xb1", dies=2)


def set_up(machine: Machine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a machine under a directory, and this process see it."""
    installed, device_files, programs = root / "Ascend", root / "dev", root / "bin"
    for directory in (installed, device_files, programs):
        directory.mkdir()
    count = machine.devices if machine.files is None else machine.files
    for number in range(count if machine.driver else 0):
        (device_files / f"davinci{number}").touch()
    (device_files / "davinci_manager").touch()
    (root / "product_name").write_text(f"{machine.product}\n")
    if machine.driver:
        smi(root, machine)
        if machine.versions_stated:
            _write(installed / "driver" / "version.info", f"Version={machine.driver}\nascendhal_version=7.35.23\n")
            _write(installed / "firmware" / "version.info", f"Version={machine.firmware}\nfirmware_version=1.0\n")
    monkeypatch.setattr(ascend, "INSTALLED", installed)
    monkeypatch.setattr(ascend, "INSTALL_INFO", root / "etc" / "ascend_install.info")
    monkeypatch.setattr(ascend, "FILES_OF_DEVICES", device_files)
    monkeypatch.setattr(ascend, "PRODUCT", root / "product_name")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.delenv(ascend.VISIBLE, raising=False)
    for name in ascend.CANN_HOMES:
        monkeypatch.delenv(name, raising=False)
    if machine.cann:
        monkeypatch.setenv("ASCEND_HOME_PATH", str(cann(machine, installed)))
    ascend.numbers.cache_clear()


def cann(machine: Machine, installed: Path) -> Path:
    """The directory of a CANN as its release writes it: from 8.5 on in `cann`, before in `ascend-toolkit/latest`."""
    version = str(machine.cann)
    new = tuple(map(int, version.split(".")[:2])) >= (8, 5)
    home = installed / ("cann" if new else "ascend-toolkit/latest")
    _write(installed / ("cann" if new else "ascend-toolkit") / "set_env.sh", "export ASCEND_HOME_PATH=...\n")
    if machine.versions_stated:
        info = f"package_name=Ascend-cann-toolkit\nversion={version}\ninnerversion=V100R001C20\narch=aarch64\n"
        _write(home / "aarch64-linux" / "ascend_toolkit_install.info", info)
        of_compiler = version if new else "7.6.0.1.220"
        _write(home / "compiler" / "version.info", f"Version={of_compiler}\nversion_dir={version}\n")
    return home


def smi(root: Path, machine: Machine) -> None:
    """An `npu-smi` that prints what that of a machine prints."""
    places = [(npu, chip) for npu in range(machine.npus) for chip in range(machine.dies)]
    phy = {place: str(number) if machine.dies > 1 else "" for number, place in enumerate(places)}
    cards = "".join(CARD.format(npu=npu, chip=chip, name=machine.chip, phy=phy[npu, chip]) for npu, chip in places)
    used = "".join(f"| {npu}       {chip}                 | {pid}          | python3.11               | 3378 |\n"
                   for npu, chip, pid in machine.users)  # fmt: skip
    mapped = ["\tNPU ID    Chip ID    Chip Logic ID    Chip Name"]
    for number, (npu, chip) in enumerate(places):
        mapped.append(f"\t{npu}         {chip}          {number}                Ascend {machine.chip}")
    mapped += [f"\t{npu}         {machine.dies}          -                Mcu" for npu in range(machine.npus)]
    stated = {name: str(getattr(machine, name)) for name in ("product", "driver", "firmware", "board")}
    if not machine.versions_stated:
        stated |= {"driver": "", "firmware": ""}
    outputs = {
        "info": TABLE.format(driver=stated["driver"], cards=cards, processes=used),
        "info -m": "\n".join(mapped),
        "info -t board -i 0": BOARD.format(**stated),
    }
    program(root, outputs)


def program(root: Path, outputs: dict[str, str]) -> None:
    """An `npu-smi` with an output for each line of arguments; any other ends with an error."""
    lines = ["#!/bin/sh", 'case "$*" in']
    for number, (arguments, text) in enumerate(outputs.items()):
        (root / f"output-{number}").write_text(text)
        lines.append(f'"{arguments}") cat "{root}/output-{number}";;')
    script(root, "\n".join([*lines, "*) echo 'unknown option' >&2; exit 1;;", "esac"]))


def script(root: Path, text: str) -> None:
    """Any `npu-smi`."""
    path = root / "bin" / "npu-smi"
    path.write_text(text + "\n")
    path.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
