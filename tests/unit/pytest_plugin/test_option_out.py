"""`--certify-out`: where the bundles go, and that none of an earlier session is taken."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.evidence.bundle import read_bundle
from tests.unit.pytest_plugin.conftest import FAKE_SIDES, Ran


def test_bundles_of_real_runs_go_there_and_can_be_checked_again(
    pytester: pytest.Pytester, marked: Callable[..., Path], real: Callable[..., pytest.RunResult]
) -> None:
    marked(f'case="text.yaml", level="Untested", {FAKE_SIDES}')
    real("--certify-out", "bundles").assert_outcomes(passed=1)
    (found,) = [path for path in (pytester.path / "bundles").iterdir() if path.is_dir()]
    bundle = read_bundle(found)
    assert (found / "report.html").is_file() and bundle.occasion.command[0] == "pytest"


def test_every_session_runs_anew(pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran) -> None:
    marked('case="small.yaml"')
    for _ in range(2):
        pytester.runpytest("--certify-out", "bundles").assert_outcomes(passed=1)
    assert len(ran) == 2 and len({one["options"].out for one in ran}) == 2


def test_without_it_they_go_beside_the_tests(pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran) -> None:
    marked('case="small.yaml"')
    pytester.runpytest().assert_outcomes(passed=1)
    assert ran[0]["options"].out.parent == pytester.path / "certify-runs"
