"""The Ascend side of a machine, read from what Huawei's packages leave, in the forms of several releases."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.base import ascend
from harness.runners import devices
from tests.support.ascend_machines import (
    INFERENCE_A2,
    SUPERPOD_A3,
    TRAINING_A2,
    Machine,
    program,
    script,
    set_up,
)

TREES = {"800T A2": TRAINING_A2, "800I A2": INFERENCE_A2, "900 A3": SUPERPOD_A3}


@pytest.mark.parametrize("name", TREES)
def test_a_machine_states_chip_board_product_and_versions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = TREES[name]
    set_up(machine, tmp_path, monkeypatch)
    assert ascend.versions() == {
        "cann": "8.5.0",
        "driver": "25.5.0",
        "firmware": "7.8.0.5.216",
        "soc": machine.chip,
        "board": machine.board,
        "product": machine.product,
    }
    # of a chip with two dies each is a device
    assert len(ascend.devices().usable) == {"800T A2": 8, "800I A2": 8, "900 A3": 16}[name]


@pytest.mark.parametrize("version", ["8.0.0", "8.0.RC3", "8.3.RC1", "8.5.0", "9.0.0"])
def test_the_version_of_cann_is_that_of_its_package_before_and_after_its_move(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(dataclasses.replace(TRAINING_A2, cann=version), tmp_path, monkeypatch)
    assert ascend.cann_version() == version
    home = ascend.cann_home()
    assert home is not None and (home.name == "cann") == (version >= "8.5")
    (home / "aarch64-linux" / "ascend_toolkit_install.info").unlink()
    assert ascend.cann_version() == version, "of a part of it"
    assert ascend.set_up_cann().startswith(f"source {tmp_path}/Ascend/") and ascend.set_up_cann().endswith("set_env.sh")


def test_driver_and_firmware_are_found_where_they_were_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(dataclasses.replace(TRAINING_A2, versions_stated=False), tmp_path, monkeypatch)
    assert ascend.versions()["driver"] is None
    for name in ("driver", "firmware"):
        (tmp_path / "opt" / name).mkdir(parents=True)
        (tmp_path / "opt" / name / "version.info").write_text("Version = [25.3.RC1]\n")
    (tmp_path / "etc").mkdir()
    params = f"Driver_Install_Path_Param={tmp_path}/opt\nFirmware_Install_Path_Param={tmp_path}/opt\n"
    (tmp_path / "etc" / "ascend_install.info").write_text(f"UserName=HwHiAiUser\n{params}")
    assert (ascend.versions()["driver"], ascend.versions()["firmware"]) == ("25.3.RC1", "25.3.RC1")


def test_where_files_state_no_version_npu_smi_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(TRAINING_A2, tmp_path, monkeypatch)
    for name in ("driver", "firmware"):
        (tmp_path / "Ascend" / name / "version.info").unlink()
    assert (ascend.versions()["driver"], ascend.versions()["firmware"]) == ("25.5.0", "7.8.0.5.216")


def test_device_files_and_the_variable_only_narrow_what_the_driver_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(dataclasses.replace(TRAINING_A2, files=6), tmp_path, monkeypatch)
    (tmp_path / "dev" / "davinci12").touch()  # the driver knows of none
    monkeypatch.setenv(ascend.VISIBLE, "1,5,7")
    there = ascend.devices()
    assert [one.number for one in there.usable] == [1, 5]
    wanted = f"8 by npu-smi, 6 with a file {tmp_path}/dev/davinciN, 2 by {ascend.VISIBLE}=1,5,7"
    assert there.found == wanted


@pytest.mark.parametrize(
    ("listed", "count"),
    [
        ("\tTotal Count                    : 4\n\n\tNPU ID                         : 0\n\tChip Count  : 1\n", 1),
        ("\tTotal Count : 2\n\tNPU ID : 3\n\tChip Count : 2\n\tNPU ID : 5\n\tChip Count : 2\n", 4),
        ("\tTotal Count                    : 3\n", 3),
    ],
)
def test_an_older_driver_lists_its_devices_without_a_map(
    listed: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(TRAINING_A2, tmp_path, monkeypatch)
    program(tmp_path, {"info -l": listed})
    assert [one.number for one in ascend.devices().usable] == list(range(count))


def test_a_process_on_a_device_is_named_with_its_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(dataclasses.replace(SUPERPOD_A3, users=((1, 1, 4711), (1, 1, 4712))), tmp_path, monkeypatch)
    there = ascend.devices()
    assert {one.number: one.users for one in there.usable if one.users} == {3: ("python3.11 4711", "python3.11 4712")}
    assert len(there.idle) == 15


def test_an_npu_smi_that_fails_in_any_way_is_no_device_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(TRAINING_A2, tmp_path, monkeypatch)
    script(tmp_path, "#!/no/such/interpreter")
    assert ascend.devices().usable == () and ascend.versions()["soc"] is None
    script(tmp_path, "#!/bin/sh\necho 'dcmi model initialized failed' >&2; exit 255")
    assert ascend.devices().found == "npu-smi info -l: dcmi model initialized failed"
    monkeypatch.setattr(ascend, "SMI_SECONDS", 0.2)
    script(tmp_path, "#!/bin/sh\nexec sleep 5")
    assert ascend.devices().hangs and "gave no answer within 0.2 s" in ascend.devices().found


@pytest.fixture
def reserving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with four devices, of which one is in use."""
    set_up(Machine(npus=4, users=((2, 0, 4711),)), tmp_path, monkeypatch)
    yield
    ascend.numbers.cache_clear()


@pytest.mark.usefixtures("reserving")
def test_each_run_sees_devices_that_no_other_has() -> None:
    first, second = devices.reserve(1), devices.reserve(2)
    try:
        assert (first, second) == ((0,), (1, 3))
        assert devices.visible(second) == {ascend.VISIBLE: "1,3"} and devices.visible(()) == {}
        assert not devices.free(1)
        assert devices.reserve(1) == ()
    finally:
        devices.release((*first, *second))
    assert devices.free(3) and not devices.free(4)
