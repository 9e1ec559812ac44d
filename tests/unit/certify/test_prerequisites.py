"""What a machine lacks for a device is reported in words that can be acted on."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.ascend import set_up_cann
from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.certify import environment
from harness.certify.jobs import ALL_SIDES, RECORDED_SIDES
from harness.certify.prerequisites import OF_A_WORKER, Needs, Prerequisite, needs, prerequisites, together
from harness.runners.job import Nodes
from tests.support.ascend_machines import (
    CARD,
    INFERENCE_A2,
    SUPERPOD_A3,
    TABLE,
    TRAINING_A2,
    Machine,
    program,
    script,
    set_up,
)
from tests.support.examples import inference_case, options, small_case


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server of the Atlas 800T A2 kind with driver 25.5.0, CANN 8.5.0 and MindSpore 2.9.0, as far as files say."""
    set_up(TRAINING_A2, tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0", "torch": None})
    return tmp_path


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


def found(directory: Path) -> dict[str, Prerequisite]:
    """What is stated of a device, met or not."""
    needed = Needs(device="Ascend", directory=directory, case="c", packages={}, gpus=0, ranks=4, memory=0.1, disk=0.1)
    names = ("devices", "driver", "CANN", "CANN fits MindSpore", "driver fits CANN")
    return {one.name: one for one in prerequisites(needed) if one.name in names}


@pytest.mark.parametrize("chip", ["", "x86", "Unknown"])
def test_a_machine_whose_driver_names_no_chip_makes_no_evidence_of_an_npu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chip: str
) -> None:
    set_up(dataclasses.replace(TRAINING_A2, chip=chip), tmp_path, monkeypatch)
    assert "npu-smi info" in unmet(tmp_path)["chip"].remedy


@pytest.mark.usefixtures("machine")
def test_a_machine_that_has_all_is_ready(tmp_path: Path) -> None:
    assert unmet(tmp_path) == {}
    assert not any(one.warning for one in found(tmp_path).values())
    assert environment.machine()["ascend"]["product"] == "Atlas 800T A2"


STATED = {
    "800T A2": (TRAINING_A2, {"devices": "8 by npu-smi", "driver": "25.5.0", "CANN": "8.5.0"}),
    "800I A2": (INFERENCE_A2, {"devices": "8 by npu-smi", "driver": "25.5.0", "CANN": "8.5.0"}),
    "900 A3, two dies a chip": (SUPERPOD_A3, {"devices": "16 by npu-smi", "driver": "25.5.0", "CANN": "8.5.0"}),
    "CANN 8.3": (dataclasses.replace(TRAINING_A2, cann="8.3.RC1", driver="25.3.RC1"), {"CANN": "8.3.RC1"}),
}


