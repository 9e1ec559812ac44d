"""The Ascend side of this machine: devices, chip, board, and the versions of driver, firmware and CANN.

Everything is read from what Huawei's packages leave: the output of `npu-smi`, and files that state a version. Each is
read in the forms that different releases write. What is not found is None, and never guessed.

Sources: npu-smi, command reference of Atlas A2 and A3; CANN 8.0 and 8.5, installation guide, "File Paths".
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

INSTALLED = Path("/usr/local/Ascend")
INSTALL_INFO = Path("/etc/ascend_install.info")  # where driver and firmware are, if not there
FILES_OF_DEVICES = Path("/dev")
PRODUCT = Path("/sys/class/dmi/id/product_name")
CANN_HOMES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
# From 8.5 on CANN is in `cann`, before in `ascend-toolkit` or, without compilers, in `nnae`.
SET_UP = ("cann/set_env.sh", "ascend-toolkit/set_env.sh", "nnae/set_env.sh")
CANN_FILES = ("*-linux/ascend_*_install.info", "ascend_*_install.info", "*/version.info", "version.info")
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
SMI_SECONDS = 60
SMALL = r"[0-9]{1,4}"  # a number or a count of devices
ROW = rf"^\s*({SMALL})\s+({SMALL})\s+({SMALL})\s"
USER = rf"^\|\s*({SMALL})\s+({SMALL})\s*\|\s*(\d+)\s*\|\s*(\S*)\s*\|"
# where the driver's package puts npu-smi; another of that name may come first on the path
DRIVER_TOOLS = "/usr/local/sbin:/usr/local/bin:/usr/local/Ascend/driver/tools"


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device as processes count them: a chip, or of a chip with two dies one of them.

    `users` are the processes that hold its memory, as the driver lists them.
    """

    number: int
    npu: int
    chip: int
    users: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Devices:
    """The devices that a process of this shell can use, and in words how they were counted, or why there are none."""

    usable: tuple[Device, ...]
    found: str
    hangs: bool = False

    @property
    def idle(self) -> tuple[Device, ...]:
        """Those that no process uses."""
        return tuple(one for one in self.usable if not one.users)


def devices() -> Devices:
    """The devices that the driver counts, narrowed by the device files of this host or container and by the variable
    `ASCEND_RT_VISIBLE_DEVICES`."""
    try:
        every = _of_driver()
    except _NoAnswer as error:
        return Devices(usable=(), found=str(error), hangs=error.hangs)
    words = [f"{len(every)} by npu-smi"]
    files = {int(path.name[7:]) for path in FILES_OF_DEVICES.glob("davinci[0-9]*") if path.name[7:].isdigit()}
    usable = tuple(one for one in every if one.number in files)
    if len(usable) < len(every):
        words.append(f"{len(usable)} with a file {FILES_OF_DEVICES}/davinciN")
    if (visible := os.environ.get(VISIBLE)) is not None:
        usable = tuple(one for one in usable if str(one.number) in re.findall(r"\d+", visible))
        words.append(f"{len(usable)} by {VISIBLE}={visible}")
    return Devices(usable=usable, found=", ".join(words))


def versions() -> dict[str, str | None]:
    """Of CANN, driver and firmware, and what identifies the device: chip, board and product of the server."""
    board = _fields(_printed("info", "-t", "board", "-i", "0"))
    head = re.search(r"Version:\s*(\d\S*)", table := _printed("info"))
    return {
        "cann": cann_version(),
        "driver": _of_package("driver") or board.get("Software Version") or (head[1] if head else None),
        "firmware": _of_package("firmware") or board.get("Firmware Version"),
        "soc": _soc(table),
        "board": board.get("Board ID"),
        "product": _product() or board.get("Product Name"),
    }


def shown() -> str:
    """What `npu-smi info` prints, or why it prints nothing."""
    try:
        done = _run("info")
    except _NoAnswer as error:
        return f"{error}\n"
    return f"{done.stdout}{done.stderr}"


def cann_home() -> Path | None:
    """The directory of the CANN that is set up in this shell."""
    return next((Path(found) for name in CANN_HOMES if (found := os.environ.get(name))), None)


def cann_version() -> str | None:
    """Of the CANN that is set up in this shell: as its package states it, or a part of it."""
    home = cann_home()
    if home is None:
        return None
    stated = (_stated_version(path) for pattern in CANN_FILES for path in sorted(home.glob(pattern)))
    return next(filter(None, stated), None)


def set_up_cann() -> str:
    """The command that sets CANN up in a shell: with a script that is here, or that of the newest releases."""
    roots = (INSTALLED, Path.home() / "Ascend")
    here = [root / script for root in roots for script in SET_UP if (root / script).is_file()]
    return f"source {here[0] if here else INSTALLED / SET_UP[0]}"


class _NoAnswer(Exception):
    """Why npu-smi lists no devices."""

    def __init__(self, why: str, hangs: bool = False) -> None:
        super().__init__(why)
        self.hangs = hangs


