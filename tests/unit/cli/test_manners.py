"""Version, help, the nearest name, lines that are whole where there is no terminal, and JSON whatever happens."""

import contextlib
import importlib.metadata
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
import yaml

from harness import cli
from harness.cases.case import shipped_cases
from harness.certify import flow
from harness.cli.main import app
from harness.cli.options import without_option
from tests.support.bundles import write_example
from tests.support.certify_process import certify
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, TEXT, small_case

RUNNERS = [word for side in ("subject", "reference", "oracle") for word in (f"--{side}", f"{FAKES}:Fake")]


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("example") / "bundle", case=small_case()).path


def test_the_version_is_that_of_the_distribution(certify_: Call) -> None:
    result = certify_("--version")
    assert (result.code, result.out) == (0, f"certify {importlib.metadata.version('mindspore-certify')}\n")


def test_code_that_is_not_installed_has_no_version(certify_: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["harness.cli.main"], "DISTRIBUTION", "mindspore-certify-elsewhere")
    result = certify_("--version")
    assert result.code == 2 and "pip install ." in result.err


@pytest.mark.parametrize("words", [[], ["run"], ["data"], ["data", "jsonl"], ["baseline", "list"]], ids=" ".join)
def test_h_is_help(certify_: Call, words: list[str]) -> None:
    short, long = certify_(*words, "-h"), certify_(*words, "--help")
    assert short.code == 0 and short.out == long.out and "-h, --help" in short.out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["rum"], "'run'"),
        (["VERIFY"], "'verify'"),
        (["baseline", "recrod"], "'record'"),
        (["run", "--sujbect", "x"], "'--subject'"),
        (["run", "--level", "perliminary"], "'Preliminary'"),
        (["run", "--device", "ascend"], "'Ascend'"),
        (["run", "qwen3-tiny-fp23"], "'qwen3-tiny-fp32'"),
        (["run", "--standard", "strict_fp32"], "'strict-fp32'"),
        (["run", "--subject", "mindspoer"], "'mindspore'"),
        (["power", "--out", "x.json", "--defects", "optimiser"], "'optimizer'"),
        (["power", "--out", "x.json", "--defects", "mising-key-norm"], "'missing-key-norm'"),
        (["import", "x.log", "--format", "mindformer"], "'mindformers'"),
        (["waive", "BUNDLE", "fist-loss", "--reason", "x", "--until", "2026-01-01", "--role", "dev-team", "--key", "k"],
         "'first-loss'"),
        (["attest", "BUNDLE", "--role", "devteam", "--key", "k"], "'dev-team'"),
    ],
    ids=lambda words: " ".join(words)[:50] if isinstance(words, list) else "",
)  # fmt: skip
def test_an_error_about_a_misspelt_name_names_the_nearest_one(
    certify_: Call, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = certify_(*(str(bundle) if word == "BUNDLE" else word for word in words))
    assert result.code == 2 and f"Did you mean {meant}?" in result.err
    assert not any(tmp_path.iterdir())


def test_a_name_that_is_near_to_none_gets_no_suggestion(certify_: Call) -> None:
    assert "Did you mean" not in certify_("run", "--subject", "xyzzy").err


def test_nothing_is_wrapped_or_cut_where_there_is_no_terminal(bundle: Path) -> None:
    # a narrow terminal around the pipe must not matter either
    shown = certify("cases", COLUMNS="40").stdout
    for name in shipped_cases():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert all(standard in line for standard in ("official", "Qwen3"))
    assert "…" not in shown
    help_text = certify("run", "--help", COLUMNS="40").stdout
    assert any("each in a process of its own. Exit code 0" in line for line in help_text.splitlines())
    (finding,) = [line for line in certify("report", bundle, COLUMNS="40").stdout.splitlines() if "Missing for" in line]
    assert len(finding) > 80


def test_a_help_is_wrapped_to_the_terminal_where_there_is_one() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "harness.cli", "run", "--help"]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, env={**os.environ, "COLUMNS": "60"}) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0 and max(map(len, shown.decode().splitlines())) <= 70


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # what Linux says when the other end is closed
        return b""


