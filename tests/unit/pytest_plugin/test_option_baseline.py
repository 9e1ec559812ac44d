"""`--certify-baseline`: judge against what was recorded; reference and oracle do not run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.pytest_plugin.conftest import FAKE_SIDES, Ran


def test_the_baselines_are_handed_to_every_run(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    pytester.runpytest("--certify-baseline", "recorded").assert_outcomes(passed=1)
    assert ran[0]["options"].baselines == Path("recorded") and ran[0]["options"].sides == ("subject",)


def test_a_baseline_that_was_never_recorded_is_an_error(pytester: pytest.Pytester, marked: Callable[..., Path]) -> None:
    marked(f'case="small.yaml", {FAKE_SIDES}')
    result = pytester.runpytest("--certify-baseline", "recorded")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*was not certified: *recorded*"])
