"""All commands, and the one place where an error becomes a message and an exit code."""

import io
import json
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import typer

from harness.base.errors import CertifyError, InputError
from harness.base.near_names import did_you_mean
from harness.cli.defect import describe
from harness.cli.on_demand import CommandsOnDemand
from harness.cli.terminal import BAD_INPUT, DEFECT, INTERRUPTED, MET, columns, error_console

NAME, DISTRIBUTION = "certify", "mindspore-certify"


class Certify(CommandsOnDemand):
    homes: ClassVar[Mapping[str, str]] = {
        "run": "run:run",
        "judge": "judge:judge",
        "diagnose": "diagnose:diagnose",
        "verify": "verify:verify",
        "level": "level:level",
        "diff": "diff:diff",
        "upgrade": "upgrade:upgrade",
        "report": "report:report",
        "compare": "compare:compare",
        "import": "compare:import_",
        "keygen": "level:keygen",
        "attest": "level:attest",
        "withdraw": "level:withdraw",
        "waive": "level:waive",
        "floor": "floor:floor",
        "power": "power:power",
        "plan": "plan:plan",
        "launch": "launch:launch",
        "checkpoint": "checkpoint:checkpoint",
        "site": "site:site",
        "nightly": "site:nightly",
        "bisect": "bisect:bisect",
        "cases": "cases:cases",
        "env": "env:env",
        "collect-report": "collect_report:collect_report",
    }


class DataCommands(CommandsOnDemand):
    homes: ClassVar[Mapping[str, str]] = {
        "jsonl": "data:jsonl",
        "preprocess": "data:preprocess",
        "inspect": "data:inspect",
        "batches": "data:batches",
        "tokenizer": "data:tokenizer",
    }


class BaselineCommands(CommandsOnDemand):
    homes: ClassVar[Mapping[str, str]] = {
        "record": "baseline:record",
        "extract": "baseline:extract",
        "list": "baseline:list_baselines",
        "verify": "baseline:verify",
    }


app = typer.Typer(
    cls=Certify,
    help="Computes the level of a MindSpore model from evidence: runs the model and its PyTorch reference, compares "
    "every step, judges by fixed limits, and writes a report.\n\nStart with: certify run",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(
    typer.Typer(cls=DataCommands, help="Prepare training data: WikiText to jsonl to Megatron files to batches."),
    name="data",
)
app.add_typer(
    typer.Typer(cls=BaselineCommands, help="Record reference and oracle of a case once, to judge without PyTorch."),
    name="baseline",
)

# What typer's parser raises for unknown options and values; typer brings its own click or uses the installed one.
USAGE_ERROR: Any = typer.BadParameter.__base__


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata  # here, because no other command needs it and it takes a twentieth of a second

        try:
            print(f"{NAME} {importlib.metadata.version(DISTRIBUTION)}")
        except importlib.metadata.PackageNotFoundError:
            raise InputError(
                "This code is not installed, so it has no version. Install it with: pip install ."
            ) from None
        raise typer.Exit(MET)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs a command, and turns an error that the user can fix into a message.

    An error that no one foresaw is a defect of this program: it ends with an exit code that is no verdict.
    """
    _print_anything()
    try:
        with typer.main.get_command(app).make_context(
            NAME, sys.argv[1:], terminal_width=columns(sys.stdout)
        ) as context:
            code = context.command.invoke(context)
        sys.stdout.flush()  # a full disk shows here, and not after the exit code is chosen
    except CertifyError as error:
        code = _fail(str(error), error.exit_code)
    except typer.Exit as error:
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = _fail("Interrupted.", INTERRUPTED)
    except USAGE_ERROR as error:
        error_console.print(_usage(error), markup=False, soft_wrap=True)
        code = _fail(_misuse(error), BAD_INPUT)
    except OSError as error:
        code = _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), BAD_INPUT)
    except MemoryError:
        code = _fail("There is not enough memory for this. Close other programs, or use a smaller input.", BAD_INPUT)
    except Exception as error:  # the last line of defence: what no one foresaw never gets the exit code of a verdict
        code = _fail(describe(error), DEFECT)
    sys.exit(code or MET)


def _print_anything() -> None:
    """Lets a name that is not valid text, such as that of a file, be printed with escapes and not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, code: int) -> int:
    """Prints a message, and with --json also an object."""
    interrupted = code == INTERRUPTED
    text, style = (message, "") if interrupted else (f"Error: {message}", "red")
    error_console.print(text, style=style, markup=False, soft_wrap=True)
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}, ensure_ascii=False))
    return code


def _usage(error: Any) -> str:
    if error.ctx is None:
        return ""
    return f"{error.ctx.get_usage()}\nFor all options: {error.ctx.command_path} --help\n"


def _misuse(error: Any) -> str:
    """The parser's message, with a suggestion of the nearest name."""
    message = str(error.format_message()).replace("Value error, ", "")  # typer's validation messages begin so
    if getattr(error, "possibilities", None):  # typer's own list of them is longer
        return f"{error.message}.{did_you_mean(error.option_name, error.possibilities)}"
    word, _, choices = message.rpartition(" is not one of ")
    return message + did_you_mean(word.split("'")[-2], re.findall(r"'(.*?)'", choices)) if word else message
