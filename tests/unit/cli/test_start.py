"""What a command imports: a list of commands and a level must not wait for charts, statistics or a data pipeline."""

import subprocess
import sys

import pytest

from harness.cli.main import BaselineCommands, Certify, DataCommands
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT

PUBLISHED = "reports/qwen3-tiny-fp32-cpu"
# Each takes a twentieth of a second of CPU time or more; scipy.stats, the slowest, more than all the rest of a start.
SLOW = {
    "cryptography", "datasets", "jinja2", "mindspore", "numpy", "plotly", "pydantic", "scipy", "securesystemslib",
    "tokenizers", "torch", "transformers", "yaml",
}  # fmt: skip
RECORDS = {"numpy", "pydantic", "yaml"}
SIGNATURES = {"cryptography", "securesystemslib"}
PAGE = {"jinja2", "plotly"}  # a page of this very program is rendered again
SHOW = """
import sys
from harness.cli import main
try:
    main()
finally:
    print("imported", *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["data", "--help"], {"pydantic"}),
        (["no-such-command"], {"pydantic"}),
        (["cases"], RECORDS),
        (["level", PUBLISHED], RECORDS | SIGNATURES),
        (["verify", PUBLISHED], RECORDS | SIGNATURES | PAGE),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_command_imports_no_slow_package_that_it_does_not_use(words: list[str], allowed: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW, *words], cwd=ROOT, capture_output=True, text=True)
    imported = set(done.stderr.splitlines()[-1].split()[1:])
    assert "harness" in imported, done.stderr
    assert imported & SLOW <= allowed


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


EVERY = [
    *([name] for name in Certify.homes),
    *(["data", name] for name in DataCommands.homes),
    *(["baseline", name] for name in BaselineCommands.homes),
]


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_the_list_shows_what_the_help_of_a_command_begins_with(certify_: Call, words: list[str]) -> None:
    *group, name = words
    listed, alone = certify_(*group, "--help"), certify_(*words, "-h")
    assert (listed.code, alone.code) == (0, 0)
    (summary,) = [line.split(maxsplit=1)[1] for line in listed.out.splitlines() if line.split()[:1] == [name]]
    assert f"\n  {summary}\n" in alone.out