@pytest.mark.parametrize(
    "words",
    [
        ["run", "no-such-case"],
        ["run", "--no-such-option"],
        ["run", "--threads", "none"],
        ["no-such-command"],
        ["baseline", "no-such-command"],
        ["compare", "one"],
        ["compare", "no-such-file", "no-such-file"],
        ["verify", "no-such-bundle"],
        ["level", "."],
        ["checkpoint", "no-such-directory", "out"],
        ["launch", "qwen3-tiny-fp32"],
        ["cases", "--show", "\0"],
    ],
    ids=" ".join,
)
def test_an_error_is_one_json_object_too_and_a_message(
    certify_: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = certify_(*words, "--json")
    found = json.loads(result.out)
    assert set(found) == {"error", "exit_code"} and result.code == found["exit_code"] == 2
    assert found["error"] and " ".join(found["error"].split()) in result.err


@pytest.mark.parametrize(
    "words",
    [
        ["cases"],
        ["cases", "--show", "qwen3-tiny-fp32"],
        ["env"],
        ["level", "BUNDLE"],
        ["verify", "BUNDLE"],
        ["report", "BUNDLE"],
        ["diff", "BUNDLE", "BUNDLE"],
        ["baseline", "list", "--baselines", str(ROOT / "baselines")],
        ["plan", "qwen3-8b-bf16"],
        ["plan", "qwen3-8b-bf16", "--cards", "8", "--memory", "58GB"],
        ["launch", "qwen3-tiny-dp2", "--nnodes", "2", "--print"],
    ],
    ids=" ".join,
)
def test_what_is_found_is_one_json_object(
    certify_: Call, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = certify_(*(str(bundle) if word == "BUNDLE" else word for word in words), "--json")
    assert isinstance(json.loads(result.out), dict) and result.code in (0, 1)


def test_an_interrupt_is_one_json_object_with_its_exit_code(
    certify_: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "run", interrupted)
    result = certify_("run", "--out", tmp_path / "out", "--json")
    assert result.code == 130 and json.loads(result.out)["exit_code"] == 130 and "--resume" in result.err


def parsed(command: str) -> list[str]:
    """The words of a printed command, if a shell and the command's own parser take it; runs nothing."""
    name, *words = shlex.split(command)
    with contextlib.suppress(typer.Exit):  # --help
        context = typer.main.get_command(app).make_context(name, words.copy())
        while hasattr(context.command, "resolve_command"):
            word, found, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
            context = found.make_context(word, rest, parent=context)
    return [name, *words]


# A command is printed alone on a line, or after a colon and up to the end of its line or sentence. Between quotes is
# only which command is meant, or one whose arguments are given in capitals.
WORD = r"""(?:'[^']*'|"[^"]*"|[^\s'"(])+"""
PRINTED = re.compile(rf"(?:(?<=: )|^)certify {WORD}(?: {WORD})*", re.MULTILINE)
MENTIONED = re.compile("(?<=')certify [^']+(?=')")
MENTION = re.compile("certify( [a-z]+| --[a-z-]+| [A-Z]+)+")


def commands_in(text: str) -> list[str]:
    """The commands that a text prints for a reader to paste; a synopsis is none."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("Usage: "))
    assert all(map(MENTION.fullmatch, MENTIONED.findall(lines))), lines
    return [found.rstrip(".;,)") for found in PRINTED.findall(lines)]


@pytest.fixture
def place(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a case, a bundle and what else commands take, under names that a shell would take apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("my text.txt").write_text(TEXT)
    Path("my case.yaml").write_text(yaml.safe_dump(small_case().record()))
    Path("my.jsonl").write_text('{"text": "words"}')
    Path("nights $1.yaml").write_text("name: all\ncells:\n- {case: qwen3-tiny-fp32, level: Untested}\n")
    shutil.copytree(bundle, "Ann's bundle")
    shutil.copytree(bundle, "edited; page")
    Path("edited; page", "report.html").write_text("edited")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["rum"], "certify --help"),
        (["run", "--no-such"], "certify run --help"),
        (["--help"], "certify run"),
        (["run", "my case.yaml", *RUNNERS, "--out", "Ann's bundle"], "certify report 'Ann'\"'\"'s bundle'"),
        (["verify", "edited; page"], "certify report 'edited; page'"),
        (["launch", "my case.yaml"], "certify run 'my case.yaml'"),
        (["launch", "qwen3-tiny-dp2", "--print", "--output", "out put"],
         "certify launch qwen3-tiny-dp2 --nnodes 1 --node-rank 0 --master 127.0.0.1 --port 8118 --output 'out put'"),
        (["baseline", "verify", "qwen3-tiny-fp32", "--baselines", "base lines"],
         "certify baseline record qwen3-tiny-fp32 --baselines 'base lines' --author NAME --reason WHY"),
        (["data", "preprocess", "--input", "my.jsonl", "--output-prefix", "my data", "--tokenizer", "bytes"],
         "certify data inspect 'my data_text_document'"),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, list) else "",
)  # fmt: skip
def test_a_command_in_a_message_can_be_pasted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Path, words: list[str], printed: str
) -> None:
    assert printed in commands_printed(capsys, monkeypatch, words)


@pytest.mark.parametrize(
    ("words", "stopped", "printed"),
    [
        (["run", "my case.yaml", "--out", "o u t"], "harness.certify.flow.run",
         "certify run 'my case.yaml' --out 'o u t' --resume"),
        (["diagnose", "my case.yaml", "--out", "o u t"], "harness.cli.diagnose.investigate",
         "certify diagnose 'my case.yaml'"),
        (["power", "--out", "p.json", "--work", "w k"], "harness.cli.power.run_study",
         "certify power --out p.json --work 'w k' --resume"),
        (["nightly", "nights $1.yaml", "--history", "h y"], "harness.cli.site.run_night",
         "certify nightly 'nights $1.yaml' --history 'h y'"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)  # fmt: skip
def test_the_command_that_goes_on_after_an_interrupt_can_be_pasted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    place: Path,
    words: list[str],
    stopped: str,
    printed: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stopped, interrupted)
    assert commands_printed(capsys, monkeypatch, words) == [printed]


def commands_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: Sequence[str]
) -> list[str]:
    """The commands that `certify WORDS...` prints, each of which a shell and our parser must take."""
    monkeypatch.setattr(sys, "argv", ["certify", *words])
    with pytest.raises(SystemExit):
        cli.main()
    found = [command for text in capsys.readouterr() for command in commands_in(text)]
    for command in found:
        assert parsed(command) == shlex.split(command)
    return found


@pytest.mark.parametrize(
    "command", ["certify diagnose a b", "certify run --no-such x", "certify rum", "certify run 'a"]
)
def test_a_command_that_cannot_be_pasted_is_found(command: str) -> None:
    with pytest.raises((typer.BadParameter.__base__, ValueError)):
        parsed(command)


def test_an_option_is_taken_out_with_its_value() -> None:
    assert without_option(["certify", "x", "--out", "a b", "--out=c", "--outer", "d"], "--out") == [
        "certify", "x", "--outer", "d",
    ]  # fmt: skip
