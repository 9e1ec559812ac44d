"""Marker, fixture, reports; several processes; and what collecting must not do."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.examples import inference_case
from tests.unit.pytest_plugin.conftest import FAKE_SIDES, Ran


def test_tests_of_one_case_share_its_runs(pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran) -> None:
    marked(
        'case="small.yaml"',
        takes="certificate",
        body='assert certificate.scope.device == "CPU"\n\ndef test_again(certificate):\n'
        "    assert certificate.level\n\ntest_again = pytest.mark.certify(case='small.yaml')(test_again)",
    )
    pytester.runpytest().assert_outcomes(passed=2)
    assert len(ran) == 1


def test_a_marker_that_is_misspelt_is_an_error(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('cases="small.yaml"')
    result = pytester.runpytest("--strict-markers")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cases is not known; name any of case, level*"])
    assert ran == []


def test_junit_has_level_digest_and_worst_ratio(
    pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran
) -> None:
    marked('case="small.yaml"')
    pytester.runpytest("--junit-xml", "junit.xml").assert_outcomes(passed=1)
    root = ElementTree.parse(pytester.path / "junit.xml")
    found = {one.get("name"): one.get("value") for one in root.iter("property")}
    assert found["certify_level"] == "Preliminary" and len(found["certify_bundle_digest"] or "") == 64
    assert 0 < float(found["certify_worst_ratio"] or "nan") < 1 and found["certify_worst_criterion"]


def test_the_summary_has_one_line_a_case(pytester: pytest.Pytester, marked: Callable[..., Path], ran: Ran) -> None:
    marked('case="small.yaml", level="Validated"')
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(["*certified*", "qwen3-tiny-fp32: Preliminary (*53 of 65 criteria pass*"])
    assert sum("criteria pass" in line and "Closest" in line for line in result.outlines) == 1


def test_a_case_of_inference_is_certified_and_names_what_is_closest_to_its_limit(
    pytester: pytest.Pytester, ran: Ran
) -> None:
    (pytester.path / "asked.yaml").write_text(yaml.safe_dump(inference_case().record()))
    mark = '@pytest.mark.certify(case="asked.yaml"'
    pytester.makepyfile(
        f"import pytest\n\n{mark})\ndef test_works(): pass\n\n{mark}, level='Validated')\ndef test_validated(): pass\n"
    )
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "qwen3-tiny-inference: Preliminary (Qwen3 tiny, inference on CPU*); Validated is required.*",
            "INCONCLUSIVE score-shown:*",
            "Closest to its limit, or furthest beyond it: *",
            "qwen3-tiny-inference: Preliminary (*31 of 32 criteria pass*",
        ]
    )
    result.stdout.no_fnmatch_line("*certify diagnose*")
    assert len(ran) == 1 and ran[0]["standards"] == ["official-inference", "strict-inference-fp32"]


def test_processes_of_xdist_share_the_runs_of_a_case(
    pytester: pytest.Pytester, real: Callable[..., pytest.RunResult]
) -> None:
    mark = f'@pytest.mark.certify(case="text.yaml", level="Untested", {FAKE_SIDES})'
    pytester.makepyfile(f"import pytest\n\n{mark}\n@pytest.mark.parametrize('n', range(4))\ndef test_it(n): pass\n")
    result = real("-n", "2", "--certify-out", "bundles")
    result.assert_outcomes(passed=4)
    assert len([path for path in (pytester.path / "bundles").iterdir() if path.is_dir()]) == 1
    assert sum("criteria pass" in line and "Closest" in line for line in result.outlines) == 1


def test_collecting_loads_no_framework(pytester: pytest.Pytester, marked: Callable[..., Path]) -> None:
    marked('case="small.yaml"')
    pytester.makeconftest(
        """
        import sys

        def pytest_collection_finish(session):
            heavy = {"mindspore", "mindformers", "torch", "transformers", "scipy", "plotly", "harness.certify"}
            assert session.items and not heavy & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("--collect-only", "-q")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*::test_level"])


def test_tests_without_the_marker_are_left_alone(pytester: pytest.Pytester, ran: Ran) -> None:
    pytester.makepyfile("def test_other(): pass")
    result = pytester.runpytest("--certify-case", "small.yaml")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*certified*")
    assert ran == []
