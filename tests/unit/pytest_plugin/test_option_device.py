"""`--certify-device`: what subjects run on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.pytest_plugin.conftest import FAKE_SIDES, Ran


def test_the_device_is_handed_to_every_run(pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran) -> None:
    marked('case="small.yaml"')
    pytester.runpytest("--certify-device", "CPU").assert_outcomes(passed=1)
    assert ran[0]["options"].device == "CPU"


def test_an_npu_that_is_not_there_is_an_error_and_never_a_pass_or_a_skip(
    pytester: pytest.Pytester, marked: Callable[..., Path]
) -> None:
    marked(f'case="small.yaml", {FAKE_SIDES}')
    result = pytester.runpytest("--certify-device", "Ascend")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cannot run here:*", "*devices: npu-smi is not installed*"])
    assert not (pytester.path / "certify-runs").exists()


def test_another_device_is_refused(pytester: pytest.Pytester, marked: Callable[..., Path]) -> None:
    marked('case="small.yaml"')
    result = pytester.runpytest("--certify-device", "TPU")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--certify-device TPU: choose CPU or Ascend.*"])


@pytest.mark.parametrize("device", ["NPU", "ascend", "npu:0", "GPU"])
def test_another_device_of_a_marker_is_an_error_before_anything_runs(
    pytester: pytest.Pytester, marked: Callable[..., Path], device: str
) -> None:
    marked(f'case="small.yaml", device="{device}", {FAKE_SIDES}')
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"*was not certified: There is no device '{device}' for a subject: choose CPU or Ascend*"]
    )
    assert not (pytester.path / "certify-runs").exists()
