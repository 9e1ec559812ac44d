"""`--certify-protection`: what keeps the subject's runs from the answers, for marked tests that name none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.pytest_plugin.conftest import Ran


def test_the_protection_of_a_marker_counts_and_else_that_of_the_command_line(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml", protection="order"')
    pytester.runpytest("--certify-protection", "namespaces").assert_outcomes(passed=1)
    marked('case="small.yaml"')
    pytester.runpytest("--certify-protection", "namespaces").assert_outcomes(passed=1)
    assert [one["options"].protection for one in ran] == ["order", "namespaces"]


def test_the_line_of_a_case_states_the_protection_that_its_runs_had(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    pytester.runpytest().stdout.fnmatch_lines(["*Protection: not recorded.*"])


def test_a_protection_that_there_is_not_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--certify-protection", "namespace")
    result.stderr.fnmatch_lines(["*--protection 'namespace' is none of auto, namespaces, order*"])
