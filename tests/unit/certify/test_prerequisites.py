"""What a machine lacks for a device is reported in words that can be acted on."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base import machine
from harness.base.errors import InputError
from harness.certify import environment
from harness.certify.jobs import ALL_SIDES, RECORDED_SIDES
from harness.certify.prerequisites import OF_A_WORKER, Needs, Prerequisite, needs, prerequisites, together
from harness.runners.job import Nodes
from tests.support.examples import inference_case, options, small_case

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
    monkeypatch.setenv(machine.CANN_HOME, str(home))
    monkeypatch.setattr(machine, "DRIVER_INFO", tmp_path / "driver.info")
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0", "torch": None})
    return tmp_path


def smi(there: Path, script: str) -> None:
    path = there / "bin" / "npu-smi"
    path.write_text(script)
    path.chmod(0o755)


def unmet(directory: Path, **more: Any) -> dict[str, Prerequisite]:
    packages = {"mindspore": "pip install '.[mindspore]'"}
    needed = Needs(
        device="Ascend", directory=directory, case="c", packages=packages, gpus=0, ranks=4, memory=0.1, disk=0.1
    )
    return {one.name: one for one in prerequisites(dataclasses.replace(needed, **more)) if not one.met}


def warned(directory: Path) -> list[Prerequisite]:
    needed = Needs(
        device="Ascend",
        directory=directory,
        case="c",
        packages={"mindspore": ""},
        gpus=0,
        ranks=4,
        memory=0.1,
        disk=0.1,
    )
    return [one for one in prerequisites(needed) if one.warning]


def test_a_machine_that_has_all_is_ready(ascend: Path) -> None:
    assert unmet(ascend) == {}
    assert environment.machine()["ascend"] == {"cann": "8.5.0", "driver": "25.5.0", "soc": None}


@pytest.mark.parametrize(("chips", "soc"), [(("910B3", "910B3"), "910B3"), (("910B3", "910_9362"), None), ((), None)])
def test_the_chip_is_recorded_where_all_have_one_name(ascend: Path, chips: tuple[str, ...], soc: str | None) -> None:
    rows = [
        f"| {index}     {name}               | OK            | 93.2        39                0    / 0             |\\n"
        "| 0                         | 0000:C1:00.0  | 0           0    / 0          3329 / 65536         |\\n"
        for index, name in enumerate(chips)
    ]
    head = "| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|\\n"
    smi(ascend, f"#!/bin/sh\nprintf '%b' '{head}{''.join(rows)}'\n")
    assert environment.machine()["ascend"]["soc"] == soc


def test_of_a_machine_without_any_of_it_each_thing_is_named_and_how_to_fix_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(machine.CANN_HOME, raising=False)
    monkeypatch.setattr(machine, "DRIVER_INFO", Path("/nowhere/version.info"))
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": None})
    found = unmet(tmp_path)
    assert [(name, one.found) for name, one in found.items()] == [
        ("package mindspore", "not installed"),
        ("devices", "npu-smi is not installed"),
        ("driver", "no version in /nowhere/version.info"),
        ("CANN", "ASCEND_HOME_PATH is not set"),
    ]
    assert found["CANN"].remedy.startswith("Install CANN and 'source /usr/local/Ascend/ascend-toolkit/set_env.sh'")
    assert found["devices"].remedy.startswith("Is this the right host?")
    assert all(one.remedy for one in found.values())
    assert "ascend" not in environment.machine()


def test_fewer_devices_than_ranks_are_refused(ascend: Path) -> None:
    assert unmet(ascend, ranks=8)["devices"].remedy.startswith("8 ranks need as many devices")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'dcmi model initialized failed, because the device is used' >&2\nexit 255\n", "is used"),
        ("#!/bin/sh\n", "it printed nothing"),
    ],
)
def test_the_output_of_npu_smi_is_repeated(ascend: Path, script: str, said: str) -> None:
    smi(ascend, script)
    assert said in unmet(ascend)["devices"].found


@pytest.mark.parametrize(
    ("cann", "mindspore", "driver", "name", "remedy"),
    [
        ("8.1.RC1", "2.9.0", "25.5.0", "CANN fits MindSpore", "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"),
        ("8.50.0", "2.9.0", "25.5.0", "CANN fits MindSpore", "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"),
        ("8.5.0", "2.9.0", "25.3.RC1", "driver fits CANN", "CANN 8.5.0 needs a driver of 25.5 or later"),
    ],
)
def test_versions_that_do_not_fit_each_other_are_named(
    ascend: Path, monkeypatch: pytest.MonkeyPatch, cann: str, mindspore: str, driver: str, name: str, remedy: str
) -> None:
    (ascend / "cann" / "compiler" / "version.info").write_text(f"Version={cann}\n")
    (ascend / "driver.info").write_text(f"Version={driver}\n")
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": mindspore})
    found = unmet(ascend)
    assert list(found) == [name] and found[name].remedy.startswith(remedy)


def test_a_pair_of_cann_and_mindspore_that_is_not_known_is_a_warning(
    ascend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "3.0.0"})
    assert unmet(ascend) == {}
    found = {one.name: one.warning for one in warned(ascend)}
    assert found["CANN fits MindSpore"].startswith("Which CANN this MindSpore takes is not known here")
    assert found["package mindspore"].startswith("It was not tried; tried were 2.7.1")


@pytest.mark.parametrize("version", ["2.8.0", "2.10.0"])
def test_a_newer_mindspore_takes_the_same_cann(ascend: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": version})
    assert unmet(ascend) == {} and warned(ascend) == []


def test_a_version_that_does_not_work_is_refused_with_what_to_install(
    ascend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0", "transformers": "4.50.0"})
    found = unmet(ascend, packages={"transformers": "pip install '.[torch]'"})
    assert found["package transformers"].remedy == (
        "It does not work: it has no Qwen3: pip install 'transformers>=4.51.3,<6'"
    )


def test_the_packages_of_a_side_are_looked_up_in_its_interpreter(tmp_path: Path) -> None:
    chosen = dataclasses.replace(options(tmp_path / "out"), subject="mindspore", subject_python=Path(sys.executable))
    found = needs(small_case(), chosen, ("subject",))
    assert set(found.packages) == {f"{name} in {sys.executable}" for name in (*OF_A_WORKER, "mindspore")}
    missing = {one.name: one.remedy for one in prerequisites(found) if not one.met}
    assert missing == {
        f"package mindspore in {sys.executable}": (
            f"Install it: {sys.executable} -m pip install mindspore (the runner 'mindspore' needs it)"
        )
    }


def test_a_path_that_is_no_interpreter_is_named(tmp_path: Path) -> None:
    chosen = dataclasses.replace(options(tmp_path / "out"), subject_python=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere is no interpreter of Python"):
        prerequisites(needs(small_case(), chosen, ("subject",)))


def test_a_variable_with_another_value_is_named(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCL_DETERMINISTIC", "false")
    found = unmet(ascend)["variables of determinism"]
    assert found.found == "HCCL_DETERMINISTIC=false" and found.remedy.endswith("unset HCCL_DETERMINISTIC")


def test_a_full_disk_is_seen_where_the_files_would_go(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = unmet(ascend / "not" / "there" / "yet", disk=10**9)["disk"]
    assert f"GiB free at {ascend}" in found.found and "delete old ones" in found.remedy


def test_a_directory_that_cannot_be_written_is_named_as_such(ascend: Path) -> None:
    found = unmet(Path("/proc/results"))["disk"]
    assert found.found == "/proc cannot be written" and found.remedy.startswith("Use another directory")


def test_a_seed_that_a_test_runner_sets_is_no_obstacle(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "4711")
    assert unmet(ascend) == {}


def test_only_what_the_sides_that_run_here_need_is_needed(tmp_path: Path) -> None:
    asked = dataclasses.replace(
        options(tmp_path), device="Ascend", subject="mindspore", reference="torch", oracle="oracle"
    )
    every, recorded = (needs(small_case(), asked, sides) for sides in (ALL_SIDES, RECORDED_SIDES))
    assert (every.device, sorted(every.packages)) == ("Ascend", ["mindspore", "torch", "transformers"])
    assert (recorded.device, sorted(recorded.packages)) == ("CPU", ["torch", "transformers"])
    assert "lm_eval" in needs(inference_case(), asked, ("subject",)).packages


def test_a_node_needs_devices_for_its_own_ranks(tmp_path: Path) -> None:
    case = small_case().with_changes(parallel={"data_parallel": 2})
    alone, shared = (
        options(tmp_path),
        dataclasses.replace(options(tmp_path), nodes=Nodes(count=2, rank=0, master="127.0.0.1", port=8118)),
    )
    assert [needs(case, one, ("subject",)).ranks for one in (alone, shared)] == [2, 1]


def test_cells_of_a_night_need_the_memory_of_the_largest_and_the_disk_of_all(tmp_path: Path) -> None:
    small, large = (
        small_case(),
        small_case().with_changes(
            name="large", model={**small_case().model.to_hf(), "num_hidden_layers": 40}, parallel={"data_parallel": 2}
        ),
    )
    apart = [needs(case, options(tmp_path), ("subject",)) for case in (small, large, small)]
    both = together(apart)
    assert (both.case, both.ranks, both.memory) == ("large", 2, apart[1].memory)
    assert both.disk == sum(one.disk for one in apart)


def test_a_reference_on_a_gpu_needs_one_that_pytorch_finds(tmp_path: Path) -> None:
    found = unmet(tmp_path, device="CPU", packages={}, gpus=1)["GPU"]
    assert found.found and "--reference-device cpu" in found.remedy


@pytest.mark.parametrize(
    ("named", "reference", "oracle"), [("CPU", "CPU", "CPU"), ("CUDA", "CUDA", "CUDA"), ("Ascend", "Ascend", "CPU")]
)
def test_reference_and_oracle_compute_where_they_can_and_the_subject_on_its_own_device(
    tmp_path: Path, named: str, reference: str, oracle: str
) -> None:
    chosen = dataclasses.replace(options(tmp_path), reference_device=named, device="Ascend")
    assert [chosen.device_of(side) for side in ("reference", "oracle", "subject")] == [reference, oracle, "Ascend"]


@pytest.mark.parametrize(
    ("nodes", "visible", "there"),
    [
        (0, None, "4 by npu-smi"),
        (8, None, "4 by npu-smi"),
        (2, None, "2 by {dev}/davinci*"),
        (8, "0,1,2,3,4,5,6,7", "4 by npu-smi"),
        (8, "0,1,1", "2 by ASCEND_RT_VISIBLE_DEVICES"),
        (2, "5", "1 by ASCEND_RT_VISIBLE_DEVICES"),
        (8, "", "0 by ASCEND_RT_VISIBLE_DEVICES"),
    ],
)
def test_what_is_visible_can_only_be_less_than_the_driver_reports(
    ascend: Path, monkeypatch: pytest.MonkeyPatch, nodes: int, visible: str | None, there: str
) -> None:
    (ascend / "dev").mkdir()
    for name in ("davinci_manager", *(f"davinci{number}" for number in range(nodes))):
        (ascend / "dev" / name).touch()
    monkeypatch.setattr(machine, "DEVICE_NODES", ascend / "dev")
    monkeypatch.delenv(machine.VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(machine.VISIBLE, visible)
    missing = unmet(ascend, ranks=9)
    assert missing["devices"].found == there.format(dev=ascend / "dev")
