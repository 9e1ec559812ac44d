"""`--certify-case`: for marked tests that name no case, once for each."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.examples import small_case
from tests.unit.pytest_plugin.conftest import Ran


def test_each_case_is_certified_by_each_test_that_names_none(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    other = small_case(steps=9).record() | {"name": "other"}
    (pytester.path / "other.yaml").write_text(yaml.safe_dump(other))
    marked(takes="certificate", body='assert str(certificate.level) == "Preliminary"')
    result = pytester.runpytest("--certify-case", "small.yaml", "--certify-case", "other.yaml", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_level?small? PASSED*", "*test_level?other? PASSED*"])
    assert [one["case"].training.steps for one in ran] == [8, 9]


def test_a_test_that_names_its_case_keeps_it(pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran) -> None:
    marked('case="small.yaml"')
    pytester.runpytest("--certify-case", "qwen3-small-fp32").assert_outcomes(passed=1)
    assert [one["case"].training.steps for one in ran] == [8]


def test_without_any_the_default_case_is_certified(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked()
    pytester.runpytest().assert_outcomes(passed=1)
    assert [one["case"].name for one in ran] == ["qwen3-tiny-fp32"]


def test_a_case_that_is_not_there_is_an_error_with_its_reason(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked()
    result = pytester.runpytest("--certify-case", "no-such-case")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no-such-case was not certified: There is no case 'no-such-case'*"])
    result.stdout.no_fnmatch_line("*Traceback*")
