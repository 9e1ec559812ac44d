"""`--certify-standard`: for marked tests that name none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.pytest_plugin.conftest import Ran


def test_the_case_is_judged_by_the_standards_that_are_named(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    pytester.runpytest("--certify-standard", "official").assert_outcomes(passed=1)
    assert ran[0]["standards"] == ["official"] and ran[0]["case"].standards == ("official",)


@pytest.mark.parametrize("named", ['"official"', '["official"]'])
def test_a_test_that_names_its_own_keeps_them(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran, named: str
) -> None:
    marked(f'case="small.yaml", standard={named}')
    pytester.runpytest("--certify-standard", "strict-fp32").assert_outcomes(passed=1)
    assert ran[0]["standards"] == ["official"]


def test_a_standard_that_is_not_there_is_an_error(pytester: pytest.Pytester, marked: Callable[..., Path]) -> None:
    marked('case="small.yaml"')
    result = pytester.runpytest("--certify-standard", "no-such-standard")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no-such-standard*"])
