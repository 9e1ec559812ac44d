"""`--baseline [DIR]`: one option, whose directory may be omitted."""

from pathlib import Path

import pytest

from harness.cases.case import DEFAULT_CASE
from harness.cli.on_demand import with_values
from harness.cli.run import baselines_of
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("case --baseline", "case --baseline baselines"),
        ("case --baseline --json", "case --baseline baselines --json"),
        ("case --baseline mine --json", "case --baseline mine --json"),
        ("case --baseline=mine", "case --baseline=mine"),
        ("case", "case"),
    ],
)
def test_an_option_without_its_value_gets_its_default(words: str, found: str) -> None:
    assert with_values(words.split(), {"--baseline": "baselines"}) == found.split()


@pytest.mark.parametrize("command", ["run", "launch"])
def test_there_is_one_option_of_baselines(certify_: Call, command: str) -> None:
    refused = certify_(command, "qwen3-tiny-tp2", "--baseline", "--baselines", "there")
    assert refused.code == 2 and "--baselines" in refused.err
    shown = certify_(command, "--help")
    assert "--baseline [DIR]" in " ".join(shown.out.split())


UNSHIPPED = "qwen3-tied-fp32"


@pytest.mark.parametrize(("words", "named"), [(["--baseline", "there"], "there"), (["--baseline"], "baselines")])
def test_the_baseline_is_looked_for_where_it_is_said_to_be(
    certify_: Call, tmp_path: object, monkeypatch: pytest.MonkeyPatch, words: list[str], named: str
) -> None:
    monkeypatch.chdir(str(tmp_path))
    refused = certify_("run", UNSHIPPED, "--subject", "tests.support.fake_runners:Fake", *words)
    assert refused.code == 2 and f"There is no baseline {named}/{UNSHIPPED}" in refused.err


def test_the_shipped_baseline_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert baselines_of(Path("baselines"), DEFAULT_CASE) == ROOT / "baselines"
    assert baselines_of(Path("baselines"), UNSHIPPED) == Path("baselines")
    assert baselines_of(Path("there"), DEFAULT_CASE) == Path("there")
    assert baselines_of(None, DEFAULT_CASE) is None


def test_an_own_baseline_comes_before_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("baselines", DEFAULT_CASE).mkdir(parents=True)
    assert baselines_of(Path("baselines"), DEFAULT_CASE) == Path("baselines")