@pytest.mark.parametrize("name", STATED)
def test_a_server_of_each_kind_is_ready_and_stated(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, stated = STATED[name]
    set_up(server, tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0"})
    assert unmet(tmp_path, packages={}) == {}
    assert {key: found(tmp_path)[key].found for key in stated} == stated


NOT_READY = {
    "CANN 8.0": (
        dataclasses.replace(TRAINING_A2, cann="8.0.0"),
        {"CANN fits MindSpore": "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"},
    ),
    "CANN not set up": (dataclasses.replace(TRAINING_A2, cann=None), {"CANN": "Install CANN, and set it up before"}),
    "no driver": (dataclasses.replace(TRAINING_A2, driver=None), {"devices": "Is this the right host?"}),
    "devices not mounted": (dataclasses.replace(TRAINING_A2, files=0), {"devices": "Is this the right host?"}),
    "two devices mounted": (dataclasses.replace(TRAINING_A2, files=2), {"devices": "4 ranks need as many devices"}),
    "busy": (
        dataclasses.replace(TRAINING_A2, users=tuple((npu, 0, 4000 + npu) for npu in range(6))),
        {"devices": "4 of them must be idle: end those processes, or wait"},
    ),
}


@pytest.mark.parametrize("name", NOT_READY)
def test_what_a_server_lacks_is_refused_with_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, remedies = NOT_READY[name]
    set_up(server, tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0"})
    lacking = unmet(tmp_path, packages={})
    assert list(lacking) == list(remedies)
    for one, remedy in remedies.items():
        assert lacking[one].remedy.startswith(remedy)
    if name == "busy":
        assert lacking["devices"].found.startswith("8 by npu-smi; 2 idle, device 0 by python3.11 4000; 1 by")


def test_versions_that_nothing_states_are_a_warning_as_in_mindspore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(dataclasses.replace(TRAINING_A2, versions_stated=False), tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0"})
    assert unmet(tmp_path, packages={}) == {}
    stated = found(tmp_path)
    assert stated["driver"].met and stated["driver"].warning.startswith("version.info and npu-smi state none")
    assert stated["CANN"].met and stated["CANN"].warning.startswith("It has no version.info")
    assert "CANN fits MindSpore" not in stated


@pytest.mark.parametrize(("chips", "soc"), [(("910B3", "910B3"), "910B3"), (("910B3", "910_9362"), None), ((), None)])
def test_the_chip_is_recorded_where_all_have_one_name(machine: Path, chips: tuple[str, ...], soc: str | None) -> None:
    cards = "".join(CARD.format(npu=npu, chip=0, name=name, phy="") for npu, name in enumerate(chips))
    program(machine, {"info": TABLE.format(driver="25.5.0", cards=cards, processes="")})
    assert environment.machine()["ascend"]["soc"] == soc


def test_of_a_machine_without_any_of_it_each_thing_is_named_and_how_to_fix_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(Machine(driver=None, cann=None, product="Standard PC"), tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": None})
    lacking = unmet(tmp_path)
    assert [(name, one.found) for name, one in lacking.items()] == [
        ("package mindspore", "not installed"),
        ("devices", "npu-smi is not installed"),
        ("CANN", "ASCEND_HOME_PATH is not set"),
    ]
    assert lacking["CANN"].remedy == f"Install CANN, and set it up before this command: {set_up_cann()}"
    assert lacking["devices"].remedy.startswith("Is this the right host?")
    assert "ascend" not in environment.machine()


def test_fewer_devices_than_ranks_are_refused(machine: Path) -> None:
    assert unmet(machine, ranks=9)["devices"].remedy.startswith("9 ranks need as many devices")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/sh\necho 'dcmi model initialized failed, because the device is used' >&2\nexit 255\n", "is used"),
        ("#!/bin/sh\n", "it printed nothing"),
    ],
)
def test_the_output_of_npu_smi_is_repeated(machine: Path, text: str, said: str) -> None:
    script(machine, text)
    assert said in unmet(machine)["devices"].found


@pytest.mark.parametrize(
    ("cann", "driver", "name", "remedy"),
    [
        ("8.1.RC1", "25.5.0", "CANN fits MindSpore", "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"),
        ("8.50.0", "25.5.0", "CANN fits MindSpore", "MindSpore 2.9.0 takes CANN 8.2, 8.3, 8.5, 9.0"),
        ("8.5.0", "25.3.RC1", "driver fits CANN", "CANN 8.5.0 needs a driver of 25.5 or later"),
    ],
)
def test_versions_that_do_not_fit_each_other_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cann: str, driver: str, name: str, remedy: str
) -> None:
    set_up(dataclasses.replace(TRAINING_A2, cann=cann, driver=driver), tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0"})
    lacking = unmet(tmp_path)
    assert list(lacking) == [name] and lacking[name].remedy.startswith(remedy)


def test_a_pair_of_cann_and_mindspore_that_is_not_known_is_a_warning(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "3.0.0"})
    assert unmet(machine) == {}
    found = {one.name: one.warning for one in warned(machine)}
    assert found["CANN fits MindSpore"].startswith("Which CANN this MindSpore takes is not known here")
    assert found["package mindspore"].startswith("It was not tried; tried were 2.7.1")


@pytest.mark.parametrize("version", ["2.8.0", "2.10.0"])
def test_a_newer_mindspore_takes_the_same_cann(machine: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": version})
    assert unmet(machine) == {} and warned(machine) == []


def test_a_version_that_does_not_work_is_refused_with_what_to_install(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0", "transformers": "4.50.0"})
    found = unmet(machine, packages={"transformers": "pip install '.[torch]'"})
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


def test_a_variable_with_another_value_is_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCL_DETERMINISTIC", "false")
    other = unmet(machine)["variables of determinism"]
    assert other.found == "HCCL_DETERMINISTIC=false" and other.remedy.endswith("unset HCCL_DETERMINISTIC")


def test_a_full_disk_is_seen_where_the_files_would_go(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = unmet(machine / "not" / "there" / "yet", disk=10**9)["disk"]
    assert f"GiB free at {machine}" in full.found and "delete old ones" in full.remedy
    assert "sketches" not in full.remedy
    full = unmet(machine, disk=10**9, sketched=0.2)["disk"]
    assert full.remedy.endswith("another directory; with 'evidence: sketches', c needs 1 GiB")


def test_a_case_that_keeps_tensors_could_leave_sketches(tmp_path: Path) -> None:
    kept, left = load_case("qwen3-tied-fp32"), load_case("qwen3-small-fp32")
    assert (found := needs(kept, options(tmp_path), ("subject",))).sketched is not None and found.sketched < found.disk
    assert needs(left, options(tmp_path), ("subject",)).sketched is None
    trained = load_case("qwen3-tiny-inference")  # its trained weights are evidence
    assert needs(trained, options(tmp_path), ("subject",)).sketched is None


def test_a_directory_that_cannot_be_written_is_named_as_such(machine: Path) -> None:
    full = unmet(Path("/proc/results"))["disk"]
    assert full.found == "/proc cannot be written" and full.remedy.startswith("Use another directory")


def test_a_seed_that_a_test_runner_sets_is_no_obstacle(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "4711")
    assert unmet(machine) == {}


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
    gpu = unmet(tmp_path, device="CPU", packages={}, gpus=1)["GPU"]
    assert gpu.found and "--reference-device cpu" in gpu.remedy


@pytest.mark.parametrize(
    ("named", "reference", "oracle"), [("CPU", "CPU", "CPU"), ("CUDA", "CUDA", "CUDA"), ("Ascend", "Ascend", "CPU")]
)
def test_reference_and_oracle_compute_where_they_can_and_the_subject_on_its_own_device(
    tmp_path: Path, named: str, reference: str, oracle: str
) -> None:
    chosen = dataclasses.replace(options(tmp_path), reference_device=named, device="Ascend")
    assert [chosen.device_of(side) for side in ("reference", "oracle", "subject")] == [reference, oracle, "Ascend"]
