"""`certify env --device Ascend` on servers of several kinds: device, versions, profile, and what is missing."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.certify import environment
from harness.runners.profile import profile_variables
from tests.support.ascend_machines import INFERENCE_A2, SUPERPOD_A3, TRAINING_A2, Machine, set_up
from tests.support.command_line import caller

SERVERS = {
    "800T A2": (TRAINING_A2, "8 by npu-smi", []),
    "800I A2": (INFERENCE_A2, "8 by npu-smi", []),
    "900 A3": (SUPERPOD_A3, "16 by npu-smi", []),
    "CANN 8.3": (dataclasses.replace(TRAINING_A2, cann="8.3.RC1"), "8 by npu-smi", []),
    "CANN 8.0": (dataclasses.replace(TRAINING_A2, cann="8.0.0"), "8 by npu-smi", ["CANN fits MindSpore"]),
    "no driver": (dataclasses.replace(TRAINING_A2, driver=None), "npu-smi is not installed", ["devices"]),
    "busy": (
        dataclasses.replace(TRAINING_A2, npus=1, users=((0, 0, 4711),)),
        "1 by npu-smi; 0 idle, device 0 by python3.11 4711",
        ["devices"],
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_stated_with_its_device_and_what_it_lacks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, devices, lacking = SERVERS[name]
    set_up(server, tmp_path, monkeypatch)
    monkeypatch.setattr(environment, "packages", lambda: {"mindspore": "2.9.0", "torch": "2.13", "transformers": "4"})
    certify = caller(capsys, monkeypatch)
    shown = json.loads(certify("env", "--device", "Ascend", "--json").out)
    by_name = {one["name"]: one for one in shown["prerequisites"]}
    assert by_name["devices"]["found"] == devices
    assert [one for one, stated in by_name.items() if not stated["met"]] == lacking
    assert shown["machine"]["ascend"] == _versions(server)
    assert profile_variables("Ascend").items() <= shown["variables"].items()
    assert shown["settings"]["jit_level"] == "O0"
    assert server.product in certify("env", "--device", "Ascend").out


def _versions(server: Machine) -> dict[str, str | None]:
    """What is stated of a server; without a driver only what is no part of it."""
    of_driver = {"driver": server.driver, "firmware": server.firmware, "soc": server.chip, "board": server.board}
    if server.driver is None:
        of_driver = dict.fromkeys(of_driver)
    return {"cann": server.cann, **of_driver, "product": server.product}
