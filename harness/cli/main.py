"""The commands put together, and the one place where an error becomes a message and an exit code."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer

from harness.base.errors import CertifyError
from harness.cli import (
    baseline,
    checkpoint,
    compare,
    data,
    diagnose,
    evidence,
    floor,
    launch,
    level,
    plan,
    power,
    run,
    site,
)
from harness.cli.terminal import BAD_INPUT, INTERRUPTED, MET, error_console

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None}
app = typer.Typer(
    name="certify",
    help="Computes the level of a MindSpore model from evidence: trains it beside its PyTorch reference, compares "
    "every step, judges against frozen limits, and writes a page.\n\nBegin with: certify run",
    add_completion=False,
    pretty_exceptions_enable=False,
    **OPTIONS,
)
COMMANDS: tuple[Callable[..., int], ...] = (
    run.run,
    diagnose.diagnose,
    evidence.verify,
    level.level,
    evidence.diff,
    evidence.report,
    compare.compare,
    level.keygen,
    level.attest,
    level.withdraw,
    level.waive,
    floor.floor,
    power.power,
    plan.plan,
    launch.launch,
    checkpoint.checkpoint,
    site.site,
    site.nightly,
    run.cases,
    run.env,
)
for command in COMMANDS:
    app.command()(command)
app.command("import")(compare.import_)  # a word of the language

data_app = typer.Typer(help="Prepare training data: WikiText to jsonl to Megatron files to batches.", **OPTIONS)
DATA_COMMANDS: tuple[Callable[..., int], ...] = (
    data.jsonl,
    data.preprocess,
    data.inspect,
    data.batches,
    data.tokenizer,
)
for command in DATA_COMMANDS:
    data_app.command()(command)
app.add_typer(data_app, name="data")

baseline_app = typer.Typer(help="Record the reference half of a case once, to judge without it.", **OPTIONS)
BASELINE_COMMANDS: Mapping[str, Callable[..., int]] = {
    "record": baseline.record,
    "list": baseline.list_baselines,
    "verify": baseline.verify,
}
for name, command in BASELINE_COMMANDS.items():
    baseline_app.command(name)(command)
app.add_typer(baseline_app, name="baseline")

# What typer's parser raises for unknown options and values; typer brings its own click or uses the installed one.
USAGE_ERROR: Any = typer.BadParameter.__base__


def main() -> None:
    """Runs a command, and turns an error that a person can mend into a message."""
    try:
        code = app(standalone_mode=False)
    except CertifyError as error:
        error_console.print(f"Error: {error}", style="red", markup=False, soft_wrap=True)
        code = error.exit_code
    except typer.Exit as error:
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except USAGE_ERROR as error:
        error.show()
        code = BAD_INPUT
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        error_console.print(f"Error: {what}", style="red", markup=False, soft_wrap=True)
        code = BAD_INPUT
    sys.exit(code or MET)
