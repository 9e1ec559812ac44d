"""`--certify-level`: for marked tests that name none. Below it a test fails with the findings."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.runs.trace import Step
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


def one_step_off(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=step.loss * 1.01) if run == "subject-1" and step.step == 5 else step


@pytest.mark.parametrize("change", [one_step_off])
def test_where_something_differs_the_failure_names_both_numbers_and_the_command_that_names_the_module(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*: Untested (*); Preliminary is required. * of 65 criteria fail, the first at step 5*",
            "FAIL         loss: *at most 1e-05 allowed*beyond the limit at step 5: subject-1 has *, reference-1 has*",
            "The first step beyond a limit is step 5 (official/subject-deterministic).",
            "Next: certify diagnose *  # names the module, the gradient or the check that differs first",
        ]
    )


@pytest.mark.parametrize("change", [one_step_off])
def test_where_the_rate_is_beyond_what_limits_were_derived_for_the_failure_says_so(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    case = yaml.safe_load((pytester.path / "small.yaml").read_text())
    case["lr_schedule"]["learning_rate"] = 1e-3
    (pytester.path / "small.yaml").write_text(yaml.safe_dump(case))
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*limits of strict-fp32 were derived for learning rates up to 0.0001*up to 0.001*"])


def test_a_failure_names_level_findings_what_is_missing_and_the_next_command(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml", level="Released"', body='raise AssertionError("the body ran")')
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*: Preliminary (*); Released is required. 53 of 65 criteria pass, none fails*",
            "INCONCLUSIVE official-steps: *smallest 8, at least 1000 required*",
            "Missing for Validated: *",
            "Closest to its limit, or furthest beyond it: *",
            "Page: *report.html",
        ]
    )
    for text in ("*certify diagnose*", "*Traceback*", "*the body ran*", "*pytest_plugin.py*"):
        result.stdout.no_fnmatch_line(text)


def test_a_level_that_does_not_exist_is_refused_before_anything_runs(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    result = pytester.runpytest("--certify-level", "Excellent")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and ran == []
    result.stderr.fnmatch_lines(["*There is no level 'Excellent': choose Released, Validated*"])


def test_the_level_none_is_refused_since_no_test_could_fail(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    result = pytester.runpytest("--certify-level", "none")
    result.stderr.fnmatch_lines(["*level 'none' requires nothing, so no test could fail*"])