def _of_driver() -> tuple[Device, ...]:
    """The devices that the driver counts, in order; processes count them by their logic ID.

    Source: `npu-smi info -m` has a row `NPU ID, Chip ID, Chip Logic ID, [Chip Phy-ID,] Chip Name` for each; the row of
    a management processor has no logic ID. Older drivers have only `npu-smi info -l`.
    """
    mapped = _run("info", "-m")
    rows = (
        re.findall(rf"^\s*({SMALL})\s+({SMALL})\s+({SMALL})\s", mapped.stdout, re.M) if mapped.returncode == 0 else []
    )
    places = [(int(logic), int(npu), int(chip)) for npu, chip, logic in rows] or list(_listed())
    users = _users(_printed("info"))
    return tuple(
        Device(number=logic, npu=npu, chip=chip, users=users.get((npu, chip), ()))
        for logic, npu, chip in sorted(places)
    )


def _listed() -> Iterator[tuple[int, int, int]]:
    done = _run("info", "-l")
    if done.returncode or not re.search(r"Total Count\s*:\s*\d+", done.stdout):
        lines = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()
        raise _NoAnswer(f"npu-smi info -l: {lines[-1]}")
    listed = re.findall(rf"NPU ID\s*:\s*({SMALL})\b(.*?)(?=NPU ID|\Z)", done.stdout, re.S)
    if not listed:
        total = re.search(rf"Total Count\s*:\s*({SMALL})\b", done.stdout)
        listed = [(str(npu), "") for npu in range(int(total[1]) if total else 0)]
    number = 0
    for npu, rest in listed:
        chips = re.search(rf"Chip Count\s*:\s*({SMALL})\b", rest)
        for chip in range(int(chips[1]) if chips else 1):
            yield number, int(npu), chip
            number += 1


def _users(table: str) -> dict[tuple[int, int], tuple[str, ...]]:
    """The processes on each NPU and chip. Source: the last part of `npu-smi info`, rows `| NPU Chip | pid | name |`."""
    found: dict[tuple[int, int], tuple[str, ...]] = {}
    _, _, processes = table.partition("Process id")
    for npu, chip, pid, name in re.findall(USER, processes, re.M):
        place = (int(npu), int(chip))
        found[place] = (*found.get(place, ()), f"{name or 'process'} {pid}")
    return found


def _soc(table: str) -> str | None:
    """The chip, where all have one name. Source: `npu-smi info`, rows `| NPU Name | Health`."""
    found = {match[1] for match in re.finditer(r"^\|\s*\d+\s+([A-Za-z]*\d\w+)\s*\|\s*[A-Z]", table, re.M)}
    return found.pop() if len(found) == 1 else None


def _product() -> str | None:
    """The server as its firmware names it, if it is one of the Atlas series."""
    try:
        name = PRODUCT.read_text(errors="replace").strip()
    except OSError:
        return None
    return name if "atlas" in name.lower() else None


def _of_package(name: str) -> str | None:
    roots = [INSTALLED]
    if INSTALL_INFO.is_file():
        stated = re.search(rf"^{name}_Install_Path_Param=(\S+)", INSTALL_INFO.read_text(errors="replace"), re.M | re.I)
        roots = [Path(stated[1]), *roots] if stated else roots
    return next(filter(None, (_stated_version(root / name / "version.info") for root in roots)), None)


def _stated_version(path: Path) -> str | None:
    """The value of `version` in a file of an Ascend package; or of `version_dir`, where `version` is that of a part."""
    if not path.is_file():
        return None
    text = path.read_text(errors="replace")
    for name in ("version_dir", "version"):
        if found := re.search(rf"^\s*{name}\s*=\s*\[?\s*([^\s\]]+)", text, re.M | re.I):
            return found[1]
    return None


def _fields(text: str) -> Mapping[str, str]:
    """What `npu-smi` prints as `NAME : VALUE`, without what is empty."""
    pairs = (re.match(r"\s*([^:]+?)\s*:\s*(\S.*?)\s*$", line) for line in text.splitlines())
    return {match[1]: match[2] for match in pairs if match and match[2] not in ("NA", "-")}


def _printed(*arguments: str) -> str:
    """What npu-smi prints; nothing where it fails."""
    try:
        done = _run(*arguments)
    except _NoAnswer:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [shutil.which("npu-smi", path=DRIVER_TOOLS) or "npu-smi", *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SMI_SECONDS, check=False
        )
    except FileNotFoundError:
        raise _NoAnswer("npu-smi is not installed") from None
    except OSError as error:
        raise _NoAnswer(f"npu-smi cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise _NoAnswer(f"npu-smi gave no answer within {SMI_SECONDS} s", hangs=True) from None


@functools.cache
def numbers() -> tuple[int, ...]:
    """The numbers of the devices that are idle when this process first needs one."""
    return tuple(one.number for one in devices().idle)
