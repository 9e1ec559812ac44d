"""Tests that are left to `tox run -e full` name the quicker test that holds their law."""

import pytest

from tests.support.examples import ROOT

CONFTEST = "from tests.conftest import *"
TESTS = """
    import pytest
    from tests.support.full import full

    def test_quick(): pass

    @full(held_by="test_laws.py::test_quick")
    def test_slow(): assert False

    @pytest.mark.parametrize("size", [1, pytest.param(2, marks=full(held_by="test_laws.py::test_sized"))])
    def test_sized(size): assert size == 1
"""


@pytest.fixture
def laws(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_laws=TESTS)
    return pytester


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_what_is_left_out_is_counted_and_does_not_run(laws: pytest.Pytester, workers: tuple[str, ...]) -> None:
    done = laws.runpytest_subprocess("-m", "not full", *workers)
    assert done.parseoutcomes()["passed"] == 2
    done.stdout.fnmatch_lines(["2 tests are left to: tox run -e full"])


def test_what_is_left_out_is_all_that_full_runs(laws: pytest.Pytester) -> None:
    laws.runpytest("-m", "full").assert_outcomes(failed=2, deselected=2)


@pytest.mark.parametrize("name", ["test_laws.py::test_quickly", "test_other.py::test_quick", "test_laws.py", ""])
def test_a_law_that_no_test_holds_ends_the_session(pytester: pytest.Pytester, name: str) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_laws=TESTS.replace("test_laws.py::test_quick", name))
    done = pytester.runpytest("-m", "not full")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*test_slow is marked full: there is no test {name!r} that holds its law"])
