"""What a process of a run gets by its device: pinned, printed by such a process, and the same in the documentation."""

import os
import re
import subprocess
import sys

import pytest

from harness.runners.profile import BLOCKING, VARIABLES, profile_variables, recorded, settings_of
from harness.runners.starting import variables
from tests.support.examples import ROOT

PRINTED = "import os; print(*sorted('='.join(one) for one in os.environ.items()), sep='\\n')"
PAGE = ROOT / "docs" / "design" / "determinism.md"
PROFILES = {
    "CPU": variables(1, "CPU"),
    "CUDA": variables(1, "CUDA"),
    "Ascend": variables(1, "Ascend"),
    "Ascend, blocking": variables(1, "Ascend", blocking=True),
}


def printed(own: dict[str, str]) -> list[str]:
    """What a process prints of its environment, if nothing else is in it."""
    bare = {"PATH": os.defpath, "LC_CTYPE": "C.UTF-8"}  # Python sets the second where no other locale is
    done = subprocess.run([sys.executable, "-c", PRINTED], env={**bare, **own}, capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if line.partition("=")[0] not in bare]


@pytest.mark.parametrize("name", PROFILES)
def test_the_documentation_shows_the_environment_that_a_process_prints(name: str) -> None:
    blocks = dict(re.findall(r"^`([^`\n]+)`:\n\n```\n(.*?)```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    assert blocks[name].splitlines() == printed(PROFILES[name])


def test_a_launch_waits_for_the_one_before_only_where_a_repeat_is_diagnosed() -> None:
    plain, blocking = profile_variables("Ascend"), profile_variables("Ascend", blocking=True)
    assert {name for name in plain if plain[name] != blocking[name]} == set(BLOCKING)
    assert all(plain[name] == "0" and blocking[name] == "1" for name in BLOCKING)


def test_a_run_on_a_cpu_gets_nothing_of_another_device() -> None:
    others = {name for device, own in VARIABLES.items() if device != "CPU" for name in own}
    assert not (others | set(BLOCKING)) & set(variables(1, "CPU"))


def test_a_trace_states_the_settings_of_its_device_and_whether_launches_wait() -> None:
    assert recorded("CPU", {}) == {} and settings_of("CPU") is None
    stated = recorded("Ascend", variables(1, "Ascend", blocking=True))["profile"]
    assert stated["blocking"] is True and recorded("Ascend", variables(1, "Ascend"))["profile"]["blocking"] is False
    assert stated["jit_level"] == "O0" and not stated["matmul_hf32"] and not stated["conv_hf32"]
