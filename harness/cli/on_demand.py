"""A group of commands whose modules are imported when one of them is run, and not when all are listed.

What a command imports decides how long it takes to start: charts, statistics and the data pipeline are seconds that
`certify level` does not need. A list of commands shows the first line of each docstring, read from the source.
"""

import ast
import gc
import importlib
import importlib.resources
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from harness.base.near_names import did_you_mean
from harness.cli.terminal import BAD_INPUT

ROOM = "harness.cli"
# Options that may be given without a value, and what they are then.
VALUES_WITHOUT: Mapping[str, str] = {"--baseline": "baselines"}


class CommandsOnDemand(TyperGroup):
    """A group that knows where its commands are: a subclass gives `homes`, MODULE:FUNCTION of `harness.cli` by name."""

    homes: ClassVar[Mapping[str, str]]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What the group leaves to its command. Without any argument the help is shown, as for other bad input."""
        if not args:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(BAD_INPUT)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, groups last."""
        return [*self.homes, *(name for name in self.commands if name not in self.homes)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name, with the module that it is in; None where there is none."""
        if cmd_name in self.homes:
            module, function = self.homes[cmd_name].split(":")
            self.commands[cmd_name] = _command(cmd_name, getattr(_imported(f"{ROOM}.{module}"), function))
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant by the first word, or a usage error that names the nearest one."""
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            ctx.fail(f"There is no command {args[0]!r}.{did_you_mean(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes name and summary of each command; imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(name)) for name in self.list_commands(ctx)])

    def _summary(self, name: str) -> str:
        if name not in self.homes:
            return str(self.commands[name].help).partition("\n")[0]
        module, function = self.homes[name].split(":")
        source = (importlib.resources.files(ROOM) / f"{module}.py").read_text(encoding="utf-8")
        functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
        documented = next(node for node in functions if node.name == function)
        return (ast.get_docstring(documented) or "").partition("\n")[0]


def _imported(name: str) -> ModuleType:
    """A module by its name. Its first import makes many objects and no garbage. Looking for garbage among them, then
    and later, is a fifth of what `certify verify` takes; so they are excluded from it."""
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class WithOptionalValues(TyperCommand):
    """A command with options that may be given without a value, which Typer has none of."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name for one in self.params for name in one.opts}
        return super().parse_args(ctx, with_values(args, {k: v for k, v in VALUES_WITHOUT.items() if k in known}))


def with_values(words: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The words of a command line in which each of these options has a value: its own, or that of the mapping."""
    found: list[str] = []
    for number, word in enumerate(words):
        found.append(word)
        if word in values and (number + 1 == len(words) or words[number + 1].startswith("-")):
            found.append(values[word])
    return found


def _command(name: str, function: Any) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, cls=WithOptionalValues)(function)
    return typer.main.get_command(alone)
