"""What a machine lacks for a device is said in words that can be acted on."""

from pathlib import Path

import pytest

from harness.certify import environment
from harness.certify.prerequisites import Prerequisite, prerequisites

SMI = "#!/bin/sh\nprintf '\\tTotal Count                    : {count}\\n\\n\\tNPU ID                         : 0\\n'\n"


@pytest.fixture
def ascend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with four NPUs, driver 25.5.0, CANN 8.5.0 and MindSpore 2.9.0, as far as its files say."""
    programs, home = tmp_path / "bin", tmp_path / "cann"
    programs.mkdir()
    (home / "compiler").mkdir(parents=True)
    (tmp_path / "driver.info").write_text("Version=25.5.0\nascendhal_version=7.35.23\n")
    (home / "compiler" / "version.info").write_text("Version=8.5.0\nversion_dir=8.5.0\n")
    smi(tmp_path, SMI.format(count=4))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv(environment.CANN_HOME, str(home))
    monkeypatch.setattr(environment, "DRIVER_INFO", tmp_path / "driver.info")
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0", "torch": None})
    return tmp_path


def smi(machine: Path, script: str) -> None:
    path = machine / "bin" / "npu-smi"
    path.write_text(script)
    path.chmod(0o755)


def unmet(directory: Path, ranks: int = 4, needed: tuple[str, ...] = ("mindspore",)) -> dict[str, Prerequisite]:
    return {one.name: one for one in prerequisites("Ascend", directory, ranks, needed) if not one.met}


def test_a_machine_that_has_all_is_ready(ascend: Path) -> None:
    assert unmet(ascend) == {}
    assert environment.machine()["ascend"] == {"cann": "8.5.0", "driver": "25.5.0"}


def test_a_machine_without_any_of_it_is_told_each_thing_and_what_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(environment.CANN_HOME, raising=False)
    monkeypatch.setattr(environment, "DRIVER_INFO", Path("/nowhere/version.info"))
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": None})
    found = unmet(tmp_path)
    assert [(name, one.found) for name, one in found.items()] == [
        ("package mindspore", "not installed"),
        ("devices", "npu-smi is not installed"),
        ("driver", "no version in /nowhere/version.info"),
        ("CANN", "ASCEND_HOME_PATH is not set"),
    ]
    assert found["CANN"].mend.startswith("install CANN and 'source /usr/local/Ascend/ascend-toolkit/set_env.sh'")
    assert found["devices"].mend.startswith("is this machine meant?")
    assert all(one.mend for one in found.values())
    assert "ascend" not in environment.machine()


def test_fewer_devices_than_ranks_are_refused(ascend: Path) -> None:
    assert unmet(ascend, ranks=8)["devices"].mend.startswith("8 ranks need as many devices")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'dcmi model initialized failed, because the device is used' >&2\nexit 255\n", "is used"),
        ("#!/bin/sh\n", "it said nothing"),
    ],
)
def test_what_npu_smi_says_is_passed_on(ascend: Path, script: str, said: str) -> None:
    smi(ascend, script)
    assert said in unmet(ascend)["devices"].found


@pytest.mark.parametrize(
    ("cann", "mindspore", "driver", "name", "mend"),
    [
        ("8.1.RC1", "2.9.0", "25.5.0", "CANN fits MindSpore", "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"),
        ("8.50.0", "2.9.0", "25.5.0", "CANN fits MindSpore", "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"),
        ("8.5.0", "3.0.0", "25.5.0", "CANN fits MindSpore", "which CANN this MindSpore takes is not known here"),
        ("8.5.0", "2.9.0", "25.3.RC1", "driver fits CANN", "CANN 8.5.0 needs a driver of 25.5 or later"),
    ],
)
def test_versions_that_do_not_fit_each_other_are_named(
    ascend: Path, monkeypatch: pytest.MonkeyPatch, cann: str, mindspore: str, driver: str, name: str, mend: str
) -> None:
    (ascend / "cann" / "compiler" / "version.info").write_text(f"Version={cann}\n")
    (ascend / "driver.info").write_text(f"Version={driver}\n")
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": mindspore})
    found = unmet(ascend)
    assert list(found) == [name] and found[name].mend.startswith(mend)


def test_a_variable_that_says_otherwise_is_named(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCL_DETERMINISTIC", "false")
    found = unmet(ascend)["variables of determinism"]
    assert found.found == "HCCL_DETERMINISTIC=false" and found.mend.startswith("unset HCCL_DETERMINISTIC")


def test_a_full_disk_is_seen_where_the_files_would_go(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.certify.prerequisites.LEAST_DISK_GIB", 10**9)
    found = unmet(ascend / "not" / "there" / "yet")["disk"]
    assert f"GiB free at {ascend}" in found.found and "delete old nights" in found.mend
