"""Every command and option is documented, and nothing that is documented is missing in the program."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from harness.cases.case import load_case, shipped_cases
from harness.cli.main import app
from tests.support.documents import DOCUMENTS, SITE, code_blocks, code_spans, read, tables
from tests.support.examples import ROOT

COMMANDS, CASES, DEVELOPMENT = SITE / "commands.md", SITE / "cases.md", SITE / "development.md"
HELP = {"-h", "--help"}


def commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Each command of the program by its full name, groups before their commands."""
    yield " ".join(words), command
    if hasattr(command, "list_commands"):
        context = command.context_class(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), (*words, name))


def options(command: Any) -> set[str]:
    named = {name for one in command.params if one.param_type_name == "option" for name in one.opts}
    return named - HELP


ALL = dict(commands(typer.main.get_command(app), ("certify",)))
PROGRAM = {name: options(command) for name, command in ALL.items()}
GROUPS = {name for name, command in ALL.items() if hasattr(command, "list_commands")}


def test_the_options_of_every_command_are_documented() -> None:
    sections = re.split(r"^## ", read(COMMANDS), flags=re.MULTILINE)[1:]
    documented = {
        section.partition("\n")[0]: {
            name for table in tables(section) for row in table for name in re.findall(r"`(--[\w-]+)", row[0])
        }
        for section in sections
    }
    assert documented == {name: PROGRAM[name] for name in PROGRAM if name not in GROUPS}


def test_every_command_is_in_the_table_of_purposes() -> None:
    named = [name for row in next(tables(read(COMMANDS))) for name in re.findall(r"\[`([^`]+)`\]", row[1])]
    assert sorted(f"certify {name}" for name in named) == sorted(set(PROGRAM) - GROUPS)


def command_lines(path: Path) -> Iterator[str]:
    """What a document gives to a shell, from `certify` on."""
    text = read(path)
    for code in (*code_spans(text), *(block for _, block in code_blocks(text))):
        yield from re.findall(r"^(?:.*&& |\$ )?(certify [-a-z].*)$", code, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_command_line_in_a_document_is_one_of_the_program(path: Path) -> None:
    for line in command_lines(path):
        words = line.split("#")[0].split()
        called = next((name for name in map(" ".join, (words[:3], words[:2], words[:1])) if name in PROGRAM), None)
        assert called is not None, line
        if called in GROUPS:
            assert set(words[1:]) <= {"COMMAND", called.split()[-1], *PROGRAM[called]}, line
        else:
            assert {word for word in words if word.startswith("--")} - HELP <= PROGRAM[called], line


def test_every_shipped_case_is_in_the_table_with_its_steps_and_standards() -> None:
    described = {}
    for row in next(tables(read(CASES))):
        for name in re.findall(r"`([^`]+)`", row[0]):
            described[name] = (row[2], row[3])
    for name in shipped_cases():
        case = load_case(name)
        assert described.pop(name) == (str(case.training.steps), ", ".join(case.standards))
    assert described == {}


def test_every_environment_of_the_tests_is_described() -> None:
    environments = re.findall(r"^\[testenv:(.*)\]$", read(ROOT / "tox.ini"), re.MULTILINE)
    rows = [row for table in tables(read(DEVELOPMENT)) for row in table]
    assert set(environments) <= {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])}
