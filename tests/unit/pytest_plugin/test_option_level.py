"""`--certify-level`: for marked tests that name none. Below it a test fails with the findings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.pytest_plugin.conftest import Ran


@pytest.mark.parametrize(
    ("level", "outcome"), [("Untested", "passed"), ("Preliminary", "passed"), ("Validated", "failed")]
)
def test_a_test_fails_below_the_level(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran, level: str, outcome: str
) -> None:
    marked('case="small.yaml"')
    pytester.runpytest("--certify-level", level).assert_outcomes(**{outcome: 1})


def test_the_level_of_a_marker_counts_and_preliminary_without_any(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml", level="Validated"')
    pytester.runpytest("--certify-level", "Untested").assert_outcomes(failed=1)


def test_a_failure_names_level_findings_what_is_missing_and_the_next_command(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml", level="Released"', body='raise AssertionError("the body ran")')
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*is Preliminary, Released is asked*",
            "INCONCLUSIVE official-steps: *smallest 8, at least 1000 required*",
            "missing for Validated: *",
            "page: *report.html",
            "*certify diagnose *",
        ]
    )
    for text in ("*Traceback*", "*the body ran*", "*pytest_plugin.py*"):
        result.stdout.no_fnmatch_line(text)


def test_a_level_that_does_not_exist_is_refused_before_anything_runs(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    result = pytester.runpytest("--certify-level", "Excellent")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and ran == []
    result.stderr.fnmatch_lines(["*There is no level 'Excellent': choose Released, Validated*"])
